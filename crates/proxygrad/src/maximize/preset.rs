//! Presets: settings that go well together, by name.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use super::gate_schedule::{GateKind, GateRequest};
use super::optimizer::{Decay, OptimizerKind, OptimizerRequest};
use super::parameterization::{ParameterizationKind, ParameterizationRequest};
use super::regularizer::Regularizer;
use super::request::Request;
use super::start::Start;
use super::transform::{Transform, TransformKind};

/// Settings that go well together. A preset fills in only what a request leaves out; all of it is shown in the settings
/// that the request is answered with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// A picture that people, and other networks, can read: Fourier coefficients of decorrelated colours, Adam with step
    /// size 0.05, Lucid's random views scaled to the size of the image, gate `auto`, 256 steps. The default.
    #[default]
    Readable,
    /// A high maximum rather than a readable picture: pixels without random views, momentum, the gate `decoupled`,
    /// 256 steps.
    Maximum,
    /// The highest maximum: as `maximum`, with the gate `auto` and 512 steps.
    Best,
    /// A quick look: as `readable`, with 64 steps.
    Fast,
    /// As Lucid (Olah et al., "Feature Visualization", 2017) goes about it: Fourier coefficients of decorrelated
    /// colours, Adam with step size 0.05, its usual random views, 512 steps, gate `redirect`.
    Lucid,
    /// As MACO (Fel et al., arXiv:2306.06805) goes about it: phases under fixed magnitudes, Nadam with step size 1, noisy crops, 256 steps, gate `plain`.
    Maco,
    /// As the paper on ProxyGrad (Linse, Barth, Martinetz, arXiv:2410.16958): pixels, the gate `decoupled` with a fixed
    /// slope of 0.3, ascent along the normalized gradient from uniform noise, no random views, 256 steps.
    ProxygradPaper,
}

/// What a preset decides.
struct Choice {
    gate: GateRequest,
    steps: u32,
    parameterization: ParameterizationKind,
    /// The optimizer of this parameterization; the usual one unless given.
    optimizer: Option<OptimizerRequest>,
    transforms: Vec<Transform>,
    /// The usual one of the parameterization unless given.
    start: Option<Start>,
}

/// The settings that presets decide, of a request whose gaps a preset has filled.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    /// The preset.
    pub preset: Preset,
    /// Backward rule of activations.
    pub gate: GateRequest,
    /// Number of updates of the image.
    pub steps: u32,
    /// What the optimizer changes.
    pub parameterization: ParameterizationRequest,
    /// From a gradient to the next image.
    pub optimizer: OptimizerRequest,
    /// Random views.
    pub transforms: Vec<Transform>,
    /// The image before the first step.
    pub start: Start,
}

/// Side in pixels of the images that Lucid's views were chosen for.
const LUCID_SIDE: f64 = 224.0;

/// Lucid's random views of images of this side. Lucid pads by 12 and cuts 8, then 4 pixels at random, so that the image
/// moves by up to 4 and 2 pixels either way; of its 26 angles six are none.
fn lucid_views(side: f64) -> Vec<Transform> {
    let pixels = |of_lucid: f64, most: f64| (of_lucid * side / LUCID_SIDE).round().clamp(1.0, most) as u32;
    let always = |kind| Transform { kind, probability: 1.0 };
    vec![
        always(TransformKind::Pad { pixels: pixels(12.0, 64.0) }),
        always(TransformKind::Jitter { pixels: pixels(4.0, 1024.0) }),
        always(TransformKind::Scale { low: 0.9, high: 1.1 }),
        Transform { kind: TransformKind::Rotate { degrees: 10.0 }, probability: 0.8 },
        always(TransformKind::Jitter { pixels: pixels(2.0, 1024.0) }),
    ]
}

/// A fifth to a half of each side, as MACO crops.
fn maco_views() -> Vec<Transform> {
    let kinds = [TransformKind::Crop { low: 0.04, high: 0.25 }, TransformKind::Noise { sd: 0.08 }];
    kinds.map(|kind| Transform { kind, probability: 1.0 }).into()
}

impl Preset {
    /// What it decides for images of height and width `size`.
    fn choice(self, size: [usize; 2]) -> Choice {
        let optimizer = |kind, lr| Some(OptimizerRequest { kind, lr: Some(lr), decay: Some(Decay::None) });
        let readable = |steps| Choice {
            gate: GateKind::Auto.into(),
            steps,
            parameterization: ParameterizationKind::Fourier,
            optimizer: optimizer(OptimizerKind::Adam, 0.05),
            transforms: lucid_views(size[0].min(size[1]) as f64),
            start: None,
        };
        let pixels = |gate, steps| Choice {
            gate,
            steps,
            parameterization: ParameterizationKind::Pixel,
            optimizer: None,
            transforms: Vec::new(),
            start: None,
        };
        match self {
            Self::Readable => readable(256),
            Self::Fast => readable(64),
            Self::Maximum => pixels(GateKind::Decoupled.into(), 256),
            Self::Best => pixels(GateKind::Auto.into(), 512),
            Self::Lucid => {
                Choice { gate: GateKind::Redirect.into(), transforms: lucid_views(LUCID_SIDE), ..readable(512) }
            }
            Self::Maco => Choice {
                gate: GateKind::Plain.into(),
                steps: 256,
                parameterization: ParameterizationKind::Maco,
                optimizer: optimizer(OptimizerKind::Nadam, 1.0),
                transforms: maco_views(),
                start: None,
            },
            Self::ProxygradPaper => {
                let (slope, anneal, polish) = (Some(0.3), Some(0.0), Some(0.0));
                Choice {
                    optimizer: Some(OptimizerRequest {
                        kind: OptimizerKind::L2Ascent,
                        lr: None,
                        decay: Some(Decay::None),
                    }),
                    start: Some(Start::Uniform),
                    ..pixels(GateRequest { slope, anneal, polish, ..GateKind::Decoupled.into() }, 256)
                }
            }
        }
    }

    /// The settings of a request for images of height and width `size`, with at most `most_steps` steps of its own.
    ///
    /// A choice yields to what the request asks for beside it: the step size of an optimizer holds for the preset's own
    /// parameterization only, a client's image is changed pixel by pixel, and `auto`, whose candidates never see each
    /// other, is replaced by its first gate where stimuli are kept unlike each other.
    pub(super) fn fill(self, request: &Request, size: [usize; 2], most_steps: u32) -> Filled {
        let choice = self.choice(size);
        let gate = match choice.gate.kind {
            GateKind::Auto if request.diversity.is_some() => GateKind::Soft.into(),
            _ => choice.gate,
        };
        let parameterization = request.parameterization.clone().unwrap_or_else(|| ParameterizationRequest {
            kind: if changes_pixels(request) { ParameterizationKind::Pixel } else { choice.parameterization },
            ..ParameterizationRequest::default()
        });
        let kind = parameterization.kind;
        let transforms = request.transforms.clone().unwrap_or(choice.transforms);
        let usual = || OptimizerKind::of(kind, !transforms.is_empty()).into();
        let optimizer = request.optimizer.clone();
        let optimizer = optimizer.or(choice.optimizer.filter(|_| kind == choice.parameterization));
        let optimizer = optimizer.unwrap_or_else(usual);
        let start = request.start.clone().or(choice.start).unwrap_or(match kind {
            ParameterizationKind::Maco => Start::Uniform,
            _ => Start::default(),
        });
        Filled {
            preset: self,
            gate: request.gate.clone().unwrap_or(gate),
            steps: request.steps.unwrap_or(choice.steps.min(most_steps)),
            parameterization,
            optimizer,
            transforms,
            start,
        }
    }
}

/// Whether a request asks for what only pixels can do: to begin with an image of the client exactly as it is, to stay near
/// it, or to be blurred.
fn changes_pixels(request: &Request) -> bool {
    matches!(request.start, Some(Start::Image { .. }))
        || request.regularizers.iter().flatten().any(Regularizer::is_blur)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    #[cfg(feature = "clap")]
    use clap::ValueEnum;
    use serde_json::json;

    use super::*;

    const SIZE: [usize; 2] = [224, 224];

    fn request(fields: serde_json::Value) -> Request {
        let mut request = json!({"model": "model", "objective": "logits:0"});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(request).unwrap()
    }

    fn texts(transforms: &[Transform]) -> Vec<String> {
        transforms.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_preset_keeps_to_the_limit_and_to_what_a_client_may_ask_for() {
        for &preset in Preset::value_variants() {
            let filled = preset.fill(&request(json!({})), SIZE, 7);
            assert_eq!((filled.preset, filled.steps), (preset, 7));
            for text in texts(&filled.transforms) {
                assert!(text.parse::<Transform>().is_ok(), "{preset:?}: {text}");
            }
        }
    }

    #[test]
    fn what_a_request_says_is_kept() {
        let own = request(json!({"gate": "soft", "steps": 3, "optimizer": "nadam", "parameterization": "pixel",
            "transforms": ["flip"], "start": {"kind": "uniform"}}));
        for &preset in Preset::value_variants() {
            let filled = preset.fill(&own, SIZE, 4096);
            assert_eq!(Some(filled.gate), own.gate, "{preset:?}");
            assert_eq!(Some(filled.steps), own.steps, "{preset:?}");
            assert_eq!(Some(filled.optimizer), own.optimizer, "{preset:?}");
            assert_eq!(Some(filled.parameterization), own.parameterization, "{preset:?}");
            assert_eq!(Some(filled.transforms), own.transforms, "{preset:?}");
            assert_eq!(Some(filled.start), own.start, "{preset:?}");
        }
    }

    #[test]
    fn readable_pictures_have_the_views_of_lucid_at_their_own_size() {
        let views = |side| texts(&Preset::Readable.fill(&request(json!({})), [side, 2 * side], 4096).transforms);
        assert_eq!(views(224), ["pad:12", "jitter:4", "scale:0.9,1.1", "rotate:10@0.8", "jitter:2"]);
        assert_eq!(views(448), ["pad:24", "jitter:8", "scale:0.9,1.1", "rotate:10@0.8", "jitter:4"]);
        assert_eq!(views(28), ["pad:2", "jitter:1", "scale:0.9,1.1", "rotate:10@0.8", "jitter:1"]);
        assert_eq!(views(1), ["pad:1", "jitter:1", "scale:0.9,1.1", "rotate:10@0.8", "jitter:1"]);
        let lucid = Preset::Lucid.fill(&request(json!({})), [28, 28], 4096);
        assert_eq!(texts(&lucid.transforms), views(224), "lucid is what Lucid does");
    }

    #[test]
    fn the_step_size_of_a_preset_holds_for_its_own_parameterization() {
        let optimizer = |fields| Preset::Readable.fill(&request(fields), SIZE, 4096).optimizer;
        assert_eq!(optimizer(json!({})).lr, Some(0.05));
        assert_eq!(optimizer(json!({"parameterization": {"kind": "fourier", "decay_power": 1.5}})).lr, Some(0.05));
        assert_eq!(optimizer(json!({"parameterization": "pixel"})), OptimizerKind::L2Ascent.into());
        assert_eq!(optimizer(json!({"parameterization": "pixel", "transforms": []})), OptimizerKind::Momentum.into());
    }

    #[test]
    fn a_choice_yields_to_what_is_asked_for_beside_it() {
        let filled = |fields| Preset::Readable.fill(&request(fields), SIZE, 4096);
        let kind = |fields| filled(fields).parameterization.kind;
        let image = json!({"start": {"kind": "image", "image": "part:photo"}});
        assert_eq!(kind(image), ParameterizationKind::Pixel, "coefficients cannot give back black and white pixels");
        assert_eq!(kind(json!({"regularizers": ["blur:1,4"]})), ParameterizationKind::Pixel);
        assert_eq!(kind(json!({"regularizers": ["tv:1"]})), ParameterizationKind::Fourier);
        let diverse = filled(json!({"diversity": {"layer": "conv", "copies": 3}}));
        assert_eq!(diverse.gate, GateKind::Soft.into());
    }
}
