//! Entity tags (RFC 9110, section 8.8.3) and `If-None-Match` (section 13.1.2).

use axum::http::{HeaderMap, header};

/// Whether the client already has the representation with this strong tag, quotes included.
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).into_iter().filter_map(|line| line.to_str().ok());
    // The comparison is weak: `W/` makes no difference.
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_tag_is_found_in_a_list_and_behind_a_weak_mark() {
        let known =
            |line: &str| is_known(&HeaderMap::from_iter([(header::IF_NONE_MATCH, line.parse().unwrap())]), "\"abc\"");
        for line in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert!(known(line), "{line}");
        }
        for line in ["\"abcd\"", "abc", "\"x\", \"y\"", ""] {
            assert!(!known(line), "{line}");
        }
        assert!(!is_known(&HeaderMap::new(), "\"abc\""));
    }
}
