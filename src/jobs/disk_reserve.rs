//! Disk reserve: space held back so that jobs and studies can be canceled and deleted on a full disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Size of the reserve: larger than the write-ahead log between two checkpoints ([`LOG_PAGES`]).
const BYTES: usize = 512 << 10;
/// Pages of 4 KiB in the write-ahead log after which a checkpoint moves them into the database.
pub(super) const LOG_PAGES: usize = 100;
/// Space that must be free, beyond the reserve, before new work is accepted.
const PROBE_BYTES: usize = 64 << 10;

/// A file that only occupies space.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("reserve") }
    }

    /// Whether the space is allocated.
    pub(super) fn is_held(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| file.len() == BYTES as u64)
    }

    /// Allocates the space unless that is done already.
    pub(super) fn hold(&self) -> io::Result<()> {
        if self.is_held() {
            return Ok(());
        }
        let mut bytes = vec![0; BYTES];
        // Some file systems compress.
        ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut bytes);
        let written = File::create(&self.path).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        if written.is_err() {
            self.release();
        }
        written
    }

    /// Frees the space. Returns whether any was allocated.
    pub(super) fn release(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

/// Checks that a folder has free space, by writing a file and removing it. With `durable`, the file is flushed to the
/// disk first.
pub(super) fn probe_space(folder: &Path, durable: bool) -> io::Result<()> {
    let path = folder.join(".room");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0x5a; PROBE_BYTES])?;
        if durable { file.sync_data() } else { Ok(()) }
    });
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    written.and(removed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_reserve_is_held_once_and_released_once() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(folder.path());
        assert!(!reserve.is_held() && !reserve.release());
        reserve.hold().unwrap();
        reserve.hold().unwrap();
        assert!(reserve.is_held());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(reserve.release() && !reserve.release());
    }

    #[test]
    fn looking_for_room_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        probe_space(folder.path(), true).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(probe_space(&folder.path().join("missing"), false).is_err());
    }
}
