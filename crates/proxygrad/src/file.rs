//! Files that are replaced as a whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes a file through a temporary name beside it (`NAME.part`), so that a crash leaves the old content or the new one.
/// Missing parent folders are created.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut unfinished = OsString::from(path);
    unfinished.push(".part");
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(contents)?;
        // Flushed before the rename, so that the file is complete even after a power loss.
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&unfinished, path)).inspect_err(|_| {
        // The disk may be full.
        let _ = fs::remove_file(&unfinished);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/table.csv");
        for contents in ["a long first content", "second"] {
            replace(&path, contents.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), contents);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(replace(&folder.path().join("taken"), b"x").is_err());
    }
}
