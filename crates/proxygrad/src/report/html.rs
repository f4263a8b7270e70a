//! HTML building blocks: pages, escaping, tables, number formats.

use std::fmt::Write;

use super::svg;

const STYLE: &str = include_str!("style.css");

/// A self-contained page with this title, which is escaped, and the HTML below it.
pub(crate) fn document(title: &str, body: &str) -> String {
    let (title, colours) = (text(title), svg::STYLE);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{colours}{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n\
         {body}</main>\n</body>\n</html>\n"
    )
}

/// Escapes text for HTML.
pub(crate) fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // HTML allows no other control characters.
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Table cell: HTML content, tag and attributes.
pub(crate) struct Cell {
    tag: &'static str,
    attributes: String,
    html: String,
}

impl Cell {
    /// A cell with this text.
    pub(crate) fn text(content: impl AsRef<str>) -> Self {
        Self::html(text(content.as_ref()))
    }

    /// A cell with this HTML.
    pub(crate) fn html(html: impl Into<String>) -> Self {
        Self { tag: "td", attributes: String::new(), html: html.into() }
    }

    /// The head of a row.
    pub(crate) fn head(content: impl AsRef<str>) -> Self {
        Self { tag: "th", attributes: " scope=\"row\"".to_owned(), html: text(content.as_ref()) }
    }

    /// Adds a bar behind the text for a share from 0 to 1.
    pub(crate) fn bar(mut self, share: f64) -> Self {
        let percent = 100.0 * share.clamp(0.0, 1.0);
        let _ = write!(self.attributes, " class=\"bar\" style=\"--share:{percent:.1}%\"");
        self
    }

    /// Colours the cell by a share of wins from 0 to 1, more strongly the farther it is from one half.
    pub(crate) fn shade(mut self, share: f64) -> Self {
        let class = if share >= 0.5 { "won" } else { "lost" };
        let strength = 70.0 * (2.0 * share - 1.0).abs().min(1.0);
        let _ = write!(self.attributes, " class=\"{class}\" style=\"--share:{strength:.0}%\"");
        self
    }
}

/// Table with caption, column heads and rows; caption and heads are escaped.
pub(crate) fn table<S: AsRef<str>>(caption: &str, heads: &[S], rows: Vec<Vec<Cell>>) -> String {
    let mut html = String::from("<div class=\"wide\"><table>");
    let _ = write!(html, "<caption>{}</caption><thead><tr>", text(caption));
    for head in heads {
        let _ = write!(html, "<th scope=\"col\">{}</th>", text(head.as_ref()));
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for Cell { tag, attributes, html: content } in row {
            let _ = write!(html, "<{tag}{attributes}>{content}</{tag}>");
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// Collapsible section.
pub(crate) fn details(summary: &str, html: &str) -> String {
    format!("<details><summary>{}</summary>\n{html}</details>\n", text(summary))
}

/// Escapes a path in the folder for a link.
pub(crate) fn link(path: &str) -> String {
    path.replace('=', "%3D")
}

/// A number with about four significant digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.3}"),
        size if size >= 0.001 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

/// A formatted number, or a dash for `None`.
pub(crate) fn optional(value: Option<f64>, format: impl FnOnce(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), format)
}

/// A share as a percentage.
pub(crate) fn percent(share: f64) -> String {
    match 100.0 * share {
        0.0 => "0 %".to_owned(),
        percent if percent < 10.0 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

/// A p-value.
pub(crate) fn probability(p: f64) -> String {
    if p < 1e-4 { format!("{p:.0e}") } else { format!("{p:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(text("<b a=\"x\">&'\u{1}"), "&lt;b a=&quot;x&quot;&gt;&amp;&#39;\u{fffd}");
        let table = table("<caption>", &["<head>"], vec![vec![Cell::head("<row>"), Cell::text("<cell>").bar(0.5)]]);
        for name in ["caption", "head", "row", "cell"] {
            assert!(table.contains(&format!("&lt;{name}&gt;")), "{table}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 12345.6, -123.45, 1.23456, 0.012345, 0.000_012].map(number);
        assert_eq!(shown, ["0", "12346", "-123.5", "1.235", "0.0123", "1.2e-5"]);
        assert_eq!((percent(0.0), percent(0.012), percent(0.5)), ("0 %".into(), "1.2 %".into(), "50 %".into()));
        assert_eq!((probability(0.04126), probability(1.4e-9)), ("0.0413".into(), "1e-9".into()));
        assert_eq!(optional(None, number), "–");
    }
}
