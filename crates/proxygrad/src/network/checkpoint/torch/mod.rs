//! Files of `torch.save`: a state dict, in the zip format or in the older one.
//!
//! Both have a pickle whose tensors are views of storages outside of it. Values are little-endian, or a zip file says
//! otherwise (`_save` and `_legacy_save` in `torch/serialization.py`).

mod legacy;
mod zipped;

use std::collections::HashMap;

use super::pickle::{Global, Object, ObjectId, Pickle, Storage};
use super::state_dict::{StateDictBuilder, copy_view};
use super::{CheckpointError, StateDict, malformed};
use crate::network::Array;
use crate::network::onnx::half;

/// Keys below which training scripts keep the state dict of the network.
const NESTED: [&str; 3] = ["state_dict", "model", "model_state_dict"];

/// Reads a state dict, possibly below a key of a checkpoint of training; every value must be a tensor.
pub(super) fn read(bytes: &[u8]) -> Result<StateDict, CheckpointError> {
    if zipped::is_zip(bytes) { zipped::read(bytes) } else { legacy::read(bytes) }
}

/// The tensors of a pickled state dict, by name.
fn tensors<'a>(object: &Pickle<'a>) -> Result<Vec<(&'a str, TensorView<'a>)>, CheckpointError> {
    let Object::Dict(entries) = object.root() else {
        return Err(malformed(format!("expected a state dict, found {}", object.root().kind())));
    };
    let nested = entries.iter().find_map(|&(key, value)| match (object.text(key), object.get(value)) {
        (Ok(key), Object::Dict(inner)) if NESTED.contains(&key) => Some(inner),
        _ => None,
    });
    let mut tensors = Vec::with_capacity(entries.len());
    for &(key, value) in nested.unwrap_or(entries) {
        let name = object.text(key).map_err(|why| malformed(format!("key of the state dict: {why}")))?;
        let view = TensorView::read(object, value).map_err(|why| malformed(format!("{name}: {why}")))?;
        tensors.push((name, view));
    }
    Ok(tensors)
}

/// The arrays of all tensors, from the raw bytes of the storages by key.
fn state_dict(
    bytes: &[u8],
    tensors: &[(&str, TensorView<'_>)],
    storages: &HashMap<&str, &[u8]>,
) -> Result<StateDict, CheckpointError> {
    let mut builder = StateDictBuilder::for_file(bytes);
    for (name, view) in tensors {
        let array = view.array(storages).map_err(|why| malformed(format!("{name}: {why}")))?;
        if let Some(array) = array {
            builder.insert(*name, array)?;
        }
    }
    builder.build()
}

/// A tensor: a strided view of a storage.
struct TensorView<'a> {
    storage: &'a str,
    kind: Storage,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl<'a> TensorView<'a> {
    fn read(pickle: &Pickle<'a>, id: ObjectId) -> Result<Self, String> {
        let (function, arguments) = match *pickle.get(id) {
            Object::Call { function, arguments, .. } => (function, arguments),
            ref other => return Err(format!("expected a tensor, found {}", other.kind())),
        };
        let arguments = match function {
            Global::RebuildTensor => arguments,
            Global::RebuildParameter => {
                let [tensor, _requires_grad, _hooks] = pickle.tuple(arguments)?;
                match *pickle.get(tensor) {
                    Object::Call { function: Global::RebuildTensor, arguments, .. } => arguments,
                    ref other => return Err(format!("expected a tensor, found {}", other.kind())),
                }
            }
            other => return Err(format!("expected a tensor, found a call of {other}")),
        };
        let [storage, offset, shape, strides, _requires_grad, _hooks] = pickle.tuple(arguments)?;
        let &Object::Persistent(storage) = pickle.get(storage) else {
            return Err(format!("expected a storage, found {}", pickle.get(storage).kind()));
        };
        // The older format has a sixth part: which view of another storage this one is.
        let (tag, kind, key, part) = match pickle.tuple(storage) {
            Ok([tag, kind, key, _device, _count]) => (tag, kind, key, None),
            Err(_) => {
                let [tag, kind, key, _device, _count, part] = pickle.tuple(storage)?;
                (tag, kind, key, Some(part))
            }
        };
        let &Object::Global(Global::Storage(kind)) = pickle.get(kind) else {
            return Err(format!("expected a storage type, found {}", pickle.get(kind).kind()));
        };
        if pickle.text(tag)? != "storage" || part.is_some_and(|part| *pickle.get(part) != Object::None) {
            return Err("expected a whole storage, found a view of one".into());
        }
        Ok(Self {
            storage: pickle.text(key)?,
            kind,
            offset: pickle.size(offset)?,
            shape: pickle.sizes(shape)?,
            strides: pickle.sizes(strides)?,
        })
    }

    /// The values; `None` if they are integers.
    fn array(&self, storages: &HashMap<&str, &[u8]>) -> Result<Option<Array>, String> {
        let decode: fn(&[u8]) -> f32 = match self.kind {
            Storage::Float | Storage::Double => |bytes| decode_float(bytes, true),
            Storage::Half => |bytes| half(short(bytes)),
            Storage::BFloat16 => |bytes| f32::from_bits(u32::from(short(bytes)) << 16),
            Storage::Other(..) => return Ok(None),
        };
        let data =
            *storages.get(self.storage).ok_or_else(|| format!("storage {:?} is not in the file", self.storage))?;
        let width = self.kind.width();
        copy_view(&self.shape, &self.strides, self.offset, data.len() / width, |index| {
            decode(&data[index * width..][..width])
        })
        .map(Some)
    }
}

fn short(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |&two| u16::from_le_bytes(two))
}

/// Decodes an f32 or f64, depending on the number of bytes.
pub(super) fn decode_float(bytes: &[u8], little_endian: bool) -> f32 {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        if little_endian { f32::from_le_bytes(four) } else { f32::from_be_bytes(four) }
    } else if let Ok(eight) = <[u8; 8]>::try_from(bytes) {
        (if little_endian { f64::from_le_bytes(eight) } else { f64::from_be_bytes(eight) }) as f32
    } else {
        f32::NAN
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/data/checkpoints/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn tensors_of_a_state_dict_are_read_from_their_storages() {
        let state = read(&fixture("torch-state-dict.pth")).unwrap();
        let names: Vec<_> = state.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["conv.bias", "conv.double", "conv.transposed", "conv.weight"], "integers are left out");
        let weight = state.get("conv.weight").unwrap();
        assert_eq!((weight.shape(), weight.data()), (&[2, 3][..], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0][..]));
        // A view of the same storage with swapped axes.
        let transposed = state.get("conv.transposed").unwrap();
        assert_eq!((transposed.shape(), transposed.data()), (&[3, 2][..], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0][..]));
        assert_eq!(state.get("conv.bias").unwrap().data(), [-1.0, 0.5]);
        assert_eq!(state.get("conv.double").unwrap().data(), [0.25]);
    }

    #[test]
    fn zip_files_are_read_also_with_other_types_and_below_a_key() {
        for file in ["torch-zip.pth", "torch-zip-training.pth"] {
            let state = read(&fixture(file)).unwrap();
            for (name, shape, values) in [
                ("conv.weight", &[2, 3][..], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0][..]),
                ("conv.bias", &[2], &[-1.0, 0.5]),
                ("conv.transposed", &[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
                ("conv.double", &[1], &[0.25]),
                ("conv.half", &[2], &[1.5, -2.0]),
                ("conv.bfloat", &[2], &[3.0, -0.5]),
                ("conv.trained", &[1], &[4.0]),
            ] {
                let array = state.get(name).unwrap();
                assert_eq!((array.shape(), array.data()), (shape, values), "{file}: {name}");
            }
            assert_eq!(state.len(), 7, "integers are left out");
        }
    }

    #[test]
    fn zip_files_of_something_else_are_errors() {
        for (file, expected) in [
            ("torch-zip-module.pth", "\"torch.nn.modules.linear.Linear\" is not allowed"),
            ("torchscript.pth", "is a TorchScript module"),
        ] {
            let error = read(&fixture(file)).unwrap_err().to_string();
            assert!(error.contains(expected), "{file}: {error}");
        }
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let squeezed = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        archive.start_file("x/data.pkl", squeezed).unwrap();
        let error = read(&archive.finish().unwrap().into_inner()).unwrap_err().to_string();
        assert!(error.contains("x/data.pkl in the zip archive is compressed"), "{error}");
    }

    #[test]
    fn every_truncation_of_a_good_file_is_an_error() {
        let good = fixture("torch-state-dict.pth");
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "the first {length} bytes of {} passed", good.len());
        }
    }

    #[test]
    fn no_change_of_one_byte_makes_the_reader_panic() {
        for good in [fixture("torch-state-dict.pth"), fixture("torch-zip.pth")] {
            for at in 0..good.len() {
                for flip in [0x01, 0x80, 0xff] {
                    let mut bad = good.clone();
                    bad[at] ^= flip;
                    drop(read(&bad));
                }
            }
        }
    }

    #[test]
    fn a_view_outside_its_storage_is_rejected_by_name() {
        let error = read(&fixture("torch-view-outside.pth")).unwrap_err().to_string();
        assert!(error.contains("conv.weight: the view exceeds its storage"), "{error}");
    }

    #[test]
    fn half_precision_is_read() {
        let state = read(&fixture("torch-half.pth")).unwrap();
        assert_eq!(state.get("conv.weight").unwrap().data(), [1.0, 2.0]);
    }

    #[test]
    fn other_formats_are_recognized() {
        let zip = read(b"PK\x03\x04 and so on").unwrap_err().to_string();
        assert!(zip.contains("zip"), "{zip}");
        let pickle = read(&fixture("plain-list.pkl")).unwrap_err().to_string();
        assert!(pickle.contains("magic number"), "{pickle}");
    }
}
