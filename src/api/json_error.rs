//! JSON parsing with errors that name the field, the value found and what was expected.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::problem::{Kind, Problem};
use proxygrad::Invalid;
use proxygrad::maximize::Request;
use proxygrad::text::bytes_without_bom;

/// Parses a document.
///
/// # Errors
/// [`Kind::MalformedJson`] if it is not JSON, [`Kind::InvalidRequest`] with the field if it is not a `T`.
pub(super) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Problem> {
    // RFC 8259, section 8.1: a byte order mark may be ignored.
    let json = bytes_without_bom(json);
    let mut reader = serde_json::Deserializer::from_slice(json);
    let parsed = serde_path_to_error::deserialize(&mut reader);
    let error = match parsed {
        Ok(document) => return reader.end().map(|()| document).map_err(|error| malformed(json, &error)),
        Err(error) => error,
    };
    // serde stops at the first type error; the rest may still be malformed.
    match serde_json::from_slice::<Value>(json) {
        Ok(document) => Err(Problem::invalid(Kind::InvalidRequest, describe(&document, &error))),
        Err(error) => Err(malformed(json, &error)),
    }
}

fn malformed(json: &[u8], error: &serde_json::Error) -> Problem {
    if json.is_empty() {
        return Problem::new(Kind::MalformedJson, "the body is empty; expected a JSON object");
    }
    Problem::new(Kind::MalformedJson, error.to_string())
}

/// Describes a deserialization error by the field and the value in `document`.
fn describe(document: &Value, error: &serde_path_to_error::Error<serde_json::Error>) -> Invalid {
    let mut field = String::new();
    let mut found = Some(document);
    for segment in error.path() {
        found = match segment {
            Segment::Seq { index } => {
                field.push_str(&format!("[{index}]"));
                found.and_then(|value| value.get(index))
            }
            Segment::Map { key } | Segment::Enum { variant: key } => {
                if !field.is_empty() {
                    field.push('.');
                }
                field.push_str(key);
                found.and_then(|value| value.get(key))
            }
            Segment::Unknown => None,
        };
    }
    let message = error.inner().to_string();
    // serde_json appends " at line L column C"; the field is more useful.
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let text = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);

    if let Some(invalid) = Invalid::from_text(message) {
        return if field.is_empty() { invalid } else { invalid.within(&field) };
    }
    let named = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    if let Some(name) = message.strip_prefix("missing field ").map(unquoted) {
        return Invalid::new(named(&name), "nothing", "a value: it is required");
    }
    if let Some(name) = message.strip_prefix("duplicate field ").map(unquoted) {
        return Invalid::new(named(&name), "a second value", "a single value");
    }
    if let Some((name, fields)) = message.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", ")) {
        let name = unquoted(name);
        // The path ends in the unknown field or in the object that contains it.
        let (field, value) = match field == name || field.ends_with(&format!(".{name}")) {
            true => (field.clone(), found),
            false => (named(&name), found.and_then(|object| object.get(&name))),
        };
        if let Some(new) = Request::renamed_field(&name).filter(|new| fields.contains(&format!("`{new}`"))) {
            return Invalid::renamed(field, text(value), new);
        }
        let expected = match fields.strip_prefix("expected ") {
            Some(fields) => format!("one of the fields {}", unquoted(fields.trim_start_matches("one of "))),
            None => "no fields here".to_owned(),
        };
        return Invalid::new(field, text(value), expected);
    }
    if field.is_empty() {
        field.push_str("body");
    }
    let expected = match message.split_once(", expected ") {
        Some((_, expected)) => type_in_words(expected),
        // A list with more elements than expected.
        None if message == "trailing characters" => "a shorter list".to_owned(),
        None => message.to_owned(),
    };
    Invalid::new(field, text(found), expected)
}

/// serde's type names in plain words.
fn type_in_words(expected: &str) -> String {
    match expected {
        "u8" => "a whole number from 0 to 255".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" => "a whole number from 0 to 4294967295".into(),
        "u64" | "usize" => "a whole number, 0 or more".into(),
        "f32" | "f64" => "a number".into(),
        "a sequence" => "a list".into(),
        "a map" => "an object".into(),
        "a string" | "a borrowed string" => "a string".into(),
        "a boolean" => "true or false".into(),
        "string or map" => "a string or an object".into(),
        other if other.starts_with("struct ") || other.starts_with("internally tagged enum ") => "an object".into(),
        other => unquoted(other),
    }
}

fn unquoted(text: &str) -> String {
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    /// `(status, field, value, expected)` of the problem that parsing this body returns.
    fn rejected(body: &str) -> (u16, String, String, String) {
        let problem = parse::<Request>(body.as_bytes()).unwrap_err();
        let status = problem.kind().status().as_u16();
        match problem.errors() {
            [] => (status, String::new(), String::new(), problem.detail().to_owned()),
            [error] => (status, error.field.clone(), error.value.clone(), error.expected.clone()),
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn invalid_documents_name_field_value_and_expectation() {
        for (body, field, value, expected) in [
            (r#"[]"#, "body", "[]", "an object"),
            (r#"{}"#, "model", "nothing", "it is required"),
            (r#"{"model": 3}"#, "model", "3", "a string"),
            (r#"{"model": "m", "steps": "ten"}"#, "steps", "\"ten\"", "a whole number from 0 to 4294967295"),
            (r#"{"model": "m", "steps": -1}"#, "steps", "-1", "a whole number"),
            (r#"{"model": "m", "steps": 1.5}"#, "steps", "1.5", "a whole number"),
            (r#"{"model": "m", "stepz": 4}"#, "stepz", "4", "one of the fields model, objective"),
            (r#"{"model": "m", "model": "m"}"#, "model", "a second value", "a single value"),
            (r#"{"model": "m", "size": [224]}"#, "size", "[224]", "an array of length 2"),
            (r#"{"model": "m", "size": [1, 2, 3]}"#, "size", "[1,2,3]", "a shorter list"),
            (r#"{"model": "m", "size": [224, "x"]}"#, "size[1]", "\"x\"", "a whole number"),
            (r#"{"model": "m", "gate": "fast"}"#, "gate.kind", "fast", "plain, decoupled"),
            (r#"{"model": "m", "gate": {"kind": "fast"}}"#, "gate.kind", "\"fast\"", "decoupled"),
            (
                r#"{"model": "m", "gate": {"kind": "soft", "slop": 1}}"#,
                "gate.slop",
                "1",
                "one of the fields kind, slope",
            ),
            (r#"{"model": "m", "gate": 7}"#, "gate", "7", "a gate's kind as text, or an object"),
            (r#"{"model": "m", "transforms": ["jitter:8", "spin:9"]}"#, "transforms[1]", "spin:9", "jitter:PIXELS"),
            (r#"{"model": "m", "objective": "logits"}"#, "objective", "logits", "LAYER:CHANNEL"),
            (r#"{"model": "m", "objective": {"channel": 4}}"#, "objective.layer", "nothing", "the name of a layer"),
            (
                r#"{"model": "m", "objectives": ["a:1", {"sum": [{"layer": "b", "channel": "x"}]}]}"#,
                "objectives[1].sum[0].channel",
                "\"x\"",
                "a whole number",
            ),
            (r#"{"model": "m", "start": {"kind": "noise"}}"#, "start.kind", "noise", "grey"),
            (r#"{"model": "m", "start": {"kind": "grey", "noise": "x"}}"#, "start", "noise", "a number"),
            (r#"{"model": "m", "start": {"kind": "grey", "nois": 0.1}}"#, "start.nois", "0.1", "noise"),
            (r#"{"model": "m", "certificates": true}"#, "certificates", "true", "the new name diagnostics"),
            (
                r#"{"model": "m", "start": {"kind": "image", "image": "part:a", "leash": 0.1}}"#,
                "start.leash",
                "0.1",
                "the new name max_rms_distance",
            ),
        ] {
            let (status, f, v, e) = rejected(body);
            assert_eq!((status, f.as_str()), (422, field), "{body}: {v}, {e}");
            assert!(v.contains(value), "{body}: {v}");
            assert!(e.contains(expected), "{body}: {e}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        let request: Request = parse("\u{feff}{\"model\": \"m\", \"objective\": \"a:1\"}".as_bytes()).unwrap();
        assert_eq!(request.model, "m");
        assert_eq!(rejected("\u{feff}{\"model\": 3}").1, "model");
        assert_eq!(rejected("\u{feff}").3, "the body is empty; expected a JSON object");
    }

    #[test]
    fn bodies_that_are_not_json_are_malformed_and_not_invalid() {
        let deep = "[".repeat(100_000);
        for body in
            ["", "{", "{\"model\": }", "{\"steps\": 1e999}", "{\"model\": 3} x", "{\"model\": NaN}", &deep, "\u{0}"]
        {
            let (status, ..) = rejected(body);
            assert_eq!(status, 400, "{}", body.chars().take(40).collect::<String>());
        }
        assert_eq!(parse::<Request>(b"{\"model\": \"\xff\"}").unwrap_err().kind(), Kind::MalformedJson);
    }

    #[test]
    fn a_value_that_quotes_the_error_text_changes_nothing() {
        let (_, field, value, _) = rejected(r#"{"model": "m", "objective": "x: y is not valid; expected z"}"#);
        assert_eq!(field, "objective");
        assert_eq!(value, "x: y is not valid; expected z");
    }
}
