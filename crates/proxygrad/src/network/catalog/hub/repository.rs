//! What a repository contains, and which of its files is the network.

use super::address::{HubAddress, is_path};
use crate::network::architecture::Architecture;

/// A repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repository {
    pub(super) commit: String,
    pub(super) files: Vec<RepositoryFile>,
    /// Licence that its page states.
    pub(super) licence: Option<String>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepositoryFile {
    pub(super) path: String,
    /// Size in bytes, if known.
    pub(super) size: Option<u64>,
    /// SHA-256, if the file is stored as a large one.
    pub(super) sha256: Option<String>,
}

/// Weight files without a graph that can be read.
const WEIGHTS: [&str; 3] = ["model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin"];
/// Largest number of files that a message names.
const MAX_NAMES: usize = 8;

impl Repository {
    pub(super) fn file(&self, path: &str) -> Option<&RepositoryFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The file with the network: the one that the address names, else the ONNX file, else weights without a graph.
    /// Fails with a phrase about the repository.
    pub(super) fn network(&self, address: &HubAddress) -> Result<&RepositoryFile, String> {
        if let Some(wanted) = address.file() {
            return self.file(wanted).ok_or_else(|| format!("has no file {wanted}; it has {}", self.names(|_| true)));
        }
        let onnx: Vec<&RepositoryFile> = self.files.iter().filter(|file| is_onnx(&file.path)).collect();
        let usual = ["model.onnx", "onnx/model.onnx"].iter().find_map(|path| self.file(path));
        match (usual, onnx.as_slice()) {
            (Some(file), _) | (None, &[file]) => Ok(file),
            (None, []) => WEIGHTS.iter().find_map(|path| self.file(path)).ok_or_else(|| {
                let known: Vec<&str> = Architecture::all().map(|architecture| architecture.name).take(3).collect();
                format!(
                    "has no ONNX file, and no model.safetensors of a named architecture ({}, …); it has {}",
                    known.join(", "),
                    self.names(|_| true)
                )
            }),
            (None, _) => Err(format!(
                "has several ONNX files; add the name of one of them to the address: {}",
                self.names(|file| is_onnx(&file.path))
            )),
        }
    }

    /// Some of the names of its files.
    pub(super) fn names(&self, which: impl Fn(&RepositoryFile) -> bool) -> String {
        let names: Vec<&str> = self.files.iter().filter(|file| which(file)).map(|file| file.path.as_str()).collect();
        let more = match names.len().saturating_sub(MAX_NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        match names.is_empty() {
            true => "no files".into(),
            false => format!("{}{more}", names[..names.len().min(MAX_NAMES)].join(", ")),
        }
    }

    /// The files in the folder of `path`, nearest first, that have this name: next to it, or at the top.
    pub(super) fn beside(&self, path: &str, name: &str) -> Option<&RepositoryFile> {
        let folder = path.rsplit_once('/').map(|(folder, _)| folder);
        let nearest = folder.and_then(|folder| self.file(&format!("{folder}/{name}")));
        nearest.or_else(|| self.file(name))
    }

    /// The file `name` in the folder of `path`.
    pub(super) fn sibling(&self, path: &str, name: &str) -> Option<&RepositoryFile> {
        match path.rsplit_once('/') {
            Some((folder, _)) => self.file(&format!("{folder}/{name}")),
            None => self.file(name),
        }
    }
}

impl RepositoryFile {
    /// `None` if its path could lead out of a folder.
    pub(super) fn new(path: &str, size: Option<u64>, sha256: Option<String>) -> Option<Self> {
        let sha256 = sha256.filter(|digest| super::is_sha256(digest));
        is_path(path).then(|| Self { path: path.into(), size, sha256 })
    }

    /// Its name without folders.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

fn is_onnx(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, ending)| ending.eq_ignore_ascii_case("onnx"))
}
