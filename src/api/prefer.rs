//! `Prefer: wait=N` (RFC 7240, section 4.3): long polling for a result.

use std::time::Duration;

use axum::http::HeaderMap;

/// The requested wait; `None` without a valid `wait` preference.
///
/// Unknown and malformed preferences are ignored (RFC 7240, section 2).
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all("prefer").into_iter().filter_map(|line| line.to_str().ok());
    let preferences = lines.flat_map(|line| line.split(','));
    // The first of repeated preferences counts.
    let seconds = preferences.filter_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
    });
    let seconds = seconds.take(1).find(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))?;
    // A number that overflows still means "as long as possible".
    Some(Duration::from_secs(seconds.parse().unwrap_or(u64::from(u32::MAX))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use axum::http::HeaderValue;

    use super::*;

    fn seconds(lines: &[&str]) -> Option<u64> {
        let value = |line: &&str| ("prefer".parse().unwrap(), HeaderValue::from_str(line).unwrap());
        wait(&lines.iter().map(value).collect::<HeaderMap>()).map(|wait| wait.as_secs())
    }

    #[test]
    fn the_wait_is_found_among_other_preferences() {
        assert_eq!(seconds(&["wait=10"]), Some(10));
        assert_eq!(seconds(&["respond-async, Wait = 10; foo=bar"]), Some(10));
        assert_eq!(seconds(&["return=minimal", "wait=\"5\""]), Some(5));
        assert_eq!(seconds(&["wait=3, wait=4"]), Some(3));
        assert_eq!(seconds(&["wait=99999999999999999999999"]), Some(u64::from(u32::MAX)));
        assert_eq!(seconds(&["wait=0"]), Some(0));
    }

    #[test]
    fn what_cannot_be_read_is_ignored() {
        for line in ["", "wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", "waiting=3", ",;=,"] {
            assert_eq!(seconds(&[line]), None, "{line:?}");
        }
        assert_eq!(seconds(&[]), None);
    }
}
