//! Networks from repositories of the Hugging Face Hub, or of a mirror that speaks its protocol.
//!
//! A repository is described by `GET /api/models/OWNER/NAME/revision/REVISION`; its files are at
//! `/OWNER/NAME/resolve/COMMIT/PATH`, mostly as redirects to a storage. SHA-256 digests of large files are in the
//! description, and in the header `X-Linked-Etag` of the redirect (<https://huggingface.co/docs/hub/api>).

mod address;
#[cfg(feature = "pull")]
mod client;
#[cfg(feature = "pull")]
mod config;
#[cfg(feature = "pull")]
mod fetch;
#[cfg(feature = "pull")]
mod repository;
mod settings;

pub use address::HubAddress;
#[cfg(feature = "pull")]
pub(super) use fetch::fetch;
pub use settings::Hub;

/// Whether a text is a SHA-256 in lower-case hexadecimal.
#[cfg(feature = "pull")]
fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
