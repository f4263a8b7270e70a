//! Presets: settings that go well together, by name.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::gate_schedule::{GateKind, GateRequest};
use super::optimizer::{Decay, OptimizerKind, OptimizerRequest};
use super::parameterization::{ParameterizationKind, ParameterizationRequest};
use super::request::Request;
use super::start::Start;

/// Settings that go well together. A preset fills in only what a request leaves out; all of it is shown in the settings
/// that the request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// As Lucid (Olah et al., "Feature Visualization", 2017) goes about it: Fourier coefficients of decorrelated
    /// colours, Adam with step size 0.05, its usual random
    /// views, 512 steps, gate `redirect`.
    Lucid,
    /// As MACO (Fel et al., arXiv:2306.06805) goes about it: phases under fixed magnitudes, Nadam with step size 1, noisy crops, 256 steps, gate `plain`.
    Maco,
    /// As the paper on ProxyGrad (Linse, Barth, Martinetz, arXiv:2410.16958): the gate `decoupled` with a fixed slope of
    /// 0.3, ascent along the normalized gradient from uniform noise, no random views.
    ProxygradPaper,
    /// A sixth of the usual number of steps.
    Fast,
    /// The highest maximum: the gate `auto` within twice the usual number of steps.
    Best,
}

/// What a preset decides; the rest is left to the defaults.
#[derive(Default)]
struct Choice {
    gate: Option<GateRequest>,
    steps: Option<u32>,
    optimizer: Option<OptimizerRequest>,
    parameterization: Option<ParameterizationKind>,
    transforms: &'static [&'static str],
    start: Option<Start>,
}

/// Lucid pads by 12 and cuts 8, then 4 pixels at random, so that the image moves by up to 4 and 2 pixels either way; of its
/// 26 angles six are none.
const LUCID: &[&str] = &["pad:12", "jitter:4", "scale:0.9,1.1", "rotate:10@0.8", "jitter:2"];

/// A fifth to a half of each side.
const MACO: &[&str] = &["crop:0.04,0.25", "noise:0.08"];

impl Preset {
    fn choice(self) -> Choice {
        let optimizer = |kind, lr, decay| Some(OptimizerRequest { kind, lr, decay: Some(decay) });
        match self {
            Self::Lucid => Choice {
                gate: Some(GateKind::Redirect.into()),
                steps: Some(512),
                optimizer: optimizer(OptimizerKind::Adam, Some(0.05), Decay::None),
                parameterization: Some(ParameterizationKind::Fourier),
                transforms: LUCID,
                ..Choice::default()
            },
            Self::Maco => Choice {
                gate: Some(GateKind::Plain.into()),
                steps: Some(256),
                optimizer: optimizer(OptimizerKind::Nadam, Some(1.0), Decay::None),
                parameterization: Some(ParameterizationKind::Maco),
                transforms: MACO,
                ..Choice::default()
            },
            Self::ProxygradPaper => Choice {
                gate: Some(GateRequest {
                    slope: Some(0.3),
                    anneal: Some(0.0),
                    polish: Some(0.0),
                    ..GateKind::Decoupled.into()
                }),
                optimizer: optimizer(OptimizerKind::L2Ascent, None, Decay::None),
                start: Some(Start::Uniform),
                ..Choice::default()
            },
            Self::Fast => Choice { steps: Some(40), ..Choice::default() },
            Self::Best => Choice { gate: Some(GateKind::Auto.into()), steps: Some(512), ..Choice::default() },
        }
    }

    /// The gate that it chooses, if it does.
    pub fn gate(self) -> Option<GateRequest> {
        self.choice().gate
    }

    /// The optimizer that it chooses, if it does.
    pub fn optimizer(self) -> Option<OptimizerRequest> {
        self.choice().optimizer
    }

    /// What it lets the optimizer change, if it says so.
    pub fn parameterization(self) -> Option<ParameterizationKind> {
        self.choice().parameterization
    }

    /// The request with what it leaves out filled in; at most `most_steps` steps.
    pub(super) fn fill(self, request: &Request, most_steps: u32) -> Request {
        let choice = self.choice();
        let transforms = || choice.transforms.iter().filter_map(|text| FromStr::from_str(text).ok()).collect();
        let mut filled = request.clone();
        filled.gate = filled.gate.or(choice.gate);
        filled.steps = filled.steps.or(choice.steps.map(|steps| steps.min(most_steps)));
        filled.optimizer = filled.optimizer.or(choice.optimizer);
        let parameterization = |kind| ParameterizationRequest { kind, ..ParameterizationRequest::default() };
        filled.parameterization = filled.parameterization.or(choice.parameterization.map(parameterization));
        filled.transforms = filled.transforms.or_else(|| Some(transforms()));
        filled.start = filled.start.or(choice.start);
        filled
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn presets_fill_in_what_is_left_out_and_nothing_else() {
        let bare = Request::new("model", "logits:0".parse().unwrap());
        for preset in Preset::value_variants() {
            let filled = preset.fill(&bare, 4096);
            let chosen = preset.choice();
            let names: Vec<String> = filled.transforms.unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(names, chosen.transforms, "{preset:?}: every transform is one");
            assert_eq!((filled.gate, filled.steps), (chosen.gate, chosen.steps));
            assert!(preset.fill(&bare, 7).steps.is_none_or(|steps| steps <= 7), "{preset:?} keeps to the limit");
        }
        let mut own = bare.clone();
        own.gate = Some(GateKind::Soft.into());
        own.steps = Some(3);
        own.optimizer = Some(OptimizerKind::Nadam.into());
        own.parameterization = Some(ParameterizationRequest::default());
        own.transforms = Some(Vec::new());
        own.start = Some(Start::Uniform);
        for preset in Preset::value_variants() {
            assert_eq!(preset.fill(&own, 4096), own, "{preset:?}");
        }
    }
}
