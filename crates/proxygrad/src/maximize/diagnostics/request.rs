//! What diagnostics a request asks for.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// Diagnostics of a request: whether to measure them, or with judges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(untagged)]
pub enum DiagnosticsRequest {
    /// Whether to measure what the network alone can tell.
    Measured(bool),
    /// That, and what judges see.
    Judged(JudgesRequest),
}

/// Diagnostics with judges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JudgesRequest {
    /// Ids of models that are shown every stimulus. Each must know the class of every objective that is one, and every
    /// other objective must be a channel of a calibrated layer.
    #[cfg_attr(feature = "openapi", schema(max_items = 8, examples(json!(["efficientnet-lite2"]))))]
    pub judges: Vec<String>,
}

impl DiagnosticsRequest {
    /// Whether diagnostics are measured.
    pub fn is_measured(&self) -> bool {
        !matches!(self, Self::Measured(false))
    }

    /// Ids of the judges.
    pub fn judges(&self) -> &[String] {
        match self {
            Self::Measured(_) => &[],
            Self::Judged(request) => &request.judges,
        }
    }
}

impl<'de> Deserialize<'de> for DiagnosticsRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = DiagnosticsRequest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or an object with judges")
            }

            fn visit_bool<E>(self, measured: bool) -> Result<DiagnosticsRequest, E> {
                Ok(DiagnosticsRequest::Measured(measured))
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<DiagnosticsRequest, M::Error> {
                JudgesRequest::deserialize(MapAccessDeserializer::new(map)).map(DiagnosticsRequest::Judged)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn diagnostics_are_a_boolean_or_have_judges() {
        let read = |value| serde_json::from_value::<DiagnosticsRequest>(value);
        for value in [json!(true), json!(false), json!({"judges": ["a", "b"]})] {
            assert_eq!(serde_json::to_value(read(value.clone()).unwrap()).unwrap(), value);
        }
        assert!(read(json!(true)).unwrap().is_measured() && !read(json!(false)).unwrap().is_measured());
        let judged = read(json!({"judges": ["a"]})).unwrap();
        assert!(judged.is_measured() && judged.judges() == ["a"]);
        for (value, says) in [
            (json!("yes"), "true, false, or an object with judges"),
            (json!({"judge": "a"}), "unknown field `judge`"),
            (json!({}), "judges"),
        ] {
            let error = read(value).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
