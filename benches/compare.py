"""Compares this program with PyTorch: the same iterations on the same networks, alternating.

    cargo build --release --example iterate
    python benches/compare.py

Needs Linux, and Python with PyTorch. For each network and batch, every contender is a separate process; rounds alternate
their order, and the medians are compared. A measurement during which other processes used much of the CPU is repeated.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
OURS = "proxygrad"
RIVALS = ["eager", "folded", "compiled"]
TUNED = ["folded", "compiled", "bf16"]
NETWORKS = ["resnet18", "efficientnet-lite0", "squeezenet1.1"]
# Networks of torchvision and timm that are exported to ONNX files and imported from them.
EXPORTED = ["resnet50", "mobilenet_v3_large", "efficientnet_b0", "densenet121", "alexnet", "convnext_tiny"]
EXPORTED += ["timm/vit_small_patch16_224"]
# How long a measurement lasts when the number of iterations is left open.
SECONDS = 1.0
# Processes rest this long before a measurement: threads of the one before stop to spin.
REST = 0.1
# Relative difference of the unit's values up to which two contenders compute the same.
SAME_SCORE = 1e-3
# The same for the gradient's norm: rectifiers that decide otherwise change the gradient.
SAME_NORM = 2e-2

# By default malloc returns large blocks to the system, which provides new ones page by page: a third of PyTorch's time on
# large batches. The tuned contenders avoid that.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


@dataclass
class Contender:
    name: str
    process: subprocess.Popen
    stderr: tempfile.SpooledTemporaryFile
    iterations: int = 0
    seconds: list[float] = field(default_factory=list)
    # Of these measurements, how many had company even at the last attempt.
    disturbed: int = 0
    note: str = ""
    peak_mib: float | None = None
    start: tuple[float, float] | None = None

    def ask(self, iterations: int) -> float:
        """Seconds for an iteration."""
        self.process.stdin.write(f"{iterations}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended in the middle:\n{self.errors()}")
        return float(answer) / iterations

    def errors(self) -> str:
        self.stderr.seek(0)
        return self.stderr.read()

    def stop(self) -> None:
        """Ends the process, and reads what it had to say."""
        self.process.stdin.close()
        self.process.wait()
        for line in self.errors().splitlines():
            match line.split():
                case ["start:", score, norm]:
                    self.start = (float(score), float(norm))
                case ["peak:", kib, "kB"]:
                    self.peak_mib = int(kib) / 1024


def cpu_of(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / TICKS


def cpu_of_all() -> float:
    """CPU seconds that the machine has worked: everything but idle time and waiting for disks."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = map(int, words)
    return (user + nice + system + irq + softirq + steal) / TICKS


def start(name: str, network: str, batch: int, options: argparse.Namespace) -> Contender:
    """Starts a contender and waits until it is ready."""
    own = name == OURS
    command = [str(options.binary)] if own else [sys.executable, str(ROOT / "benches/rival.py"), "--contender", name]
    source = str(options.exports[network]) if own and network in EXPORTED else network
    command += ["--network", source, "--batch", str(batch), "--layer", options.layer, "--gate", options.gate]
    command += ["--threads", str(options.threads)]
    command += ["--device", options.device] if own else []
    environment = os.environ | (KEEP_MEMORY if name in TUNED else {})
    stderr = tempfile.TemporaryFile("w+")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr}
    process = subprocess.Popen(command, env=environment, text=True, **pipes)
    contender = Contender(name, process, stderr)
    if process.stdout.readline().strip() != "ready":
        process.wait()
        contender.note = (contender.errors().strip().splitlines() or ["said nothing"])[-1]
    return contender


def measure(contender: Contender, options: argparse.Namespace, company: list[subprocess.Popen]) -> tuple[float, bool]:
    """Seconds for an iteration, and whether processes other than the contender and its `company` were quiet."""

    def of_others() -> float:
        return cpu_of_all() - cpu_of(contender.process.pid) - sum(cpu_of(process.pid) for process in company)

    for attempt in range(options.retakes + 1):
        # From the second attempt on with patience: what disturbs may end soon.
        time.sleep(REST + 2 * attempt)
        others, began = of_others(), time.perf_counter()
        seconds = contender.ask(contender.iterations)
        elapsed = time.perf_counter() - began
        others = (of_others() - others) / elapsed
        # These numbers come from clocks with a hundred ticks per second, one for each CPU.
        if others <= options.tolerance + 3 / TICKS / elapsed:
            return seconds, True
    return seconds, False


def rounds(contenders: list[Contender], options: argparse.Namespace, company: list[subprocess.Popen]) -> None:
    for number in range(options.rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            seconds, quiet = measure(contender, options, company)
            contender.seconds.append(seconds)
            contender.disturbed += not quiet


def compare(network: str, batch: int, options: argparse.Namespace) -> list[dict]:
    contenders, missing = [], []
    for name in [OURS, *options.rivals]:
        contender = start(name, network, batch, options)
        (missing if contender.note else contenders).append(contender)
        if contender.note:
            print(f"{network}, batch {batch}: no {name}: {contender.note}", file=sys.stderr)
    for contender in contenders:
        once = contender.ask(1)
        contender.iterations = options.iterations or max(1, round(SECONDS / once))
    rounds(contenders, options, company=[])
    alone = {contender.name: (contender.seconds, contender.disturbed) for contender in contenders}
    crowded = {}
    if options.foreign:
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.foreign)]
        try:
            for contender in contenders:
                contender.seconds, contender.disturbed = [], 0
            rounds(contenders, options, company=busy)
            crowded = {contender.name: contender.seconds for contender in contenders}
        finally:
            for process in busy:
                process.kill()
                process.wait()
    for contender in contenders:
        contender.stop()
    warn_of_differences(network, batch, contenders)
    results = []
    for contender in contenders:
        seconds, disturbed = alone[contender.name]
        result = {
            "network": network,
            "batch": batch,
            "contender": contender.name,
            "ms": 1000 * statistics.median(seconds),
            "ms_all": [1000 * value for value in seconds],
            "iterations": contender.iterations,
            "disturbed": disturbed,
            "peak_mib": contender.peak_mib,
            "start": contender.start,
        }
        if crowded:
            result["crowded_ms"] = 1000 * statistics.median(crowded[contender.name])
        results.append(result)
    results += [
        {"network": network, "batch": batch, "contender": contender.name, "note": contender.note}
        for contender in missing
    ]
    return results


def warn_of_differences(network: str, batch: int, contenders: list[Contender]) -> None:
    """Says so when contenders did not start from the same value and gradient: then they do different work."""
    started = [contender for contender in contenders if contender.start]
    for other in started[1:]:
        for what, a, b, same in zip(["value", "norm"], started[0].start, other.start, [SAME_SCORE, SAME_NORM]):
            if abs(a - b) > same * max(abs(a), abs(b)):
                first = started[0].name
                print(f"{network}, batch {batch}: {what} of {first} {a}, of {other.name} {b}", file=sys.stderr)


def table(results: list[dict], options: argparse.Namespace) -> str:
    """A row for each network and batch."""
    columns = ["network", "batch", f"{OURS}, ms", *(f"{name}, ms" for name in options.rivals), "best PyTorch / ours"]
    columns += [f"peak {OURS}, MiB", "peak of that PyTorch, MiB"]
    if options.foreign:
        columns += [f"{OURS} with {options.foreign} busy, ms", "slower by", "that PyTorch slower by"]
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    for network in options.networks:
        for batch in options.batches:
            found = {r["contender"]: r for r in results if (r["network"], r["batch"]) == (network, batch)}
            timed = {name: result for name, result in found.items() if "ms" in result}
            if not timed:
                continue
            rivals = [result for name, result in timed.items() if name != OURS]
            best, ours = min(rivals, key=lambda r: r["ms"], default=None), timed.get(OURS)
            cells = [network, str(batch), *(milliseconds(timed.get(name)) for name in [OURS, *options.rivals])]
            cells.append(f"{best['ms'] / ours['ms']:.2f}" if best and ours else "–")
            cells += [f"{r['peak_mib']:.0f}" if r and r["peak_mib"] else "–" for r in (ours, best)]
            if options.foreign:
                cells.append(f"{ours['crowded_ms']:.1f}" if ours else "–")
                cells += [f"{r['crowded_ms'] / r['ms']:.2f}" if r else "–" for r in (ours, best)]
            lines.append("| " + " | ".join(cells) + " |")
    if any(result.get("disturbed") for result in results):
        lines += ["", "\\* More than half of the measurements had company, even when taken again."]
    return "\n".join(lines)


def milliseconds(result: dict | None) -> str:
    if result is None:
        return "–"
    return f"{result['ms']:.1f}" + ("\\*" if 2 * result["disturbed"] > len(result["ms_all"]) else "")


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def torch_alone() -> tuple[str, float]:
    """PyTorch's version, and the MiB that it holds before there is any network."""
    program = "import torch; print(torch.__version__); print(open('/proc/self/status').read())"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if answer.returncode != 0:
        raise SystemExit(f"{sys.executable} has no PyTorch")
    version, *status = answer.stdout.splitlines()
    peak = next(line for line in status if line.startswith("VmHWM:"))
    return version, int(peak.split()[1]) / 1024


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main() -> None:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    threads = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=names, default=NETWORKS, help="separated by commas; also " + ", ".join(EXPORTED))
    parser.add_argument("--batches", type=lambda text: [int(n) for n in names(text)], default=[1, 4, 16])
    parser.add_argument("--rivals", type=names, default=RIVALS, help="of " + ", ".join([*RIVALS, "bf16"]) + "; may be empty")
    parser.add_argument("--device", default="cpu", help=f"of {OURS}: cpu or cpu+bf16")
    parser.add_argument("--layer", default="logits", help="the layer whose channel 42 is maximized")
    parser.add_argument("--gate", choices=["plain", "proxy"], default="plain")
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--iterations", type=int, help=f"in a measurement; as many as take {SECONDS} s when left out")
    parser.add_argument("--tolerance", type=float, default=0.15, help="CPUs that other processes may use")
    parser.add_argument("--retakes", type=int, default=3, help="attempts more at a measurement that had company")
    parser.add_argument("--foreign", type=int, default=0, help="measure again next to this number of busy processes")
    parser.add_argument("--binary", type=Path, default=target / "release/examples/iterate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there as well")
    options = parser.parse_args()
    if not options.binary.exists():
        raise SystemExit(f"there is no {options.binary}: cargo build --release --example iterate")

    folder = tempfile.TemporaryDirectory()
    options.exports = {}
    for network in [network for network in options.networks if network in EXPORTED]:
        options.exports[network] = Path(folder.name) / f"{network.replace('/', '-')}.onnx"
        export = [sys.executable, str(ROOT / "benches/rival.py"), "--network", network]
        subprocess.run([*export, "--export", str(options.exports[network])], check=True, stdout=sys.stderr)

    # Leave no busy process behind when terminated.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    results = []
    for network in options.networks:
        for batch in options.batches:
            results += compare(network, batch, options)
            print(f"{network}, batch {batch}: measured", file=sys.stderr)
    version, mib = torch_alone()
    machine = {"processor": processor(), "threads": options.threads, "torch": version, "torch_mib": mib}
    if options.json:
        kept = {key: value for key, value in vars(options).items() if key != "exports"}
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in kept.items()}
        options.json.write_text(json.dumps({"machine": machine, "settings": settings, "results": results}, indent=1))
    about = f"{OURS} on {options.device}; {machine['processor']}, {machine['threads']} threads, PyTorch {machine['torch']}"
    print(f"One iteration up to {options.layer}, gate {options.gate}; {about} ({mib:.0f} MiB with nothing loaded).\n")
    print(table(results, options))


if __name__ == "__main__":
    main()
