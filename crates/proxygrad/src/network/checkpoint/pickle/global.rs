//! Allow-list of the functions and classes that a pickle may name.

use std::fmt;

/// Functions and classes in weight files; a pickle that names anything else is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// `collections.OrderedDict`: a dict.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`: a tensor.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter(tensor, requires_grad, hooks)`: a tensor that is trained.
    RebuildParameter,
    /// `torch.FloatStorage` etc.: the type of a storage.
    Storage(Storage),
    /// `numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")`: an array whose state follows.
    NumpyReconstruct,
    /// `numpy.ndarray`
    NumpyArray,
    /// `numpy.dtype(code, align, copy)`: an element type whose state follows.
    NumpyDtype,
    /// `_codecs.encode(text, "latin1")`: bytes.
    CodecsEncode,
}

/// Element types of torch storages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// f32
    Float,
    /// f64
    Double,
    /// f16
    Half,
    /// bfloat16: the upper half of an f32.
    BFloat16,
    /// An integer type: its name and size in bytes.
    Other(&'static str, usize),
}

const GLOBALS: [(&str, &str, Global); 18] = [
    ("collections", "OrderedDict", Global::OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2", Global::RebuildTensor),
    ("torch._utils", "_rebuild_parameter", Global::RebuildParameter),
    ("torch", "FloatStorage", Global::Storage(Storage::Float)),
    ("torch", "DoubleStorage", Global::Storage(Storage::Double)),
    ("torch", "HalfStorage", Global::Storage(Storage::Half)),
    ("torch", "BFloat16Storage", Global::Storage(Storage::BFloat16)),
    ("torch", "LongStorage", Global::Storage(Storage::Other("LongStorage", 8))),
    ("torch", "IntStorage", Global::Storage(Storage::Other("IntStorage", 4))),
    ("torch", "ShortStorage", Global::Storage(Storage::Other("ShortStorage", 2))),
    ("torch", "CharStorage", Global::Storage(Storage::Other("CharStorage", 1))),
    ("torch", "ByteStorage", Global::Storage(Storage::Other("ByteStorage", 1))),
    ("torch", "BoolStorage", Global::Storage(Storage::Other("BoolStorage", 1))),
    ("numpy.core.multiarray", "_reconstruct", Global::NumpyReconstruct),
    ("numpy._core.multiarray", "_reconstruct", Global::NumpyReconstruct),
    ("numpy", "ndarray", Global::NumpyArray),
    ("numpy", "dtype", Global::NumpyDtype),
    ("_codecs", "encode", Global::CodecsEncode),
];

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        GLOBALS.iter().find(|(m, n, _)| (*m, *n) == (module, name)).map(|&(_, _, global)| global)
    }
}

impl fmt::Display for Global {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match GLOBALS.iter().find(|(_, _, global)| global == self) {
            Some((module, name, _)) => write!(f, "{module}.{name}"),
            None => write!(f, "{self:?}"),
        }
    }
}

impl Storage {
    /// Bytes per element.
    pub fn width(self) -> usize {
        match self {
            Self::Half | Self::BFloat16 => 2,
            Self::Float => 4,
            Self::Double => 8,
            Self::Other(_, width) => width,
        }
    }
}
