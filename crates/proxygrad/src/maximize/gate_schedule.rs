//! Gate schedules: the backward rule of activations at every step.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::Invalid;
use crate::engine::Gate;
use crate::maximize::string_or_object::{string_or_object, string_or_object_schema};

/// Families of backward rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum GateKind {
    /// The network's own gradient.
    Plain,
    /// ProxyGrad: the proxy's derivative at the original pre-activations (1 forward + 1 backward pass per step).
    Decoupled,
    /// ProxyGrad, read literally: the proxy runs its own forward pass and its exact gradient is used.
    TrueProxy,
    /// Lucid's redirected ReLU gradients in the first 16 steps, then plain.
    Redirect,
    /// A sigmoid with a temperature instead of the step function.
    Soft,
    /// Slope 1 everywhere.
    Identity,
    /// A search over several gates, within the same number of steps.
    Auto,
}

/// A gate with its strength and its schedule over a run, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct GateSchedule {
    /// The rule.
    pub kind: GateKind,
    /// Slope of the flat sides (`decoupled`, `true-proxy`), in [0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slope: Option<f32>,
    /// Width of the logistic step (`soft`), in units of the pre-activations or of their scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Whether the temperature is in units of each activation's scale (`soft`): the root mean square of its
    /// pre-activations over two images of noise, measured before the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<bool>,
    /// Share of the steps over which slope or temperature falls linearly to 0; 0 keeps it constant.
    pub anneal: f32,
    /// Share of the steps, at the end, that follow the plain gradient.
    pub polish: f32,
}

/// A gate as in a request: omitted fields get defaults. May be written as a string, its kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateRequest {
    /// The rule.
    pub kind: GateKind,
    /// Slope of the flat sides (`decoupled`, `true-proxy`), in [0, 1].
    pub slope: Option<f32>,
    /// Width of the logistic step (`soft`), greater than 0.
    pub temperature: Option<f32>,
    /// Whether the temperature is in units of each activation's scale (`soft`); default: true.
    pub relative: Option<bool>,
    /// Share of the steps over which slope or temperature falls linearly to 0, in [0, 1].
    pub anneal: Option<f32>,
    /// Share of the steps, at the end, that follow the plain gradient, in [0, 1].
    pub polish: Option<f32>,
}

/// A gate as an object.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = GateObject))]
#[serde(deny_unknown_fields)]
struct Full {
    /// The rule.
    kind: GateKind,
    /// Slope of the flat sides (`decoupled`, `true-proxy`).
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    slope: Option<f32>,
    /// Width of the logistic step (`soft`), in units of the pre-activations.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    temperature: Option<f32>,
    /// Whether the temperature is in units of each activation's scale (`soft`): the root mean square of its
    /// pre-activations over two images of noise. Default: true.
    relative: Option<bool>,
    /// Share of the steps over which slope or temperature falls linearly to 0.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    anneal: Option<f32>,
    /// Share of the steps, at the end, that follow the plain gradient.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    polish: Option<f32>,
}

string_or_object_schema!(GateRequest, GateKind, Full, "A gate: its kind, or an object; omitted fields get defaults.");

impl From<Full> for GateRequest {
    fn from(Full { kind, slope, temperature, relative, anneal, polish }: Full) -> Self {
        Self { kind, slope, temperature, relative, anneal, polish }
    }
}

impl From<GateKind> for GateRequest {
    /// The kind with default settings.
    fn from(kind: GateKind) -> Self {
        Self { kind, slope: None, temperature: None, relative: None, anneal: None, polish: None }
    }
}

impl FromStr for GateRequest {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let kind = GateKind::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text));
        let kind = kind.map_err(|_| Invalid::new("kind", text, GateKind::EXPECTED))?;
        Ok(Self::from(kind))
    }
}

impl<'de> Deserialize<'de> for GateRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string_or_object::<D, Self, Full>(deserializer, "a gate's kind as text, or an object with a kind")
    }
}

/// Steps during which [`GateKind::Redirect`] redirects, as in Lucid.
const REDIRECT_STEPS: u32 = 16;

impl GateKind {
    /// Names of all kinds, for errors.
    const EXPECTED: &'static str = "plain, decoupled, true-proxy, redirect, soft, identity or auto";

    fn has_slope(self) -> bool {
        matches!(self, Self::Decoupled | Self::TrueProxy)
    }

    fn has_course(self) -> bool {
        self.has_slope() || self == Self::Soft
    }
}

impl GateRequest {
    /// Fills in defaults.
    ///
    /// # Errors
    /// When a value is out of range or does not belong to the kind.
    pub fn resolve(&self) -> Result<GateSchedule, Invalid> {
        let kind = self.kind;
        let unused = |field: &str, given: Option<f32>, used: bool| match given {
            Some(value) if !used => Err(Invalid::new(field, value, format!("nothing: gate {kind:?} has no {field}"))),
            _ => Ok(()),
        };
        unused("slope", self.slope, kind.has_slope())?;
        unused("temperature", self.temperature, kind == GateKind::Soft)?;
        if let Some(relative) = self.relative.filter(|_| kind != GateKind::Soft) {
            return Err(Invalid::new("relative", relative, format!("nothing: gate {kind:?} has no temperature")));
        }
        unused("anneal", self.anneal, kind.has_course())?;
        unused("polish", self.polish, kind.has_course() || kind == GateKind::Identity)?;
        let share = |field: &str, value: f32| match (0.0..=1.0).contains(&value) {
            true => Ok(value),
            false => Err(Invalid::new(field, value, "a number from 0 to 1")),
        };
        let slope = kind.has_slope().then(|| share("slope", self.slope.unwrap_or(GateSchedule::SLOPE))).transpose()?;
        let relative = (kind == GateKind::Soft).then_some(self.relative.unwrap_or(true));
        let temperature = relative.map(|relative| {
            let default = if relative { GateSchedule::RELATIVE_TEMPERATURE } else { GateSchedule::TEMPERATURE };
            self.temperature.unwrap_or(default)
        });
        if let Some(value) = temperature.filter(|t| !(*t > 0.0 && t.is_finite())) {
            return Err(Invalid::new("temperature", value, "a finite number greater than 0"));
        }
        let (anneal, polish) = match kind {
            GateKind::Soft => GateSchedule::SOFT_COURSE,
            _ if kind.has_course() => GateSchedule::COURSE,
            _ => (0.0, 0.0),
        };
        let anneal = share("anneal", self.anneal.unwrap_or(anneal))?;
        let polish = share("polish", self.polish.unwrap_or(polish.min(1.0 - anneal)))?;
        if anneal + polish > 1.0 {
            return Err(Invalid::new("polish", polish, format!("at most {}, what anneal leaves", 1.0 - anneal)));
        }
        Ok(GateSchedule { kind, slope, temperature, relative, anneal, polish })
    }
}

impl GateSchedule {
    /// Default slope of the flat sides.
    pub const SLOPE: f32 = 0.3;
    /// Default width of the logistic step in units of the pre-activations.
    pub const TEMPERATURE: f32 = 1.0;
    /// Default width of the logistic step in units of each activation's scale.
    pub const RELATIVE_TEMPERATURE: f32 = 0.6;
    /// Default `anneal` and `polish` of a gate with a slope.
    pub const COURSE: (f32, f32) = (0.6, 0.1);
    /// Default `anneal` and `polish` of a gate with a temperature.
    pub const SOFT_COURSE: (f32, f32) = (0.8, 0.2);

    /// The backward rule of `step` (from 0) in a run of `steps`.
    ///
    /// [`GateKind::TrueProxy`] is the plain gradient of the proxy: its forward pass must run with
    /// [`Forward::Proxy`](crate::engine::Forward::Proxy) of the same slope.
    pub fn at(&self, step: u32, steps: u32) -> Gate {
        let progress = f64::from(step) / f64::from(steps.max(1));
        if progress >= 1.0 - f64::from(self.polish) {
            return Gate::Plain;
        }
        let left = match f64::from(self.anneal) {
            0.0 => 1.0,
            anneal => (1.0 - progress / anneal).max(0.0) as f32 as f64,
        } as f32;
        match self.kind {
            GateKind::Plain => Gate::Plain,
            GateKind::Decoupled | GateKind::TrueProxy => match left * self.slope.unwrap_or(Self::SLOPE) {
                0.0 => Gate::Plain,
                slope => Gate::Proxy { slope },
            },
            GateKind::Redirect if step < REDIRECT_STEPS => Gate::Redirect,
            GateKind::Redirect => Gate::Plain,
            GateKind::Soft => match left * self.temperature.unwrap_or(Self::TEMPERATURE) {
                0.0 => Gate::Plain,
                temperature => Gate::Soft { temperature },
            },
            GateKind::Identity => Gate::Identity,
            // Only the candidates of a search have backward rules.
            GateKind::Auto => Gate::Plain,
        }
    }

    /// The first step of the last rule in a run of `steps`: from there on it does not change.
    pub(super) fn last_change(&self, steps: u32) -> u32 {
        let at = |step| self.at(step, steps);
        (1..steps).rev().find(|&step| at(step) != at(step - 1)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn schedule(json: &str) -> GateSchedule {
        serde_json::from_str::<GateRequest>(json).unwrap().resolve().unwrap()
    }

    #[test]
    fn a_slope_fades_and_the_end_is_plain() {
        let gate = schedule(r#"{"kind": "decoupled", "slope": 0.4, "anneal": 0.5, "polish": 0.2}"#);
        assert_eq!(gate.at(0, 100), Gate::Proxy { slope: 0.4 });
        assert_eq!(gate.at(25, 100), Gate::Proxy { slope: 0.2 });
        assert_eq!(gate.at(50, 100), Gate::Plain);
        let fixed = schedule(r#"{"kind": "soft", "temperature": 2, "anneal": 0, "polish": 0.25}"#);
        assert_eq!(fixed.at(74, 100), Gate::Soft { temperature: 2.0 });
        assert_eq!(fixed.at(75, 100), Gate::Plain, "the last quarter polishes");
        assert_eq!(schedule(r#"{"kind": "identity", "polish": 0.5}"#).at(99, 100), Gate::Plain);
    }

    #[test]
    fn the_last_change_is_the_end_of_fading_or_the_first_plain_step() {
        let change = |json: &str, steps| schedule(json).last_change(steps);
        assert_eq!(change(r#"{"kind": "plain"}"#, 100), 0);
        assert_eq!(change(r#"{"kind": "decoupled", "anneal": 0, "polish": 0}"#, 100), 0);
        assert_eq!(change(r#"{"kind": "decoupled", "anneal": 0.5, "polish": 0.25}"#, 100), 50);
        assert_eq!(change(r#"{"kind": "decoupled", "anneal": 0, "polish": 0.1}"#, 100), 90);
        assert_eq!(change(r#"{"kind": "soft", "anneal": 1, "polish": 0}"#, 100), 99, "it never rests");
        assert_eq!([8, 16, 17, 100].map(|steps| change(r#"{"kind": "redirect"}"#, steps)), [0, 0, 16, 16]);
    }

    #[test]
    fn redirect_ends_after_sixteen_steps() {
        let gate = schedule(r#""redirect""#);
        assert_eq!((gate.at(15, 100), gate.at(16, 100)), (Gate::Redirect, Gate::Plain));
    }

    #[test]
    fn what_does_not_belong_to_a_gate_is_refused_by_name() {
        for (json, field) in [
            (r#"{"kind": "plain", "slope": 0.1}"#, "slope"),
            (r#"{"kind": "decoupled", "temperature": 1}"#, "temperature"),
            (r#"{"kind": "decoupled", "slope": 1.5}"#, "slope"),
            (r#"{"kind": "soft", "temperature": 0}"#, "temperature"),
            (r#"{"kind": "decoupled", "anneal": 0.8, "polish": 0.3}"#, "polish"),
            (r#"{"kind": "redirect", "anneal": 0.5}"#, "anneal"),
        ] {
            let invalid = serde_json::from_str::<GateRequest>(json).unwrap().resolve().unwrap_err();
            assert_eq!(invalid.field, field, "{json}: {invalid}");
        }
    }
}
