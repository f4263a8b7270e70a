//! A request as a client writes it, and what it means for a model.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use super::animation::Animation;
use super::diversity::Diversity;
use super::gate_schedule::{GateKind, GateRequest};
use super::halving::SearchRequest;
use super::located::{Gallery, layer_at};
use super::objective::Objective;
use super::optimizer::OptimizerRequest;
use super::parameterization::{ParameterizationKind, ParameterizationRequest};
use super::picture::Pictures;
use super::preset::{Filled, Preset};
use super::regularizer::Regularizer;
use super::run::Task;
use super::settings::Settings;
use super::start::Start;
use super::transform::Transform;
use crate::Invalid;
use crate::network::{Model, Shape};

/// A request for stimuli: a model, one or more objectives, and whatever should differ from the defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Id of the model.
    #[cfg_attr(feature = "openapi", schema(examples("fashion-resnet8"), pattern = "^[a-z0-9][a-z0-9._-]{0,63}$"))]
    pub model: String,
    /// What to maximize; either this or `objectives`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<super::ObjectiveDocument>))]
    pub objective: Option<Objective>,
    /// Several objectives: one stimulus each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<super::ObjectiveDocument>>, min_items = 1))]
    pub objectives: Option<Vec<Objective>>,
    /// What fills in the settings that are left out; `readable` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Backward rule of activations. Default: the preset's; `soft` instead of `auto` with `diversity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateRequest>,
    /// Tries several gates and starts, and goes on with the best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchRequest>,
    /// Number of updates of the image; with a search, on all candidates together. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub steps: Option<u32>,
    /// From a gradient to the next image. Default: the preset's, if the parameterization is too; else `adam` for `fourier`,
    /// `l2-ascent` for `maco`, and for pixels `momentum` without transforms and `l2-ascent` with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerRequest>,
    /// What the optimizer changes. Default: the preset's, but `pixel` for a start from an image and for the regularizer
    /// `blur`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameterization: Option<ParameterizationRequest>,
    /// Random views, applied in this order; strings such as `["jitter:8"]`. Default: the preset's; `[]` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16))]
    pub transforms: Option<Vec<Transform>>,
    /// What keeps the stimulus calm; `["tv:0.5"]`-like strings; nothing unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    pub regularizers: Option<Vec<Regularizer>>,
    /// Height and width of the stimulus; the model's own input size unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 2, max_items = 2))]
    pub size: Option<[usize; 2]>,
    /// The image before the first step. Default: the preset's, if it has one; else near-grey, but `uniform` for `maco`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// With transforms, how many steps lie between two scores of the image as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub score_every: Option<u32>,
    /// Whether to measure, behind the last step, what else can be said about the maxima: 165 more passes, counted apart;
    /// false unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<bool>,
    /// Whether the PNG is transparent where the objective hardly looked at it: by the absolute gradients summed up over
    /// the run. Its colours are the stimulus' all the same; false unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<bool>,
    /// An animated PNG of the run, beside the stimulus; none unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub animation: Option<Animation>,
    /// Several stimuli for every objective, kept unlike each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diversity: Option<Diversity>,
    /// Seed of everything random, from 0 to 2^53 - 1; 0 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(maximum = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

/// What a request means for a model: objectives that exist there, and settings with every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// One stimulus each; at least one. With diversity every objective stands here as often as it has stimuli.
    pub objectives: Vec<Objective>,
    /// Settings of all of them.
    pub settings: Settings,
    /// Seed of everything random.
    pub seed: u64,
    /// The images that objectives and settings name by their digests.
    #[serde(skip)]
    pub pictures: Pictures,
}

impl Resolved {
    /// One task per objective, in their order.
    pub fn tasks(&self) -> Vec<Task> {
        self.tasks_after(0)
    }

    /// The tasks of one part of a request that is carried out in parts: as they are in the whole request, where so many
    /// stimuli (whole groups, with diversity) come before.
    pub fn tasks_after(&self, stimuli: u64) -> Vec<Task> {
        let copies = self.settings.copies() as u64;
        let task = |(stream, objective): (u64, &Objective)| Task {
            objective: objective.clone(),
            seed: self.seed,
            stream,
            group: stream / copies,
            pictures: self.pictures.clone(),
        };
        (stimuli..).zip(&self.objectives).map(task).collect()
    }
}

/// Largest requests that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most steps of a run.
    pub steps: u32,
    /// Greatest height or width of a stimulus in pixels.
    pub side: usize,
    /// Most objectives of one request.
    pub objectives: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 4096, side: 1024, objectives: 64 }
    }
}

/// Largest seed: the largest integer that every JSON reader keeps exactly.
const LARGEST_SEED: u64 = (1 << 53) - 1;
/// Most transforms of a request.
const MOST_TRANSFORMS: usize = 16;
/// Most regularizers of a request.
const MOST_REGULARIZERS: usize = 8;
/// Default number of steps between two scores when transforms are on.
const SCORE_EVERY: u32 = 8;

impl Request {
    /// The shortest request: one objective, everything else by default.
    pub fn new(model: impl Into<String>, objective: Objective) -> Self {
        Self {
            model: model.into(),
            objective: Some(objective),
            objectives: None,
            preset: None,
            gate: None,
            search: None,
            steps: None,
            optimizer: None,
            parameterization: None,
            transforms: None,
            regularizers: None,
            size: None,
            start: None,
            score_every: None,
            certificates: None,
            alpha: None,
            animation: None,
            diversity: None,
            seed: None,
        }
    }

    /// The settings that presets decide: the request's own, the gaps filled by its preset for a model.
    pub fn filled(&self, model: &Model, limits: &Limits) -> Filled {
        let own = model.network.input_shape();
        self.preset.unwrap_or_default().fill(self, self.size.unwrap_or([own[1], own[2]]), limits.steps)
    }

    /// Checks the request against the model and the limits, and fills in every default.
    ///
    /// # Errors
    /// Names the first field that is wrong, its value and what would be right.
    pub fn resolve(&self, model: &Model, limits: &Limits) -> Result<Resolved, Invalid> {
        let filled = self.filled(model, limits);
        let mut objectives = self.objectives(limits)?;
        let count = |field: &str, value: u32, most: u32| match (1..=most).contains(&value) {
            true => Ok(value),
            false => Err(Invalid::new(field, value, format!("a whole number from 1 to {most}"))),
        };
        let steps = count("steps", filled.steps, limits.steps)?;
        let score_every = count("score_every", self.score_every.unwrap_or(SCORE_EVERY.min(steps)), limits.steps)?;
        let gate = filled.gate.resolve().map_err(|e| e.within("gate"))?;
        let search = match &self.search {
            Some(search) => Some(search.resolve(&gate, steps).map_err(|e| e.within("search"))?),
            None if gate.kind == GateKind::Auto => {
                Some(SearchRequest::default().resolve(&gate, steps).map_err(|e| e.within("search"))?)
            }
            None => None,
        };
        let input = self.input(model, limits)?;
        let parameterization = filled.parameterization.resolve(model).map_err(|e| e.within("parameterization"))?;
        let image = [input[0], input[1], input[2]];
        let optimizer = filled.optimizer.resolve(image, parameterization.kind).map_err(|e| e.within("optimizer"))?;
        let transforms = filled.transforms;
        if transforms.len() > MOST_TRANSFORMS {
            let found = format!("{} transforms", transforms.len());
            return Err(Invalid::new("transforms", found, format!("at most {MOST_TRANSFORMS}")));
        }
        let regularizers = self.regularizers.clone().unwrap_or_default();
        if regularizers.len() > MOST_REGULARIZERS {
            let found = format!("{} regularizers", regularizers.len());
            return Err(Invalid::new("regularizers", found, format!("at most {MOST_REGULARIZERS}")));
        }
        if let (false, Some(i)) =
            (parameterization.kind == ParameterizationKind::Pixel, regularizers.iter().position(Regularizer::is_blur))
        {
            let expected = "a penalty: only where the pixels themselves are changed can the image be blurred";
            return Err(Invalid::new(format!("regularizers[{i}]"), regularizers[i], expected));
        }
        let mut start = filled.start;
        if let (ParameterizationKind::Maco, Start::Grey { .. }) = (parameterization.kind, &start) {
            return Err(Invalid::new("start", "grey", "another start: images of maco have a fixed contrast"));
        }
        start.check().map_err(|e| e.within("start"))?;
        if let (false, Some(leash)) = (parameterization.kind == ParameterizationKind::Pixel, start.leash()) {
            return Err(Invalid::new("start.leash", leash, "nothing, unless the parameterization is pixel"));
        }
        let seed = self.seed.unwrap_or(0);
        if seed > LARGEST_SEED {
            return Err(Invalid::new("seed", seed, format!("a whole number from 0 to {LARGEST_SEED}")));
        }
        // All heads before any image is unpacked.
        self.image_memory(model)?;
        let mut gallery = Gallery::new([input[0], input[1], input[2]]);
        self.locate(model, &mut objectives, &input, &mut gallery)?;
        if let Start::Image { image, .. } = &mut start {
            gallery.read(image).map_err(|e| e.within("start.image"))?;
        }
        let diversity = self.diversity(model, objectives.len(), &input, limits)?;
        if diversity.is_some() && search.is_some() {
            let expected = "no search beside it: its candidates never see each other";
            return Err(Invalid::new("diversity", "diversity beside a search", expected));
        }
        let size = [input[1], input[2]];
        let certificates = self.certificates.unwrap_or(false);
        let alpha = self.alpha.unwrap_or(false);
        let animation = self.animation.map(|animation| animation.resolve(steps, objectives.len(), size)).transpose();
        let animation = animation.map_err(|e| e.within("animation"))?;
        let settings = Settings {
            preset: Some(filled.preset),
            gate,
            search,
            steps,
            optimizer,
            parameterization,
            transforms,
            regularizers,
            size,
            start,
            score_every,
            certificates,
            alpha,
            animation,
            diversity,
        };
        let copies = settings.copies();
        let objectives = objectives.into_iter().flat_map(|objective| std::iter::repeat_n(objective, copies)).collect();
        Ok(Resolved { objectives, settings, seed, pictures: gallery.pictures })
    }

    fn objectives(&self, limits: &Limits) -> Result<Vec<Objective>, Invalid> {
        match (&self.objective, &self.objectives) {
            (Some(objective), None) => Ok(vec![objective.clone()]),
            (None, Some(objectives)) if objectives.is_empty() || objectives.len() > limits.objectives => {
                let found = format!("{} objectives", objectives.len());
                Err(Invalid::new("objectives", found, format!("1 to {} objectives", limits.objectives)))
            }
            (None, Some(objectives)) => Ok(objectives.clone()),
            (None, None) => Err(Invalid::new("objective", "nothing", "a unit such as logits:0")),
            (Some(objective), Some(_)) => {
                Err(Invalid::new("objective", objective, "either objective or objectives, not both"))
            }
        }
    }

    fn diversity(
        &self,
        model: &Model,
        objectives: usize,
        input: &Shape,
        limits: &Limits,
    ) -> Result<Option<Diversity>, Invalid> {
        let Some(mut diversity) = self.diversity.clone() else { return Ok(None) };
        let (layer, _) = layer_at(model, &diversity.layer, input).map_err(|e| e.within("diversity"))?;
        diversity.layer.clone_from(&model.network.node(layer).name);
        let most = limits.objectives / objectives;
        if diversity.copies < 2 || diversity.copies > most {
            let expected = match most {
                0 | 1 => format!("fewer objectives beside it: {} stimuli in all", limits.objectives),
                most => format!("a whole number from 2 to {most}: {} stimuli in all", limits.objectives),
            };
            return Err(Invalid::new("diversity.copies", diversity.copies, expected));
        }
        if !(diversity.weight >= 0.0 && diversity.weight.is_finite()) {
            return Err(Invalid::new("diversity.weight", diversity.weight, "a finite number, 0 or more"));
        }
        Ok(Some(diversity))
    }

    /// Input `[C,H,W]` that the stimuli of this request have.
    fn input(&self, model: &Model, limits: &Limits) -> Result<Shape, Invalid> {
        let own = model.network.input_shape();
        let Some([height, width]) = self.size else { return Ok(own.clone()) };
        for (i, side) in [height, width].into_iter().enumerate() {
            if side == 0 || side > limits.side {
                let expected = format!("a whole number of pixels from 1 to {}", limits.side);
                return Err(Invalid::new(format!("size[{i}]"), side, expected));
            }
        }
        Ok(Shape::from([own[0], height, width]))
    }
}
