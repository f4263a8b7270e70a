//! Markdown building blocks: tables and escaping.

/// A table; cells are Markdown.
pub(crate) fn table<S: AsRef<str>>(heads: &[S], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(heads.iter().map(AsRef::as_ref).collect());
    text += &line(vec!["---"; heads.len()]);
    for row in rows {
        text += &line(row.iter().map(String::as_str).collect());
    }
    text + "\n"
}

/// Escapes text for a table cell.
pub(crate) fn cell(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() => escaped.push(' '),
            '|' | '\\' | '[' | ']' | '<' | '*' | '_' | '`' => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A name as inline code, with `|` escaped (it would end a table cell) and backticks replaced.
pub(crate) fn code(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_control() || c == '`' { '\'' } else { c }).collect();
    format!("`{}`", name.replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_what_they_are_in_a_table() {
        assert_eq!(cell("a|b\n[c](d) <e> `f`"), "a\\|b \\[c\\](d) \\<e> \\`f\\`");
        assert_eq!(code("a|b`\nc"), "`a\\|b''c`");
        let table = table(&["a", "b"], [vec!["1".to_owned(), "2".to_owned()]].into_iter());
        assert_eq!(table, "| a | b |\n| --- | --- |\n| 1 | 2 |\n\n");
    }
}
