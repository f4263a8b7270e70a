"""Compares training steps with PyTorch: the same networks, batches and optimizer, alternating.

    cargo build --release --example train_steps --example candle_steps
    python benches/compare_training.py

Needs Linux, and Python with PyTorch. Every contender is a separate process; rounds alternate their order, and the medians are
compared. A measurement during which other processes used much of the CPU is repeated.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from compare import KEEP_MEMORY, OURS, ROOT, SECONDS, Contender, names, processor, rounds, torch_alone

LAYOUTS = ["channels-last", "contiguous"]
CANDLE = "candle"
# Name, architecture and stride of the first convolution.
NETWORKS = {"resnet8": ("resnet8", 1), "resnet8/2": ("resnet8", 2), "vgg8": ("vgg8", 1)}


def start(name: str, network: str, threads: int, options: argparse.Namespace) -> Contender:
    """Starts a contender and waits until it is ready."""
    architecture, stride = NETWORKS[network]
    own = name in (OURS, CANDLE)
    rival = [sys.executable, str(ROOT / "benches/rival_training.py"), "--layout", name]
    command = [str(options.binary if name == OURS else options.binary.with_name("candle_steps"))] if own else rival
    command += ["--network", architecture, "--stem-stride", str(stride), "--batch", str(options.batch)]
    command += ["--surrogate", options.surrogate, "--threads", str(threads)]
    stderr = tempfile.TemporaryFile("w+")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr}
    environment = os.environ | ({} if own else KEEP_MEMORY)
    process = subprocess.Popen(command, env=environment, text=True, **pipes)
    contender = Contender(name, process, stderr)
    if process.stdout.readline().strip() != "ready":
        process.wait()
        raise SystemExit(f"{name}: {contender.errors()}")
    return contender


def compare(network: str, threads: int, options: argparse.Namespace) -> list[dict]:
    contenders = [start(name, network, threads, options) for name in options.contenders]
    for contender in contenders:
        contender.iterations = max(1, round(SECONDS / contender.ask(1)))
    rounds(contenders, options, company=[])
    for contender in contenders:
        contender.stop()
    return [
        {
            "network": network,
            "threads": threads,
            "contender": contender.name,
            "ms": 1000 * statistics.median(contender.seconds),
            "ms_all": [1000 * value for value in contender.seconds],
            "disturbed": contender.disturbed,
            "peak_mib": contender.peak_mib,
        }
        for contender in contenders
    ]


def table(results: list[dict], options: argparse.Namespace) -> str:
    columns = ["network", "threads", *(f"{name}, ms" for name in options.contenders), "ours / best PyTorch"]
    columns += [f"peak {OURS}, MiB", "peak of that PyTorch, MiB"]
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    for network in options.networks:
        for threads in options.threads:
            found = {r["contender"]: r for r in results if (r["network"], r["threads"]) == (network, threads)}
            ours, best = found[OURS], min((found[name] for name in LAYOUTS), key=lambda r: r["ms"])
            marks = {name: "\\*" if 2 * r["disturbed"] > len(r["ms_all"]) else "" for name, r in found.items()}
            cells = [network, str(threads), *(f"{found[name]['ms']:.1f}{marks[name]}" for name in options.contenders)]
            cells += [f"{ours['ms'] / best['ms']:.2f}", *(f"{r['peak_mib'] or 0:.0f}" for r in (ours, best))]
            lines.append("| " + " | ".join(cells) + " |")
    if any(2 * r["disturbed"] > len(r["ms_all"]) for r in results):
        lines += ["", "\\* More than half of the measurements had company, even when taken again."]
    return "\n".join(lines)


def main() -> None:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=names, default=list(NETWORKS), help="of " + ", ".join(NETWORKS))
    parser.add_argument("--threads", type=lambda text: [int(n) for n in names(text)], default=[1, 2])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--candle", action="store_true", help="also candle's automatic differentiation")
    parser.add_argument("--surrogate", default="plain", help="plain, decoupled:SLOPE or bsilu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tolerance", type=float, default=0.15, help="CPUs that other processes may use")
    parser.add_argument("--retakes", type=int, default=3, help="attempts more at a measurement that had company")
    parser.add_argument("--binary", type=Path, default=target / "release/examples/train_steps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there as well")
    options = parser.parse_args()
    options.contenders = [OURS, *LAYOUTS, *([CANDLE] if options.candle else [])]
    if not options.binary.exists():
        raise SystemExit(f"there is no {options.binary}: cargo build --release --example train_steps")
    results = []
    for network in options.networks:
        for threads in options.threads:
            results += compare(network, threads, options)
            print(f"{network}, {threads} threads: measured", file=sys.stderr)
    version, _ = torch_alone()
    if options.json:
        machine = {"processor": processor(), "torch": version}
        options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    print(f"One training step, batch {options.batch}, surrogate {options.surrogate}; {processor()}, PyTorch {version}.\n")
    print(table(results, options))


if __name__ == "__main__":
    main()
