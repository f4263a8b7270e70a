"""Generates the small weight files of this folder: python3 make.py (needs numpy, but not torch)."""

import io
import os
import pickle
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def save(name, value, protocol=3):
    (HERE / name).write_bytes(pickle.dumps(value, protocol=protocol))


weight = np.arange(6, dtype="<f4").reshape(2, 3)
bias = np.array([-1, 0.5], dtype="<f4")
for protocol in (2, 3, 4):
    save(f"numpy-protocol{protocol}.pkl", {"conv": [weight, bias]}, protocol)
save("numpy-big-endian.pkl", {"conv": [weight.astype(">f4"), bias.astype(">f4")]})
save("numpy-fortran.pkl", {"conv": [np.asfortranarray(weight), bias]})
save("numpy-f8.pkl", {"conv": (weight.astype("<f8"), bias.astype("<f8"))})
save("numpy-flat.pkl", {"scale": np.array(2.5, dtype="<f4"), "steps": np.array([3], dtype="<i8")})
save("numpy-three.pkl", {"conv": [bias, bias, bias]})
save("numpy-complex.pkl", {"conv": bias.astype("<c8")})
save("numpy-shared.pkl", {f"layer{i}": np_shared for np_shared in [np.zeros(4000, "<f4")] for i in range(100)})
save("plain-list.pkl", [1, 2.5, "three"])


class Hostile:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


save("hostile-system.pkl", {"conv": Hostile(os.system, ("echo owned",))}, 2)
save("hostile-eval.pkl", {"conv": Hostile(eval, ("1 + 1",))}, 4)

# Stand-ins for the classes that torch writes by name.
torch = types.ModuleType("torch")
utils = types.ModuleType("torch._utils")
sys.modules |= {"torch": torch, "torch._utils": utils}
utils._rebuild_tensor_v2 = lambda *arguments: None
utils._rebuild_tensor_v2.__module__ = "torch._utils"
utils._rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
for kind in ("FloatStorage", "DoubleStorage", "LongStorage", "HalfStorage"):
    setattr(torch, kind, type(kind, (), {"__module__": "torch"}))


class Storage:
    def __init__(self, key, kind, values):
        self.key, self.kind, self.values = key, kind, values


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return utils._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return "storage", getattr(torch, value.kind), value.key, "cpu", len(value.values), None
        return None


def save_torch(name, tensors, storages):
    state = OrderedDict(tensors)
    state._metadata = OrderedDict({"": {"version": 1}})
    stream = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(value, stream, protocol=2)
    Pickler(stream, protocol=2).dump(state)
    pickle.dump([storage.key for storage in storages], stream, protocol=2)
    for storage in storages:
        stream.write(struct.pack("<q", len(storage.values)) + storage.values.tobytes())
    (HERE / name).write_bytes(stream.getvalue())


numbers = Storage("11", "FloatStorage", weight.ravel())
biases = Storage("12", "FloatStorage", bias)
doubles = Storage("13", "DoubleStorage", np.array([0.25], "<f8"))
counter = Storage("14", "LongStorage", np.array([7], "<i8"))
halves = Storage("15", "HalfStorage", np.array([1, 2], "<f2"))
save_torch(
    "torch-state-dict.pth",
    {
        "conv.weight": Tensor(numbers, 0, (2, 3), (3, 1)),
        "conv.bias": Tensor(biases, 0, (2,), (1,)),
        "conv.transposed": Tensor(numbers, 0, (3, 2), (1, 3)),
        "conv.double": Tensor(doubles, 0, (1,), (1,)),
        "bn.num_batches_tracked": Tensor(counter, 0, (), ()),
    },
    [counter, biases, numbers, doubles],
)
save_torch("torch-view-outside.pth", {"conv.weight": Tensor(numbers, 1, (2, 3), (3, 1))}, [numbers])
save_torch("torch-half.pth", {"conv.weight": Tensor(halves, 0, (2,), (1,))}, [halves])
