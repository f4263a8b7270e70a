"""Checks training without trusting the program: kills, resumed runs, and the exported network.

    cargo build --release
    python tests/verify/training.py

trains ResNet-8 on images that it draws itself (or on the IDX files in `--data`), once in one piece and once killed with
SIGKILL at random moments and started again, and demands the same bytes of weights. Then PyTorch computes the logits of the test
images from the weights in `best.safetensors`, ONNX Runtime those of `model.onnx`, and both must agree. The exit status is 1
otherwise. Needs PyTorch in addition to requirements.txt.
"""

import argparse
import csv
import gzip
import json
import random
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benches"))
from trainable_networks import ResNet8  # noqa: E402

CLASSES, SIZE = 10, 28
TOLERANCE = 1e-4
PARTS = {"train": 4000, "t10k": 1000}


def draw(folder: Path) -> None:
    """Images of ten textures with noise, as IDX files."""
    rng = np.random.default_rng(0)
    patterns = rng.uniform(0, 255, (CLASSES, SIZE, SIZE))
    for part, count in PARTS.items():
        labels = rng.integers(0, CLASSES, count, dtype=np.uint8)
        pixels = 0.3 * patterns[labels] + 0.7 * rng.uniform(0, 255, (count, SIZE, SIZE))
        header = struct.pack(">4i", 0x803, count, SIZE, SIZE)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.astype(np.uint8).tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels.tobytes())


def read(folder: Path, part: str, kind: str, header: int) -> np.ndarray:
    file = folder / f"{part}-{kind}-ubyte"
    data = file.read_bytes() if file.exists() else gzip.decompress(file.with_name(file.name + ".gz").read_bytes())
    return np.frombuffer(data, np.uint8, offset=header)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file that are f32."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    found = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if entry.get("dtype") == "F32":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = torch.frombuffer(bytearray(data[start:end]), dtype=torch.float32).reshape(entry["shape"])
    return found


def train(command: list[str], kills: int, seconds: float) -> int:
    """Runs a training to its end, killing it at random moments first. Returns how often it was killed."""
    killed = 0
    while killed < kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        # All parts that end with a kill together are shorter than one whole run.
        time.sleep(random.uniform(0.1, 1.4 * seconds / kills))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        killed += 1
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return killed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/proxygrad")
    parser.add_argument("--data", type=Path, help="folder of IDX files; drawn if not given")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--surrogate", default="decoupled:0.1@0.4")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = options.data or Path(temporary) / "data"
        if options.data is None:
            data.mkdir()
            draw(data)

        def command(out: str, threads: int) -> list[str]:
            run = [str(options.program), "train", "--data", str(data), "--out", str(Path(temporary) / out)]
            run += ["--architecture", "resnet8", "--surrogate", options.surrogate, "--epochs", str(options.epochs)]
            return [*run, "--threads", str(threads)]

        started = time.perf_counter()
        train(command("whole", 1), 0, 0)
        killed = train(command("killed", 2), options.kills, time.perf_counter() - started)
        folders = [Path(temporary) / name for name in ["whole", "killed"]]
        whole, resumed = (tensors(folder / "last.safetensors") for folder in folders)
        same = whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
        exports = [(folder / "model.onnx").read_bytes() for folder in folders]
        same = same and exports[0] == exports[1]
        print(f"killed {killed} times, then finished: {'the same' if same else 'OTHER'} weights and model.onnx, bit for bit")

        pixels = read(data, "train", "images-idx3", 16).astype(np.float64) / 255
        images = read(data, "t10k", "images-idx3", 16).reshape(-1, 1, SIZE, SIZE) / 255
        images = ((images - pixels.mean()) / pixels.std()).astype(np.float32)
        network = ResNet8(CLASSES)
        weights = tensors(folders[0] / "best.safetensors")
        network.load_state_dict({name: weights[name] for name in network.state_dict() if name in weights}, strict=False)
        network.eval()
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        session = onnxruntime.InferenceSession(exports[0], providers=["CPUExecutionProvider"])
        found = session.run(None, {session.get_inputs()[0].name: images})[0]
        difference = float(np.abs(found - expected).max() / np.abs(expected).max())
        with (folders[0] / "epochs.csv").open() as file:
            reported = max(float(epoch["test_accuracy"]) for epoch in csv.DictReader(file))
        accuracy = float((found.argmax(1) == read(data, "t10k", "labels-idx1", 8)).mean())
        print(f"logits of model.onnx in ONNX Runtime and of best.safetensors in PyTorch: relative difference {difference:.1e}")
        print(f"test accuracy: reported {reported:.4f}, by ONNX Runtime {accuracy:.4f}")
    right = same and difference <= TOLERANCE and abs(reported - accuracy) <= 1.5 / len(images)
    if not right:
        print("DIFFERS")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
