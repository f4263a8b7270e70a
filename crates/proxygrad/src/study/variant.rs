//! Variants: arms and methods, which are named parts of a request.
//!
//! The request of a run is merged from three parts: the base of the study, a method (how images are made, such as
//! `fourier+transforms`) and an arm (what is compared, such as `slope:0.1`). Each is a JSON object of request fields;
//! later fields replace earlier ones. So every setting of a request can be compared.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::Invalid;
use crate::maximize::Preset;
use crate::text::without_bom;

/// Fields of a request.
pub type Fields = Map<String, Value>;

/// A named part of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = StudyVariant))]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name in tables and files.
    #[cfg_attr(feature = "openapi", schema(examples("slope:0.1")))]
    pub name: String,
    /// The fields of a request that it sets.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub request: Fields,
}

/// Custom arms and methods, defined in a file (TOML or JSON).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variants {
    /// Fields of every request.
    #[serde(default)]
    pub base: Fields,
    /// Custom arms.
    #[serde(default)]
    pub arms: Vec<Variant>,
    /// Custom methods.
    #[serde(default)]
    pub methods: Vec<Variant>,
}

/// Names of arms, for errors.
const ARMS: &str = "plain, redirect, decoupled, slope:P, anneal:P, soft, soft+polish, identity, true-proxy, true-proxy:P, \
                    auto, preset:NAME, or the name of an arm in the plan file";
/// Names of methods, for errors.
const METHODS: &str = "pixel, fourier, maco, transforms or preset:NAME, joined by +, or the name of a method in the plan \
                       file";

impl Variants {
    /// Parses the text of a file: JSON if it begins with a brace, else TOML.
    ///
    /// # Errors
    /// Describes where the text is invalid, or which arm or method is defined twice.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = without_bom(text);
        let variants: Self = match text.trim_start().starts_with('{') {
            true => serde_json::from_str(text).map_err(|error| error.to_string())?,
            false => toml::from_str(text).map_err(|error| error.to_string())?,
        };
        for (what, variants) in [("arm", &variants.arms), ("method", &variants.methods)] {
            for (i, variant) in variants.iter().enumerate() {
                if variants[..i].iter().any(|earlier| earlier.name == variant.name) {
                    return Err(format!("the {what} {} is defined twice", variant.name));
                }
            }
        }
        Ok(variants)
    }

    /// The arm called `name`: a custom or built-in one.
    ///
    /// # Errors
    /// If it does not exist; lists the names.
    pub fn arm(&self, name: &str) -> Result<Variant, Invalid> {
        if let Some(arm) = self.arms.iter().find(|arm| arm.name == name) {
            return Ok(arm.clone());
        }
        let gate = match name.split_once(':') {
            Some(("slope", slope)) => fixed("decoupled", share(slope)?),
            Some(("true-proxy", slope)) => fixed("true-proxy", share(slope)?),
            Some(("anneal", slope)) => json!({"kind": "decoupled", "slope": share(slope)?}),
            Some(("preset", preset)) => return Ok(variant(name, "preset", json!(preset))),
            Some(_) => return Err(Invalid::new("arms", name, ARMS)),
            None => match name {
                "plain" | "redirect" | "decoupled" | "soft" | "true-proxy" | "auto" => json!(name),
                "soft+polish" => {
                    json!({"kind": "soft", "temperature": 1, "relative": false, "anneal": 0.6, "polish": 0.1})
                }
                "identity" => json!({"kind": "identity", "polish": 0.3}),
                _ => return Err(Invalid::new("arms", name, ARMS)),
            },
        };
        Ok(variant(name, "gate", gate))
    }

    /// The method called `name`: a custom one, or built-in ones joined by `+`.
    ///
    /// # Errors
    /// If it does not exist; lists the names.
    pub fn method(&self, name: &str) -> Result<Variant, Invalid> {
        if let Some(method) = self.methods.iter().find(|method| method.name == name) {
            return Ok(method.clone());
        }
        let mut request = Fields::new();
        for part in name.split('+') {
            let (field, value) = match part.split_once(':') {
                Some(("preset", preset)) => ("preset", json!(preset)),
                None if part == "pixel" => continue,
                None if part == "transforms" => ("transforms", json!(["jitter:8", "scale:0.9,1.1", "rotate:5"])),
                None if ["fourier", "maco"].contains(&part) => ("parameterization", json!(part)),
                _ => return Err(Invalid::new("methods", name, METHODS)),
            };
            request.insert(field.to_owned(), value);
        }
        Ok(Variant { name: name.to_owned(), request })
    }
}

/// A gate with a constant slope.
fn fixed(kind: &str, slope: f64) -> Value {
    json!({"kind": kind, "slope": slope, "anneal": 0, "polish": 0})
}

fn share(text: &str) -> Result<f64, Invalid> {
    let slope = text.parse().ok().filter(|slope| (0.0..=1.0).contains(slope));
    slope.ok_or_else(|| Invalid::new("arms", text, "a slope from 0 to 1 after the colon"))
}

fn variant(name: &str, field: &str, value: Value) -> Variant {
    Variant { name: name.to_owned(), request: Fields::from_iter([(field.to_owned(), value)]) }
}

/// Merges parts of a request, starting from the preset `maximum`: studies compare maxima unless a part sets another
/// preset.
pub fn merged(parts: &[&Fields]) -> Fields {
    let mut request = Fields::from_iter([("preset".to_owned(), json!(Preset::Maximum))]);
    request.extend(parts.iter().flat_map(|part| part.iter()).map(|(field, value)| (field.clone(), value.clone())));
    request
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_become_parts_of_requests() {
        let variants = Variants::default();
        let arm = |name: &str| Value::Object(variants.arm(name).unwrap().request);
        assert_eq!(arm("plain"), json!({"gate": "plain"}));
        assert_eq!(arm("slope:0.1"), json!({"gate": {"kind": "decoupled", "slope": 0.1, "anneal": 0, "polish": 0}}));
        assert_eq!(arm("preset:lucid"), json!({"preset": "lucid"}));
        let method = |name: &str| Value::Object(variants.method(name).unwrap().request);
        assert_eq!(method("pixel"), json!({}));
        assert_eq!(method("fourier+transforms")["parameterization"], "fourier");
        assert_eq!(method("fourier+transforms")["transforms"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn unknown_names_are_refused_with_what_there_is() {
        let variants = Variants::default();
        for name in ["plane", "slope", "slope:2", "slope:x", "decoupled:0.1", ""] {
            let invalid = variants.arm(name).unwrap_err();
            assert_eq!(invalid.field, "arms", "{name}: {invalid}");
        }
        for name in ["pixels", "pixel+", "jitter:3"] {
            assert!(variants.method(name).unwrap_err().expected.contains("fourier"), "{name}");
        }
    }

    #[test]
    fn a_file_defines_its_own_in_toml_or_json() {
        let toml = "
            base = { optimizer = 'adam' }
            [[arms]]
            name = 'steep'
            request = { gate = { kind = 'decoupled', slope = 1.0 } }
            [[methods]]
            name = 'shaken'
            request = { transforms = ['jitter:16'] }
        ";
        let json = r#"{"base": {"optimizer": "adam"},
                       "arms": [{"name": "steep", "request": {"gate": {"kind": "decoupled", "slope": 1.0}}}],
                       "methods": [{"name": "shaken", "request": {"transforms": ["jitter:16"]}}]}"#;
        let variants = Variants::parse(toml).unwrap();
        assert_eq!(variants, Variants::parse(json).unwrap());
        let (arm, method) = (variants.arm("steep").unwrap(), variants.method("shaken").unwrap());
        let request = merged(&[&variants.base, &method.request, &arm.request]);
        assert_eq!(
            Value::Object(request),
            json!({"preset": "maximum", "optimizer": "adam", "transforms": ["jitter:16"],
                   "gate": {"kind": "decoupled", "slope": 1.0}})
        );
        let lucid = variants.arm("preset:lucid").unwrap();
        assert_eq!(merged(&[&lucid.request])["preset"], "lucid", "a part may name another preset");
        assert!(Variants::parse("arm = []").unwrap_err().contains("arm"));
        let twice = r#"{"arms": [{"name": "a", "request": {}}, {"name": "a", "request": {}}]}"#;
        assert!(Variants::parse(twice).unwrap_err().contains("twice"));
    }
}
