//! Names of classes, as files hold them: one per line, or JSON.

use serde_json::{Map, Value};

use crate::text;

/// Maximum length of a name, in characters.
const LONGEST_NAME: usize = 1000;

const EXPECTED: &str = "expected one name per line, or JSON: a list of names, an object from indices to names \
                        (ImageNet's class index, id2label) or from names to indices";

/// Parses one name per line; ignores trailing empty lines and a byte order mark. Lines end with `\n`, `\r\n` or `\r`.
pub(super) fn names_in(text: &str) -> Vec<String> {
    let text = text::without_bom(text).trim_end();
    let lines = text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'));
    let names = lines.map(|line| line.trim().to_owned());
    if text.is_empty() { Vec::new() } else { names.collect() }
}

/// Parses a file of names: one per line ([`names_in`]), or JSON, which is a list of names, an object from indices to
/// names or to `[synset, name]`, or from names to indices, or a configuration that has such an object as `id2label`.
///
/// # Errors
/// When there is no name, or one that cannot be shown.
pub(super) fn parse(text: &str) -> Result<Vec<String>, String> {
    let names = match serde_json::from_str(text::without_bom(text)) {
        Ok(json @ (Value::Array(_) | Value::Object(_))) => in_json(&json).ok_or(EXPECTED)?,
        _ => names_in(text),
    };
    if names.is_empty() {
        return Err(format!("has no names; {EXPECTED}"));
    }
    for (i, name) in names.iter().enumerate() {
        if let Some(control) = name.chars().find(|&c| c != '\t' && c.is_control()) {
            return Err(format!("name {i} contains the character {control:?}; is the file text in UTF-8?"));
        }
        let length = name.chars().count();
        if length > LONGEST_NAME {
            return Err(format!("name {i} has {length} characters, more than {LONGEST_NAME}; {EXPECTED}"));
        }
    }
    Ok(names)
}

fn in_json(json: &Value) -> Option<Vec<String>> {
    match json {
        Value::Array(names) => names.iter().map(|name| Some(name.as_str()?.trim().to_owned())).collect(),
        Value::Object(entries) => match entries.get("id2label") {
            Some(labels) => by_index(labels.as_object()?),
            None => by_index(entries).or_else(|| by_name(entries)),
        },
        _ => None,
    }
}

/// The names of an object with the keys 0, 1, 2 ...: strings, or pairs of a synset and a name.
fn by_index(entries: &Map<String, Value>) -> Option<Vec<String>> {
    let name = |value: &Value| match value {
        Value::String(name) => Some(name.clone()),
        Value::Array(pair) => pair.get(1)?.as_str().map(str::to_owned),
        _ => None,
    };
    (0..entries.len()).map(|index| name(entries.get(&index.to_string())?)).collect()
}

/// The names of an object whose values are the indices 0, 1, 2 ... in any order.
fn by_name(entries: &Map<String, Value>) -> Option<Vec<String>> {
    let mut names = vec![None; entries.len()];
    for (name, index) in entries {
        let place = names.get_mut(usize::try_from(index.as_u64()?).ok()?)?;
        if place.replace(name.clone()).is_some() {
            return None;
        }
    }
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_are_one_per_line() {
        for text in ["cat\ndog\nbird", "cat\r\n dog \r\nbird\r\n\r\n", "cat\rdog\rbird\r", "\u{feff}cat\ndog\nbird\n"] {
            assert_eq!(parse(text).unwrap(), ["cat", "dog", "bird"], "{text:?}");
        }
        assert_eq!(names_in("cat\r\n\nbird\n\n"), ["cat", "", "bird"]);
        assert_eq!(names_in("\n\n"), [""; 0]);
        assert_eq!(parse("[unknown]\n{0}").unwrap(), ["[unknown]", "{0}"], "text that is not JSON");
        assert_eq!(parse("1\n2").unwrap(), ["1", "2"]);
    }

    #[test]
    fn json_in_the_usual_forms_is_read() {
        for text in [
            r#"["cat", "dog"]"#,
            r#"{"1": "dog", "0": "cat"}"#,
            r#"{"0": ["n1", "cat"], "1": ["n2", "dog"]}"#,
            r#"{"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0}}"#,
            "\u{feff}{\"dog\": 1,\r\n \"cat\": 0}",
        ] {
            assert_eq!(parse(text).unwrap(), ["cat", "dog"], "{text}");
        }
    }

    #[test]
    fn what_holds_no_names_is_refused() {
        let long = "x".repeat(1001);
        for (text, part) in [
            ("", "has no names"),
            (" \r\n\n", "has no names"),
            ("[]", "has no names"),
            ("c\0a\0t\0", "name 0 contains the character '\\0'"),
            ("cat\n\u{1b}[31mdog", "name 1 contains the character '\\u{1b}'"),
            (&long, "name 0 has 1001 characters"),
            (r#"{"0": "cat", "2": "dog"}"#, "expected one name per line"),
            (r#"{"cat": 0, "dog": 0}"#, "expected one name per line"),
            (r#"[["n1", "cat"]]"#, "expected one name per line"),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.contains(part) && why.len() < 400, "{text}: {why}");
        }
    }
}
