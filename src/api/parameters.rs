//! Path and query parameters: validated, and rejected if unknown or repeated.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use uuid::Uuid;

use super::problem::{Kind, Problem};
use crate::jobs::{Cursor, RunState};
use proxygrad::Invalid;

/// The problem of an invalid parameter.
pub(super) fn invalid_parameter(name: &str, value: impl ToString, expected: impl Into<String>) -> Problem {
    Problem::invalid(Kind::InvalidParameter, Invalid::new(name, value, expected))
}

/// Path parameters, percent-decoded.
pub(super) struct PathParams(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for PathParams {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = RawPathParams::from_request_parts(parts, state).await;
        let raw = raw.map_err(|_| invalid_parameter("path", parts.uri.path(), "percent-encoded UTF-8"))?;
        Ok(Self(raw.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }
}

impl PathParams {
    /// The parameter as text.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The parameter `id` as the id of a job.
    pub fn job(&self) -> Result<Uuid, Problem> {
        self.id("a job")
    }

    /// The parameter `id` as the id of a study.
    pub fn study(&self) -> Result<Uuid, Problem> {
        self.id("a study")
    }

    /// The parameter `id` as the id of a training.
    pub fn training(&self) -> Result<Uuid, Problem> {
        self.id("a training")
    }

    fn id(&self, what: &str) -> Result<Uuid, Problem> {
        let text = self.text("id");
        // Hyphenated form only, so that a job has one URL.
        let id = Some(text).filter(|text| text.len() == 36).and_then(|text| Uuid::try_parse(text).ok());
        let expected = || format!("the id of {what}, such as 0199b4f4-7a7c-7cc1-8a55-d3a1c1bb1f0a");
        id.ok_or_else(|| invalid_parameter("id", text, expected()))
    }

    /// An integer from 0 to `max`.
    pub fn number(&self, name: &str, max: usize) -> Result<usize, Problem> {
        integer(name, self.text(name), 0, max)
    }
}

/// Maximum page size of a list.
const MAX_PAGE_SIZE: usize = 100;
/// Default page size of a list.
const DEFAULT_PAGE_SIZE: usize = 20;

/// Query parameters that have not been taken yet.
pub(super) struct QueryParams(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for QueryParams {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let pairs = axum::extract::Query::from_request_parts(parts, state).await;
        let axum::extract::Query(pairs) =
            pairs.map_err(|_| invalid_parameter("query", parts.uri.query().unwrap_or_default(), "NAME=VALUE pairs"))?;
        Ok(Self(pairs))
    }
}

impl QueryParams {
    /// Removes and returns a parameter.
    pub fn take(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(first) = self.0.iter().position(|(key, _)| key == name) else { return Ok(None) };
        let (_, value) = self.0.remove(first);
        match self.0.iter().find(|(key, _)| key == name) {
            Some((_, second)) => Err(invalid_parameter(name, second, "a single value")),
            None => Ok(Some(value)),
        }
    }

    /// Removes and returns an integer from `min` to `max`.
    pub fn take_number(&mut self, name: &str, min: usize, max: usize) -> Result<Option<usize>, Problem> {
        self.take(name)?.map(|text| integer(name, &text, min, max)).transpose()
    }

    /// Removes and returns one of several choices.
    pub fn take_choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, Problem> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        let found = choices.iter().find(|(word, _)| *word == text);
        let words = || choices.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        found
            .map(|&(_, choice)| Some(choice))
            .ok_or_else(|| invalid_parameter(name, &text, format!("one of {}", words())))
    }

    /// Removes and returns `state`.
    pub fn take_state(&mut self) -> Result<Option<RunState>, Problem> {
        self.take_choice("state", &RunState::ALL.map(|state| (state.as_str(), state)))
    }

    /// Removes and returns `cursor` and `limit` of a list.
    pub fn take_page(&mut self) -> Result<(Option<Cursor>, u32), Problem> {
        let cursor = self.take("cursor")?.map(|text| text.parse()).transpose();
        let cursor = cursor.map_err(|error| Problem::invalid(Kind::InvalidParameter, error))?;
        let limit = self.take_number("limit", 1, MAX_PAGE_SIZE)?.unwrap_or(DEFAULT_PAGE_SIZE);
        Ok((cursor, u32::try_from(limit).map_err(Problem::internal)?))
    }

    /// Rejects parameters that were not taken, such as misspelt ones.
    pub fn end(self, known: &[&str]) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, value)) if known.is_empty() => Err(invalid_parameter(name, value, "no parameters")),
            Some((name, value)) => {
                Err(invalid_parameter(name, value, format!("one of the parameters {}", known.join(", "))))
            }
        }
    }
}

fn integer(name: &str, text: &str, min: usize, max: usize) -> Result<usize, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = Some(text).filter(|_| digits).and_then(|text| text.parse().ok());
    let number = number.filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| invalid_parameter(name, text, format!("a whole number from {min} to {max}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn path(value: &str) -> PathParams {
        PathParams(vec![("id".into(), value.into()), ("n".into(), value.into())])
    }

    #[test]
    fn a_job_id_has_one_spelling() {
        let id = "0199b4f4-7a7c-7cc1-8a55-d3a1c1bb1f0a";
        assert_eq!(path(id).job().unwrap().to_string(), id);
        for bad in ["", "1", "0199b4f47a7c7cc18a55d3a1c1bb1f0a", "{0199b4f4-7a7c-7cc1-8a55-d3a1c1bb1f0a}", "\0"] {
            assert_eq!(path(bad).job().unwrap_err().errors()[0].field, "id", "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_plain_digits_in_range() {
        assert_eq!(path("007").number("n", 63).unwrap(), 7);
        for bad in ["", "64", "-1", "+1", "1.0", "0x1", "٣", "99999999999999999999999"] {
            assert!(path(bad).number("n", 63).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_query_with_untaken_parameters_is_rejected() {
        let pairs = |text: &str| {
            let pair = |pair: &str| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap();
            QueryParams(text.split('&').filter(|p| !p.is_empty()).map(pair).collect())
        };
        let mut query = pairs("limit=5&state=b");
        assert_eq!(query.take_number("limit", 1, 100).unwrap(), Some(5));
        assert_eq!(query.take_choice("state", &[("a", 1), ("b", 2)]).unwrap(), Some(2));
        assert_eq!(query.take("cursor").unwrap(), None);
        query.end(&["limit", "state"]).unwrap();

        assert_eq!(pairs("limit=1&limit=2").take("limit").unwrap_err().errors()[0].value, "2");
        assert!(pairs("state=c").take_choice("state", &[("a", 1), ("b", 2)]).unwrap_err().detail().contains("a, b"));
        assert!(pairs("stat=a").end(&["state"]).unwrap_err().detail().starts_with("stat: "));
    }
}
