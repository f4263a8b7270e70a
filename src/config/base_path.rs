//! Base path under which a proxy publishes the service.

use std::str::FromStr;

/// A path prefix such as `/xai`; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(String);

impl BasePath {
    /// The path without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BasePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.trim();
        let path = path.strip_suffix('/').unwrap_or(path);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        let segment = |text: &str| !matches!(text, "" | "." | "..") && text.bytes().all(plain);
        // An empty first segment (`//host`) would refer to another server.
        match path.is_empty() || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment)) {
            true if path.len() <= 200 => Ok(Self(path.to_owned())),
            _ => {
                Err("expected a path of letters, digits and -._~ such as /xai or /team/xai, or / for no base path"
                    .into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_base_path_starts_with_a_slash_and_ends_without() {
        for (text, path) in [("/", ""), ("", ""), ("/xai", "/xai"), ("/xai/", "/xai"), ("/a/b.c~", "/a/b.c~")] {
            assert_eq!(text.parse::<BasePath>().unwrap().as_str(), path, "{text}");
        }
        for bad in ["xai", "//evil.example", "/a//b", "/..", "/a/../b", "/a b", "/a%2Fb", "/\"", "https://a", "//"] {
            assert!(bad.parse::<BasePath>().is_err(), "{bad:?}");
        }
    }
}
