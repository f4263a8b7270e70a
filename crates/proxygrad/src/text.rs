//! Decoding of user-supplied text, and edit distance.

use std::io;
use std::path::Path;

/// Strips a leading byte order mark, which is not part of the text (Unicode Standard, section 23.8).
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Strips a leading byte order mark from UTF-8 bytes.
pub fn bytes_without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Decodes UTF-8, with or without a byte order mark, or UTF-16 with one, as Windows editors and shells write it.
///
/// # Errors
/// When the text is neither.
pub fn decode(bytes: &[u8]) -> io::Result<String> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = units.iter().copied().map(unit).collect();
        let text = String::from_utf16(&units).ok().filter(|_| rest.is_empty());
        text.ok_or_else(|| invalid("begins with a UTF-16 byte order mark but is not valid UTF-16; expected UTF-8"))
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        bytes => {
            let text = std::str::from_utf8(bytes_without_bom(bytes));
            text.map(str::to_owned).map_err(|error| invalid(&format!("is not UTF-8 text: {error}")))
        }
    }
}

/// Reads a text file: UTF-8, with or without a byte order mark, or UTF-16 with one.
///
/// # Errors
/// When the file cannot be read or decoded.
pub fn read(path: &Path) -> io::Result<String> {
    decode(&std::fs::read(path)?)
}

/// Edit distance between two words: the least number of insertions, deletions and substitutions (Levenshtein 1966).
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_byte_order_mark_is_not_text() {
        let text = "T-shirt\r\nPullover é 𝄞";
        let utf16 = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
            [&mark[..], &text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>()].concat()
        };
        for bytes in [
            text.as_bytes().to_vec(),
            format!("\u{feff}{text}").into_bytes(),
            utf16([0xff, 0xfe], u16::to_le_bytes),
            utf16([0xfe, 0xff], u16::to_be_bytes),
        ] {
            assert_eq!(decode(&bytes).unwrap(), text);
        }
        assert_eq!(without_bom("\u{feff}\u{feff}a"), "\u{feff}a", "only the first is a mark");
        assert_eq!(bytes_without_bom("\u{feff}{}".as_bytes()), b"{}");
    }

    #[test]
    fn invalid_text_is_refused() {
        for (bytes, part) in [(&b"\xff\xfea"[..], "UTF-16"), (b"\xff\xfe\x00\xd8", "UTF-16"), (b"caf\xe9", "UTF-8")] {
            assert!(decode(bytes).unwrap_err().to_string().contains(part), "{bytes:?}");
        }
    }

    #[test]
    fn distances_of_words() {
        for (a, b, expected) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("flaw", "lawn", 2)] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
