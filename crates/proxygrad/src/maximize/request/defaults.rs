//! Defaults of a request, taken from its preset.

use super::document::Request;
use super::preset::Preset;
use crate::maximize::coarse::CoarseRequest;
use crate::maximize::gate_schedule::{GateKind, GateRequest};
use crate::maximize::optimizer::{OptimizerKind, OptimizerRequest};
use crate::maximize::parameterization::{ParameterizationKind, ParameterizationRequest};
use crate::maximize::regularization::Regularizer;
use crate::maximize::start::Start;
use crate::maximize::transform::Transform;

/// The settings that presets determine: the request's own, and the preset's where it has none.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    /// The preset.
    pub preset: Preset,
    /// Backward rule of activations.
    pub gate: GateRequest,
    /// Number of updates of the image.
    pub steps: u32,
    /// Image parameterization.
    pub parameterization: ParameterizationRequest,
    /// Optimizer.
    pub optimizer: OptimizerRequest,
    /// Coarse stage, if there may be one.
    pub coarse: Option<CoarseRequest>,
    /// Random transforms.
    pub transforms: Vec<Transform>,
    /// The image before the first step.
    pub start: Start,
}

impl Preset {
    /// The settings of a request for images of height and width `size`, with at most `most_steps` steps of the preset.
    ///
    /// The request takes precedence: the optimizer's step size applies to the preset's own parameterization only, the
    /// coarse stage belongs to the preset's own transforms, a start from an image uses pixels, and `auto`, whose
    /// candidates run separately, is replaced by its first gate with diversity.
    pub(super) fn fill(self, request: &Request, size: [usize; 2], most_steps: u32) -> Filled {
        let choice = self.choice(size);
        let parameterization = request.parameterization.clone().unwrap_or_else(|| ParameterizationRequest {
            kind: if changes_pixels(request) { ParameterizationKind::Pixel } else { choice.parameterization },
            ..ParameterizationRequest::default()
        });
        let kind = parameterization.kind;
        let transforms = request.transforms.clone().unwrap_or(choice.transforms);
        let usual = || OptimizerKind::of(kind, !transforms.is_empty()).into();
        let own = request.transforms.is_none() && request.regularizers.is_none() && kind == choice.parameterization;
        // A preset's step sizes are those of its own optimizer.
        let usual_coarse = choice
            .coarse
            .filter(|_| own)
            .map(|coarse| CoarseRequest { lr: coarse.lr.filter(|_| request.optimizer.is_none()), ..coarse });
        let has_stages = usual_coarse.is_some();
        let coarse = match (request.coarse.clone(), usual_coarse) {
            (Some(request), Some(preset)) => Some(request.or(preset)),
            (request, preset) => request.or(preset),
        };
        let is_coarse = coarse.as_ref().is_some_and(|coarse| coarse.share != Some(0.0));
        let gate = match choice.gate.kind {
            GateKind::Auto if request.diversity.is_some() => {
                GateRequest { anneal: is_coarse.then_some(0.0), ..GateKind::Soft.into() }
            }
            _ => choice.gate,
        };
        let optimizer = choice.optimizer.filter(|_| kind == choice.parameterization).map(|optimizer| {
            let refines = has_stages && is_coarse;
            OptimizerRequest { lr: choice.refining_lr.filter(|_| refines).or(optimizer.lr), ..optimizer }
        });
        let optimizer = request.optimizer.clone().or(optimizer).unwrap_or_else(usual);
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
            coarse,
            transforms,
            start,
        }
    }
}

/// Whether a request needs the pixel parameterization: a start from an image, or blur.
fn changes_pixels(request: &Request) -> bool {
    matches!(request.start, Some(Start::Image { .. }))
        || request.regularizers.iter().flatten().any(Regularizer::is_blur)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
        for preset in Preset::ALL {
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
        for preset in Preset::ALL {
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
        assert_eq!(optimizer(json!({})).lr, Some(0.02), "after the coarse stage");
        assert_eq!(optimizer(json!({"coarse": {"share": 0}})).lr, Some(0.05));
        assert_eq!(optimizer(json!({"transforms": ["flip"]})).lr, Some(0.05));
        assert_eq!(optimizer(json!({"parameterization": {"kind": "fourier", "decay_power": 1.5}})).lr, Some(0.02));
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
        assert_eq!(diverse.gate, GateRequest { anneal: Some(0.0), ..GateKind::Soft.into() });
        let one_stage = filled(json!({"diversity": {"layer": "conv", "copies": 3}, "coarse": {"share": 0}}));
        assert_eq!(one_stage.gate, GateKind::Soft.into());
    }
}
