//! Format of `torch.save` before torch 1.6: a magic number, a protocol number, system information, the object and the
//! keys of its storages, each a pickle; then, per key, a 64-bit count and the raw values.

use std::collections::HashMap;

use super::super::pickle::{Object, Pickle, Storage};
use super::super::{CheckpointError, StateDict, malformed};
use super::{TensorView, state_dict, tensors};

/// `0x1950a86a20f9469cfc6c`, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

pub(super) fn read(bytes: &[u8]) -> Result<StateDict, CheckpointError> {
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
    let tensors = tensors(&object)?;
    let storages = storages(bytes, at, &keys, &tensors)?;
    state_dict(bytes, &tensors, &storages)
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
