//! The Python package index that catalog models are downloaded from.

use std::time::Duration;

use url::Url;

use crate::Invalid;

/// Called during a download with the bytes received and, if known, the bytes expected.
pub type Progress<'a> = dyn FnMut(u64, Option<u64>) + 'a;

/// A Python package index with the simple repository API, as JSON (PEP 691) or HTML (PEP 503): the public one, a
/// mirror, or a folder of files on any web server.
#[derive(Debug, Clone)]
pub struct PackageIndex {
    pub(super) url: String,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time without data.
    pub stall_timeout: Duration,
    /// Longest time for a whole download.
    pub download_timeout: Duration,
}

impl PackageIndex {
    /// Address of the public index.
    pub const PUBLIC: &str = "https://pypi.org/simple/";

    /// An index at another address.
    ///
    /// # Errors
    /// When `url` is not an `http` or `https` address.
    pub fn new(url: &str) -> Result<Self, Invalid> {
        match Url::parse(url) {
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Ok(Self::at(url)),
            _ => Err(Invalid::new("package_index", url, format!("an http(s) address, such as {}", Self::PUBLIC))),
        }
    }

    fn at(url: &str) -> Self {
        Self {
            url: format!("{}/", url.trim_end_matches('/')),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            download_timeout: Duration::from_secs(3600),
        }
    }
}

#[cfg(not(feature = "pull"))]
impl PackageIndex {
    pub(super) fn download(
        &self,
        entry: &super::builtin::CatalogEntry,
        _to: &std::path::Path,
        _progress: &mut Progress<'_>,
    ) -> Result<(), super::PullError> {
        Err(super::PullError::NotBuilt { url: self.url.clone(), archive: entry.archive.clone() })
    }
}

impl Default for PackageIndex {
    fn default() -> Self {
        Self::at(Self::PUBLIC)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_index_is_any_web_address() {
        for (url, found) in [
            ("https://mirror.example/simple", "https://mirror.example/simple/"),
            ("http://127.0.0.1:3141/root/pypi/+simple/", "http://127.0.0.1:3141/root/pypi/+simple/"),
        ] {
            assert_eq!(PackageIndex::new(url).unwrap().url, found);
        }
        for url in ["", "pypi", "ftp://example.org", "file:///tmp", "https://"] {
            let error = PackageIndex::new(url).unwrap_err();
            assert_eq!(error.field, "package_index", "{url}");
        }
        assert_eq!(PackageIndex::default().url, PackageIndex::PUBLIC);
    }
}
