//! The one shape of "your input is wrong", used from the command line to the HTTP API.

use std::convert::Infallible;

/// A value that a caller supplied and that cannot be used.
///
/// Always names the field, the value found there and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value} is not valid; expected {expected}")]
pub struct Invalid {
    /// Path of the field in the request document, such as `objectives[1].channel`.
    pub field: String,
    /// The value found, as text (shortened when long).
    pub value: String,
    /// What would be right, as a phrase: `a channel from 0 to 999`.
    pub expected: String,
}

impl Invalid {
    /// Longest value that is repeated back to the caller, in characters.
    const LONGEST_VALUE: usize = 120;

    /// Describes a wrong `value` of `field` by what was `expected` instead.
    pub fn new(field: impl Into<String>, value: impl ToString, expected: impl Into<String>) -> Self {
        let mut value = value.to_string();
        if let Some((end, _)) = value.char_indices().nth(Self::LONGEST_VALUE) {
            value.truncate(end);
            value.push('…');
        }
        Self { field: field.into(), value, expected: expected.into() }
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
