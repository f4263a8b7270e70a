//! The one error type for wrong input, from the command line to the HTTP API.

use std::convert::Infallible;
use std::fmt;

/// A value that a caller supplied and that cannot be used.
///
/// Always names the field, the value found there and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Path of the field in the request document, such as `objectives[1].channel`.
    pub field: String,
    /// The value found, as text (shortened when long).
    pub value: String,
    /// What would be right, as a phrase: `a channel from 0 to 999`.
    pub expected: String,
    /// What is wrong with the field; decides how the error reads as a sentence.
    pub reason: InvalidReason,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidReason {
    /// Its value.
    Value,
    /// It is required and absent.
    Missing,
    /// It is only supported together with something else.
    Unsupported,
    /// It has another name now.
    Renamed,
}

const VALUE: &str = " is not valid; expected ";
const MISSING: &str = " is required, for example ";
const UNSUPPORTED: &str = " is only supported with ";
const RENAMED: &str = " is now called ";
/// What `expected` begins with, by reason.
const AN_EXAMPLE: &str = "a value, for example ";
const NO_VALUE: &str = "no value: only supported with ";
const NEW_NAME: &str = "the new name ";

impl Invalid {
    /// Longest value that is repeated back to the caller, in characters.
    const LONGEST_VALUE: usize = 120;

    /// `field` has a wrong `value`.
    pub fn new(field: impl Into<String>, value: impl ToString, expected: impl Into<String>) -> Self {
        let mut value = value.to_string();
        if let Some((end, _)) = value.char_indices().nth(Self::LONGEST_VALUE) {
            value.truncate(end);
            value.push('…');
        }
        Self { field: field.into(), value, expected: expected.into(), reason: InvalidReason::Value }
    }

    /// `field` is required and absent: `objective is required, for example logits:0`.
    pub fn missing(field: impl Into<String>, example: &str) -> Self {
        let reason = InvalidReason::Missing;
        Self { reason, ..Self::new(field, "nothing", format!("{AN_EXAMPLE}{example}")) }
    }

    /// `field` has no meaning here: `start.noise is only supported with --start grey`.
    pub fn unsupported(field: impl Into<String>, value: impl ToString, with: impl fmt::Display) -> Self {
        let reason = InvalidReason::Unsupported;
        Self { reason, ..Self::new(field, value, format!("{NO_VALUE}{with}")) }
    }

    /// `field` has a new name: `certificates is now called diagnostics`.
    pub fn renamed(field: impl Into<String>, value: impl ToString, new: &str) -> Self {
        Self { reason: InvalidReason::Renamed, ..Self::new(field, value, format!("{NEW_NAME}{new}")) }
    }

    /// Parses the text of an error: serde passes errors on in no other form.
    pub fn from_text(text: &str) -> Option<Self> {
        if let Some((front, expected)) = text.rsplit_once(VALUE) {
            let (field, value) = front.split_once(": ")?;
            return Some(Self::new(field, value, expected));
        }
        if let Some((field, example)) = text.split_once(MISSING) {
            return Some(Self::missing(field, example));
        }
        if let Some((field, with)) = text.split_once(UNSUPPORTED) {
            return Some(Self::unsupported(field, "a value", with));
        }
        let (field, new) = text.split_once(RENAMED)?;
        Some(Self::renamed(field, "a value", new))
    }

    /// The same error, seen from the document that holds the field: `slope` becomes `gate.slope`.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.field = match self.field.as_str() {
            "" => parent.to_owned(),
            field if field.starts_with('[') => format!("{parent}{field}"),
            field => format!("{parent}.{field}"),
        };
        self
    }
}

impl From<Infallible> for Invalid {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, expected, reason } = self;
        let (verb, prefix) = match reason {
            InvalidReason::Value => return write!(f, "{field}: {value}{VALUE}{expected}"),
            InvalidReason::Missing => (MISSING, AN_EXAMPLE),
            InvalidReason::Unsupported => (UNSUPPORTED, NO_VALUE),
            InvalidReason::Renamed => (RENAMED, NEW_NAME),
        };
        write!(f, "{field}{verb}{}", expected.strip_prefix(prefix).unwrap_or(expected))
    }
}

impl std::error::Error for Invalid {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn errors_read_as_sentences_and_can_be_read_back() {
        for (error, text) in [
            (Invalid::new("steps", 0, "a whole number"), "steps: 0 is not valid; expected a whole number"),
            (Invalid::missing("objective", "logits:0"), "objective is required, for example logits:0"),
            (
                Invalid::unsupported("max_rms_distance", "a value", "parameterization pixel").within("start"),
                "start.max_rms_distance is only supported with parameterization pixel",
            ),
            (Invalid::renamed("leash", "a value", "max_rms_distance"), "leash is now called max_rms_distance"),
        ] {
            assert_eq!(error.to_string(), text);
            assert_eq!(Invalid::from_text(text).unwrap(), error);
        }
        assert_eq!(Invalid::from_text("missing field `model`"), None);
    }
}
