//! Resolution of a request for a model: defaults, names of layers and classes, images, limits.

use serde::{Deserialize, Serialize};

use super::defaults::Filled;
use super::document::{Limits, Request};
use super::images::Gallery;
use super::settings::Settings;
use crate::Invalid;
use crate::judge::JudgeRef;
use crate::maximize::diagnostics::request::DiagnosticsRequest;
use crate::maximize::diversity::Diversity;
use crate::maximize::gate_schedule::GateKind;
use crate::maximize::halving::SearchRequest;
use crate::maximize::objective::Objective;
use crate::maximize::parameterization::ParameterizationKind;
use crate::maximize::reference_image::ReferenceImages;
use crate::maximize::regularization::Regularizer;
use crate::maximize::start::Start;
use crate::maximize::task::Task;
use crate::maximize::transform::Transform;
use crate::network::{Model, NodeId, Shape};

/// A request resolved for a model: objectives that exist there, and settings with defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// One per stimulus of a preset; at least one. With diversity an objective is repeated for each of its stimuli.
    pub objectives: Vec<Objective>,
    /// Settings of all stimuli; with several presets, those of the first.
    pub settings: Settings,
    /// Settings of the other presets of a request with several: every objective has a stimulus under each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_settings: Vec<Settings>,
    /// Random seed.
    pub seed: u64,
    /// The images that objectives and settings name by their digests.
    #[serde(skip)]
    pub reference_images: ReferenceImages,
}

impl Resolved {
    /// One task per objective, in their order; the same for every preset.
    pub fn tasks(&self) -> Vec<Task> {
        self.tasks_after(0)
    }

    /// The tasks of one part of a request that is run in parts, after `stimuli` stimuli (with diversity: whole groups)
    /// of earlier parts.
    pub fn tasks_after(&self, stimuli: u64) -> Vec<Task> {
        let copies = self.settings.copies();
        let task = |(stimulus, objective): (u64, &Objective)| {
            Task::new(objective.clone(), self.seed, stimulus, copies, self.reference_images.clone())
        };
        (stimuli..).zip(&self.objectives).map(task).collect()
    }
}

/// Largest seed: the largest integer that every JSON reader represents exactly.
const LARGEST_SEED: u64 = (1 << 53) - 1;
/// Largest number of transforms of a request.
const MOST_TRANSFORMS: usize = 16;
/// Largest number of regularizers of a request.
const MOST_REGULARIZERS: usize = 8;
/// Default number of steps between two scores when transforms are on.
const SCORE_EVERY: u32 = 8;

/// Checks the number of transforms.
pub(super) fn check_transforms(transforms: &[Transform]) -> Result<(), Invalid> {
    match transforms.len() {
        count if count > MOST_TRANSFORMS => {
            Err(Invalid::new("transforms", format!("{count} transforms"), format!("at most {MOST_TRANSFORMS}")))
        }
        _ => Ok(()),
    }
}

/// Checks the number of regularizers, and that images in this parameterization can be blurred if one is a blur.
pub(super) fn check_regularizers(regularizers: &[Regularizer], kind: ParameterizationKind) -> Result<(), Invalid> {
    if regularizers.len() > MOST_REGULARIZERS {
        let found = format!("{} regularizers", regularizers.len());
        return Err(Invalid::new("regularizers", found, format!("at most {MOST_REGULARIZERS}")));
    }
    match regularizers.iter().position(Regularizer::is_blur) {
        Some(i) if kind != ParameterizationKind::Pixel => Err(Invalid::new(
            format!("regularizers[{i}]"),
            regularizers[i],
            "a penalty: blur is only supported with parameterization pixel",
        )),
        _ => Ok(()),
    }
}

impl Request {
    /// The settings that presets determine: the request's own, and its preset's where it has none.
    pub fn filled(&self, model: &Model, limits: &Limits) -> Filled {
        let own = model.network.input_shape();
        self.preset.unwrap_or_default().fill(self, self.size.unwrap_or([own[1], own[2]]), limits.steps)
    }

    /// Resolves the request for its only preset.
    pub(super) fn resolve_one(&self, model: &Model, limits: &Limits) -> Result<Resolved, Invalid> {
        let filled = self.filled(model, limits);
        let mut objectives = self.objectives(limits)?;
        let count = |field: &str, value: u32, most: u32| match (1..=most).contains(&value) {
            true => Ok(value),
            false => Err(Invalid::new(field, value, format!("a whole number from 1 to {most}"))),
        };
        let steps = count("steps", filled.steps, limits.steps)?;
        let patience = self.patience.map(|patience| count("patience", patience, limits.steps)).transpose()?;
        let score_every = count("score_every", self.score_every.unwrap_or(SCORE_EVERY.min(steps)), limits.steps)?;
        let gate = filled.gate.resolve().map_err(|e| e.within("gate"))?;
        let input = self.input(model, limits)?;
        let parameterization = filled.parameterization.resolve(model).map_err(|e| e.within("parameterization"))?;
        let image = [input[0], input[1], input[2]];
        let optimizer = filled.optimizer.resolve(image, parameterization.kind).map_err(|e| e.within("optimizer"))?;
        check_transforms(&filled.transforms)?;
        let regularizers = self.regularizers.clone().unwrap_or_default();
        check_regularizers(&regularizers, parameterization.kind)?;
        let mut start = filled.start.clone();
        if let (ParameterizationKind::Maco, Start::Grey { .. }) = (parameterization.kind, &start) {
            return Err(Invalid::new("start", "grey", "uniform or image: parameterization maco has a fixed contrast"));
        }
        start.check().map_err(|e| e.within("start"))?;
        let distance = start.max_rms_distance().filter(|_| parameterization.kind != ParameterizationKind::Pixel);
        if let Some(distance) = distance {
            return Err(Invalid::unsupported("start.max_rms_distance", distance, "parameterization pixel"));
        }
        let seed = self.seed.unwrap_or(0);
        if seed > LARGEST_SEED {
            return Err(Invalid::new("seed", seed, format!("a whole number from 0 to {LARGEST_SEED}")));
        }
        // All headers are read before any image is decoded.
        self.image_memory(model)?;
        let mut gallery = Gallery::new([input[0], input[1], input[2]]);
        self.locate(model, &mut objectives, &input, &mut gallery)?;
        if let Start::Image { image, .. } = &mut start {
            gallery.read(image).map_err(|e| e.within("start.image"))?;
        }
        let diversity = self.diversity(model, objectives.len(), &input, limits)?;
        let coarse = self.coarse_stage(model, &filled, &objectives, &input).map_err(|e| e.within("coarse"))?;
        let search = match &self.search {
            None if gate.kind == GateKind::Auto => Some(&SearchRequest::default()),
            asked => asked.as_ref(),
        };
        let search = search.map(|search| search.resolve(&gate, steps, coarse.is_some())).transpose();
        let search = search.map_err(|e| e.within("search"))?;
        if diversity.is_some() && search.is_some() {
            return Err(Invalid::new("diversity", "diversity with a search", "either diversity or a search, not both"));
        }
        let size = [input[1], input[2]];
        let diagnostics = self.diagnostics.as_ref().is_some_and(DiagnosticsRequest::is_measured);
        let alpha = self.alpha.unwrap_or(false);
        let animation = self.animation.map(|animation| animation.resolve(steps, objectives.len(), size)).transpose();
        let animation = animation.map_err(|e| e.within("animation"))?;
        let settings = Settings {
            preset: Some(filled.preset),
            gate,
            search,
            steps,
            patience,
            optimizer,
            parameterization,
            coarse,
            transforms: filled.transforms,
            regularizers,
            size,
            start,
            score_every,
            diagnostics,
            judges: self.judges().iter().map(|id| JudgeRef::not_loaded(id)).collect(),
            alpha,
            animation,
            diversity,
        };
        let copies = settings.copies();
        let objectives = objectives.into_iter().flat_map(|objective| std::iter::repeat_n(objective, copies)).collect();
        Ok(Resolved {
            objectives,
            settings,
            other_settings: Vec::new(),
            seed,
            reference_images: gallery.reference_images,
        })
    }

    fn objectives(&self, limits: &Limits) -> Result<Vec<Objective>, Invalid> {
        match (&self.objective, &self.objectives) {
            (Some(objective), None) => Ok(vec![objective.clone()]),
            (None, Some(objectives)) if objectives.is_empty() || objectives.len() > limits.objectives => {
                let found = format!("{} objectives", objectives.len());
                Err(Invalid::new("objectives", found, format!("1 to {} objectives", limits.objectives)))
            }
            (None, Some(objectives)) => Ok(objectives.clone()),
            (None, None) => Err(Invalid::missing("objective", "logits:0")),
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
        let layer = LayerAt::new(model, &diversity.layer, input).map_err(|e| e.within("diversity"))?;
        diversity.layer.clone_from(&model.network.node(layer.id).name);
        let most = limits.objectives / objectives;
        if diversity.copies < 2 || diversity.copies > most {
            let expected = match most {
                0 | 1 => format!("fewer objectives: at most {} stimuli in total", limits.objectives),
                most => format!("a whole number from 2 to {most}: at most {} stimuli in total", limits.objectives),
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

/// A layer at some input size.
pub(super) struct LayerAt {
    id: NodeId,
    pub(super) shape: Shape,
}

impl LayerAt {
    /// The layer of this name; the error names the field `layer`, or `size` if the network does not support it.
    pub(super) fn new(model: &Model, layer: &str, input: &Shape) -> Result<Self, SizeOrLayer> {
        let network = &model.network;
        let id = network.layer(layer).map_err(SizeOrLayer::Layer)?;
        let shapes = network.shapes_at(input, &network.below(&[id])).map_err(|why| {
            let (own, found) = (network.input_shape(), format!("[{}, {}]", input[1], input[2]));
            SizeOrLayer::Size(Invalid::new("size", found, format!("[{}, {}]: {why}", own[1], own[2])))
        })?;
        Ok(Self { id, shape: shapes[&id].clone() })
    }
}

/// Why a layer cannot be used.
pub(super) enum SizeOrLayer {
    /// The size of the whole request.
    Size(Invalid),
    /// The layer itself.
    Layer(Invalid),
}

impl SizeOrLayer {
    /// The error of the request, where `field` names the layer.
    fn within(self, field: &str) -> Invalid {
        match self {
            Self::Size(error) => error,
            Self::Layer(error) => error.within(field),
        }
    }
}

impl Request {
    /// Checks objectives of this request against the model, and replaces names of classes and images in them.
    fn locate(
        &self,
        model: &Model,
        objectives: &mut [Objective],
        input: &Shape,
        gallery: &mut Gallery,
    ) -> Result<(), Invalid> {
        for (i, objective) in objectives.iter_mut().enumerate() {
            let several = objective.terms.len() > 1;
            for (j, term) in objective.terms.iter_mut().enumerate() {
                let field = self.field_of_term(i, several.then_some(j));
                let layer = LayerAt::new(model, &term.unit.layer, input).map_err(|e| e.within(&field))?;
                // A layer may have several names; use the canonical one.
                term.unit.layer.clone_from(&model.network.node(layer.id).name);
                let named = model.resolve_class(&term.unit).map_err(|e| e.within(&field))?;
                named.check(&layer.shape).map_err(|e| e.within(&field))?;
                term.unit = named;
                if let Some((kind, image)) = term.unit.image_mut() {
                    gallery.read(image).map_err(|e| e.within(&format!("{field}.{kind}.image")))?;
                }
            }
        }
        Ok(())
    }
}
