//! CSV (RFC 4180) with a header line.

use std::fmt::Write;

/// One line of cells, with a line feed.
pub(crate) fn line<S: AsRef<str>>(cells: impl IntoIterator<Item = S>) -> String {
    let mut line = String::new();
    for (i, cell) in cells.into_iter().enumerate() {
        let cell = cell.as_ref();
        if i > 0 {
            line.push(',');
        }
        if cell.contains([',', '"', '\n', '\r']) {
            // Writing to a string cannot fail.
            let _ = write!(line, "\"{}\"", cell.replace('"', "\"\""));
        } else {
            line.push_str(cell);
        }
    }
    line.push('\n');
    line
}

/// The cells of a line without its line feed.
///
/// # Errors
/// If a quote is not closed, or text follows a closing quote.
pub(crate) fn cells(line: &str) -> Result<Vec<String>, &'static str> {
    let mut cells = vec![String::new()];
    let mut chars = line.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let cell = cells.last_mut().ok_or("no cell")?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' if quoted => {
                quoted = false;
                if chars.peek().is_some_and(|&next| next != ',') {
                    return Err("text after a closing quote");
                }
            }
            '"' if cell.is_empty() => quoted = true,
            ',' if !quoted => cells.push(String::new()),
            c => cell.push(c),
        }
    }
    if quoted { Err("unclosed quote") } else { Ok(cells) }
}

/// The cells of a line that has exactly `N`.
pub(crate) fn exact_cells<const N: usize>(line: &str) -> Result<[String; N], String> {
    cells(line)?.try_into().map_err(|cells: Vec<String>| format!("{} cells, not {N}", cells.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        assert_eq!(line(["a", "b,c", "d\"e", ""]), "a,\"b,c\",\"d\"\"e\",\n");
        assert_eq!(cells("a,\"b,c\",\"d\"\"e\",").unwrap(), ["a", "b,c", "d\"e", ""]);
        assert!(cells("\"a").is_err() && cells("\"a\"b,c").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(row in proptest::collection::vec("[a-z,\" :@/]{0,6}", 1..6)) {
            let text = line(&row);
            prop_assert_eq!(cells(text.strip_suffix('\n').unwrap()).unwrap(), row);
        }
    }
}
