//! The HTTP client of downloads, and what its failures mean.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::blocking::Client;
use reqwest::redirect::Policy;
use rustls::crypto::CryptoProvider;
use url::Url;

use super::pull_error::PullError;

/// Makes ring the process's cryptography for TLS, unless the program chose another; an HTTP client cannot be built
/// before.
pub fn install_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // Fails only when another thread was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// A client for the server at `base`, which follows redirects or returns them. From a server with TLS it is never led
/// to one without.
pub(super) fn client(base: &Url, connect: Duration, stall: Duration, follows: bool) -> Result<Client, PullError> {
    install_crypto_provider();
    // For the blocking client, `timeout` limits each wait for the headers or the next chunk of the body.
    let mut builder = Client::builder()
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect)
        .timeout(stall)
        .https_only(base.scheme() == "https");
    if !follows {
        builder = builder.redirect(Policy::none());
    }
    if matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|e| PullError::transport(&redacted(base), &e, stall))
}

impl PullError {
    /// Classifies a transport failure.
    pub(super) fn transport(url: &str, error: &(dyn Error + 'static), stall: Duration) -> Self {
        let mut reasons: Vec<String> = Vec::new();
        let mut timed_out = false;
        let mut next = Some(error);
        while let Some(error) = next {
            timed_out |= error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout);
            let mut inner = error.source();
            if let Some(error) = error.downcast_ref::<io::Error>() {
                timed_out |= error.kind() == io::ErrorKind::TimedOut;
                // An io::Error displays the error that it wraps, and skips it in `source`.
                inner = error.get_ref().map(|inner| inner as &(dyn Error + 'static)).or(inner);
            }
            let reason = error.to_string();
            if !reasons.iter().any(|said| said.contains(&reason)) {
                reasons.push(reason);
            }
            next = inner;
        }
        if timed_out {
            return Self::Stalled { url: url.into(), stall };
        }
        Self::Network { url: url.into(), why: reasons.join(": ") }
    }
}

/// The address without credentials, and without the query, which signs addresses of storage.
pub(super) fn redacted(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.set_query(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for url in ["https://user:secret@mirror.example/simple/", "https://mirror.example/simple/?signature=secret"] {
            assert_eq!(redacted(&Url::parse(url).unwrap()), "https://mirror.example/simple/");
        }
    }
}
