//! Addresses of repositories on the Hugging Face Hub: `hf://OWNER/NAME[@REVISION][/FILE]`.

use std::fmt;
use std::str::FromStr;

use crate::Invalid;

/// A repository, or a file in it.
///
/// # Examples
/// ```
/// use proxygrad::network::catalog::HubAddress;
///
/// let address: HubAddress = "hf://timm/resnet50.a1_in1k@main/model.safetensors".parse()?;
/// assert_eq!((address.owner(), address.name()), ("timm", "resnet50.a1_in1k"));
/// assert_eq!((address.revision(), address.file()), ("main", Some("model.safetensors")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubAddress {
    owner: String,
    name: String,
    revision: Option<String>,
    file: Option<String>,
}

impl HubAddress {
    /// What an address begins with.
    pub const SCHEME: &str = "hf://";

    /// The user or organization.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Branch, tag or commit; `main` by default.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// Path of a file in the repository.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The same repository at another revision, with another file.
    #[cfg(feature = "pull")]
    pub(super) fn at(&self, revision: &str, file: &str) -> Self {
        Self { revision: Some(revision.into()), file: Some(file.into()), ..self.clone() }
    }

    /// The same without the file.
    #[cfg(feature = "pull")]
    pub(super) fn repository(&self) -> Self {
        Self { file: None, ..self.clone() }
    }
}

impl FromStr for HubAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parse = || {
            let path = text.strip_prefix(Self::SCHEME)?;
            let (owner, rest) = path.split_once('/')?;
            let (repository, file) = match rest.split_once('/') {
                Some((repository, file)) => (repository, Some(file)),
                None => (rest, None),
            };
            let (name, revision) = match repository.split_once('@') {
                Some((name, revision)) => (name, Some(revision)),
                None => (repository, None),
            };
            let is_file = |file: &str| is_path(file) && !file.ends_with('/');
            (is_name(owner) && is_name(name) && revision.is_none_or(is_revision) && file.is_none_or(is_file)).then(
                || Self {
                    owner: owner.into(),
                    name: name.into(),
                    revision: revision.map(str::to_owned),
                    file: file.map(str::to_owned),
                },
            )
        };
        parse().ok_or_else(|| {
            Invalid::new("address", text, "hf://OWNER/NAME[@REVISION][/FILE], such as hf://timm/resnet50.a1_in1k")
        })
    }
}

impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}", Self::SCHEME, self.owner, self.name)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        match &self.file {
            Some(file) => write!(f, "/{file}"),
            None => Ok(()),
        }
    }
}

/// Names of users and repositories: letters, digits, `-`, `_` and `.`, but no path.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 96 && !name.contains("..") && !name.starts_with('.') && name.chars().all(allowed)
}

/// A branch, tag or commit; slashes in it are written `%2F`.
fn is_revision(revision: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '%' | '+');
    !revision.is_empty() && revision.len() <= 128 && revision.chars().all(allowed) && !revision.contains("..")
}

/// A relative path without `.` and `..`.
pub(super) fn is_path(path: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() <= 1024 && !path.contains(['\\', '\0', '\n', '\r']) && path.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in [
            "hf://timm/resnet50.a1_in1k",
            "hf://onnx-community/dinov2-small@main",
            "hf://a/b/onnx/model.onnx",
            "hf://a/b@refs%2Fpr%2F1/model.onnx",
        ] {
            assert_eq!(text.parse::<HubAddress>().unwrap().to_string(), text);
        }
        for text in [
            "timm/resnet50",
            "hf://resnet50",
            "hf:///x",
            "hf://a/",
            "hf://a/b@",
            "hf://a/b/",
            "hf://a/../etc",
            "hf://a/b/../x",
            "hf://a/b//x",
            "hf://a b/c",
            "hf://a/b?x=1",
            "hf://a/b@x?y",
            "hf://a/b/c\\d",
        ] {
            assert_eq!(text.parse::<HubAddress>().unwrap_err().field, "address", "{text}");
        }
    }
}
