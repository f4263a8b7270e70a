//! Legacy format of `torch.save`, used before torch 1.6: a magic number, a protocol number, system information, the
//! object and the keys of its storages, each a pickle; then, per key, a 64-bit count and the raw values (`_legacy_save`
//! in `torch/serialization.py`). Counts and values are little-endian on every system (`THPStorage_writeFileRaw` in
//! `torch/csrc/serialization.cpp`).

use std::collections::HashMap;

use super::pickle::{Global, Object, ObjectId, Pickle, Storage};
use super::state_dict::{StateDictBuilder, copy_view};
use super::{CheckpointError, StateDict, malformed};
use crate::network::Array;

/// `0x1950a86a20f9469cfc6c`, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// Reads a state dict; every value must be a tensor.
pub(super) fn read(bytes: &[u8]) -> Result<StateDict, CheckpointError> {
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(malformed(
            "zip checkpoints of torch 1.6 or later are not supported; save the weights as safetensors",
        ));
    }
    let (magic, at) = Pickle::read(bytes, 0)?;
    if *magic.root() != Object::Long(&MAGIC) {
        return Err(malformed("the file does not start with the magic number of torch"));
    }
    let (protocol, at) = Pickle::read(bytes, at)?;
    if *protocol.root() != Object::Int(PROTOCOL) {
        return Err(malformed(format!("expected protocol {PROTOCOL} of torch")));
    }
    let (_system, at) = Pickle::read(bytes, at)?;
    let (object, at) = Pickle::read(bytes, at)?;
    let (keys, at) = Pickle::read(bytes, at)?;

    let Object::Dict(entries) = object.root() else {
        return Err(malformed(format!("expected a state dict, found {}", object.root().kind())));
    };
    let mut tensors = Vec::with_capacity(entries.len());
    for &(key, value) in entries {
        let name = object.text(key).map_err(|why| malformed(format!("key of the state dict: {why}")))?;
        let view = TensorView::read(&object, value).map_err(|why| malformed(format!("{name}: {why}")))?;
        tensors.push((name, view));
    }
    let storages = storages(bytes, at, &keys, &tensors)?;

    let mut builder = StateDictBuilder::for_file(bytes);
    for (name, view) in &tensors {
        let array = view.array(&storages).map_err(|why| malformed(format!("{name}: {why}")))?;
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
        let &Object::Call { function: Global::RebuildTensor, arguments, .. } = pickle.get(id) else {
            return Err(format!("expected a tensor, found {}", pickle.get(id).kind()));
        };
        let [storage, offset, shape, strides, _requires_grad, _hooks] = pickle.tuple(arguments)?;
        let &Object::Persistent(storage) = pickle.get(storage) else {
            return Err(format!("expected a storage, found {}", pickle.get(storage).kind()));
        };
        let [tag, kind, key, _device, _count, part] = pickle.tuple(storage)?;
        let &Object::Global(Global::Storage(kind)) = pickle.get(kind) else {
            return Err(format!("expected a storage type, found {}", pickle.get(kind).kind()));
        };
        if pickle.text(tag)? != "storage" || *pickle.get(part) != Object::None {
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
        match self.kind {
            Storage::Float | Storage::Double => {}
            Storage::Other(name @ ("HalfStorage" | "BFloat16Storage"), _) => {
                return Err(format!("expected FloatStorage or DoubleStorage, found {name}"));
            }
            Storage::Other(..) => return Ok(None),
        }
        let data =
            *storages.get(self.storage).ok_or_else(|| format!("storage {:?} is not in the file", self.storage))?;
        let width = self.kind.width();
        copy_view(&self.shape, &self.strides, self.offset, data.len() / width, |index| {
            decode_float(&data[index * width..][..width], true)
        })
        .map(Some)
    }
}

/// The raw bytes of all storages of the file, which start at `at`.
fn storages<'a>(
    bytes: &'a [u8],
    mut at: usize,
    keys: &Pickle<'a>,
    tensors: &[(&str, TensorView<'_>)],
) -> Result<HashMap<&'a str, &'a [u8]>, CheckpointError> {
    let Object::List(keys_in_order) = keys.root() else {
        return Err(malformed("expected a list of storage keys"));
    };
    let kinds: HashMap<&str, Storage> = tensors.iter().map(|(_, view)| (view.storage, view.kind)).collect();
    let mut storages = HashMap::with_capacity(keys_in_order.len());
    for &key in keys_in_order {
        let key = keys.text(key).map_err(|why| malformed(format!("storage key: {why}")))?;
        let kind = kinds.get(key).ok_or_else(|| malformed(format!("no tensor uses storage {key:?}")))?;
        let truncated = || malformed(format!("the file ends within storage {key:?}"));
        let count = bytes.get(at..).and_then(|left| left.first_chunk::<8>()).ok_or_else(truncated)?;
        let length = usize::try_from(u64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(kind.width()));
        let data = length.and_then(|length| bytes[at + 8..].get(..length)).ok_or_else(truncated)?;
        at += 8 + data.len();
        storages.insert(key, data);
    }
    Ok(storages)
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
    fn every_truncation_of_a_good_file_is_an_error() {
        let good = fixture("torch-state-dict.pth");
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "the first {length} bytes of {} passed", good.len());
        }
    }

    #[test]
    fn no_change_of_one_byte_makes_the_reader_panic() {
        let good = fixture("torch-state-dict.pth");
        for at in 0..good.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                drop(read(&bad));
            }
        }
    }

    #[test]
    fn a_view_outside_its_storage_is_rejected_by_name() {
        let error = read(&fixture("torch-view-outside.pth")).unwrap_err().to_string();
        assert!(error.contains("conv.weight: the view exceeds its storage"), "{error}");
    }

    #[test]
    fn half_precision_is_rejected_rather_than_misread() {
        let error = read(&fixture("torch-half.pth")).unwrap_err().to_string();
        assert!(error.contains("conv.weight: expected FloatStorage or DoubleStorage, found HalfStorage"), "{error}");
    }

    #[test]
    fn other_formats_are_recognized() {
        let zip = read(b"PK\x03\x04 and so on").unwrap_err().to_string();
        assert!(zip.contains("zip checkpoints of torch 1.6 or later"), "{zip}");
        let pickle = read(&fixture("plain-list.pkl")).unwrap_err().to_string();
        assert!(pickle.contains("magic number"), "{pickle}");
    }
}
