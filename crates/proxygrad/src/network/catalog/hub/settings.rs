//! Where the Hugging Face Hub is, and how to access it.

use std::fmt;
use std::time::Duration;

use url::Url;

use crate::Invalid;

/// The Hugging Face Hub, or a mirror that speaks its protocol.
#[derive(Clone)]
pub struct Hub {
    pub(super) endpoint: String,
    /// Access token for private and gated repositories; only sent to the endpoint.
    pub token: Option<String>,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time without data.
    pub stall_timeout: Duration,
    /// Longest time for all files of a model.
    pub download_timeout: Duration,
}

impl Hub {
    /// Address of the public Hub.
    pub const PUBLIC: &str = "https://huggingface.co";

    /// A Hub at another address.
    ///
    /// # Errors
    /// When `url` is not an `http` or `https` address.
    pub fn new(url: &str) -> Result<Self, Invalid> {
        match Url::parse(url) {
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Ok(Self::at(url)),
            _ => Err(Invalid::new("hub", url, format!("an http(s) address, such as {}", Self::PUBLIC))),
        }
    }

    fn at(url: &str) -> Self {
        Self {
            endpoint: url.trim_end_matches('/').into(),
            token: None,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            download_timeout: Duration::from_secs(3600),
        }
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::at(Self::PUBLIC)
    }
}

impl fmt::Debug for Hub {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
