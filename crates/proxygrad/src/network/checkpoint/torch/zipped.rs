//! Zip format of `torch.save` since torch 1.6: the pickle `NAME/data.pkl`, and the raw values of each storage in
//! `NAME/data/KEY`, none of them compressed.

use std::collections::HashMap;
use std::io::{Cursor, Read, Seek};

use zip::{CompressionMethod, ZipArchive};

use super::super::pickle::Pickle;
use super::super::{CheckpointError, StateDict, malformed};
use super::{state_dict, tensors};

/// Whether a file begins as a zip archive does.
pub(super) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

pub(super) fn read(bytes: &[u8]) -> Result<StateDict, CheckpointError> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| malformed(format!("zip archive: {e}")))?;
    let root = archive.file_names().find_map(|name| name.ok()?.strip_suffix("/data.pkl").map(str::to_owned));
    let Some(root) = root else {
        return Err(malformed("the zip archive has no data.pkl: it was not written by torch.save"));
    };
    if archive.index_for_name(&format!("{root}/constants.pkl")).is_some() {
        return Err(malformed("the file is a TorchScript module; save its state_dict(), or export it to ONNX"));
    }
    // Since torch 2.1; files without it are little-endian.
    if archive.index_for_name(&format!("{root}/byteorder")).is_some() {
        let order = member(bytes, &mut archive, &format!("{root}/byteorder"))?;
        if order != b"little" {
            return Err(malformed("its values are big-endian; save it on a little-endian machine"));
        }
    }
    let (object, _) = Pickle::read(member(bytes, &mut archive, &format!("{root}/data.pkl"))?, 0)?;
    let tensors = tensors(&object)?;
    let mut storages = HashMap::with_capacity(tensors.len());
    for (_, view) in &tensors {
        if !storages.contains_key(view.storage) {
            storages.insert(view.storage, member(bytes, &mut archive, &format!("{root}/data/{}", view.storage))?);
        }
    }
    state_dict(bytes, &tensors, &storages)
}

/// The bytes of an uncompressed member.
fn member<'b>(
    bytes: &'b [u8],
    archive: &mut ZipArchive<impl Read + Seek>,
    name: &str,
) -> Result<&'b [u8], CheckpointError> {
    let wrong = |why: &str| malformed(format!("{name} in the zip archive {why}"));
    let index = archive.index_for_name(name).ok_or_else(|| wrong("is missing"))?;
    let member = archive.by_index_raw(index).map_err(|e| wrong(&format!("cannot be read: {e}")))?;
    if member.compression() != CompressionMethod::Stored || member.encrypted() {
        return Err(wrong("is compressed or encrypted, which torch.save does not do"));
    }
    let start = member.data_start().and_then(|start| usize::try_from(start).ok());
    let range = start.zip(usize::try_from(member.size()).ok());
    let range = range.and_then(|(start, size)| Some(start..start.checked_add(size)?));
    range.and_then(|range| bytes.get(range)).ok_or_else(|| wrong("is truncated"))
}
