//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a repeated submission creates nothing new.

use axum::http::HeaderMap;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::parameters::invalid_parameter;
use super::problem::Problem;
use crate::jobs::Idempotency;

const NAME: &str = "Idempotency-Key";
/// Maximum length of a key in characters.
const MAX_LENGTH: usize = 255;

/// The key and the fingerprint of a submission; `None` without a key.
///
/// The fingerprint is that of the parsed request: field order and white space do not matter.
///
/// # Errors
/// If the key is not 1 to 255 printable ASCII characters, or there is more than one.
pub(super) fn read(headers: &HeaderMap, request: &impl Serialize) -> Result<Option<Idempotency>, Problem> {
    let mut lines = headers.get_all(NAME).into_iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(invalid_parameter(NAME, "two keys", "a single key"));
    }
    let printable =
        !line.is_empty() && line.len() <= MAX_LENGTH && line.as_bytes().iter().all(|b| (b' '..=b'~').contains(b));
    let key = Some(line).filter(|_| printable).and_then(|line| line.to_str().ok()).ok_or_else(|| {
        let found = String::from_utf8_lossy(line.as_bytes());
        invalid_parameter(NAME, found, format!("1 to {MAX_LENGTH} printable ASCII characters"))
    })?;
    let document = serde_json::to_vec(request).map_err(Problem::internal)?;
    Ok(Some(Idempotency { key: key.to_owned(), fingerprint: hex::encode(Sha256::digest(document)) }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use axum::http::HeaderValue;

    use super::*;
    use proxygrad::maximize::Request;

    fn key(lines: &[&[u8]], body: &str) -> Result<Option<Idempotency>, Problem> {
        let value = |line: &&[u8]| (NAME.parse().unwrap(), HeaderValue::from_bytes(line).unwrap());
        read(&lines.iter().map(value).collect(), &serde_json::from_str::<Request>(body).unwrap())
    }

    const BODY: &str = r#"{"model": "m", "objective": "logits:1", "steps": 4}"#;

    #[test]
    fn the_fingerprint_follows_what_is_asked_not_how_it_is_written() {
        let of = |body: &str| key(&[b"k"], body).unwrap().unwrap().fingerprint;
        assert_eq!(of(BODY), of(r#"{"steps":4,"objective":{"layer":"logits","channel":1},"model":"m"}"#));
        assert_ne!(of(BODY), of(r#"{"model": "m", "objective": "logits:2", "steps": 4}"#));
    }

    #[test]
    fn a_key_is_printable_and_not_too_long() {
        assert_eq!(key(&[], BODY), Ok(None));
        assert_eq!(key(&[&[b'x'; 255]], BODY).unwrap().unwrap().key.len(), 255);
        for bad in [&b""[..], &[b'x'; 256], "ключ".as_bytes(), b"a\tb"] {
            assert_eq!(key(&[bad], BODY).unwrap_err().errors()[0].field, NAME, "{bad:?}");
        }
        assert!(key(&[b"a", b"b"], BODY).is_err());
    }
}
