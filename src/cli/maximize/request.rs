//! Builds the request from the arguments of `proxygrad maximize`, and translates field names in errors to flags.

use proxygrad::Invalid;
use proxygrad::maximize::{
    Animation, CoarseRequest, DiagnosticsRequest, Diversity, Filled, GateKind, JudgesRequest, Limits, OptimizerRequest,
    ParameterizationRequest, Request, SearchRequest, SpectrumKind, Start, TooLarge,
};
use proxygrad::network::{ImageSource, Model};

use super::arguments::{Maximize, Method, StartKind};
use super::files::START;

impl Maximize {
    /// The request that the arguments describe.
    pub(super) fn request(&self) -> anyhow::Result<Request> {
        let method = &self.method;
        let start = match (method.start, method.noise) {
            (Some(StartKind::Grey) | None, Some(noise)) => Some(Start::Grey { noise }),
            (Some(StartKind::Grey), None) => Some(Start::default()),
            (Some(StartKind::Uniform), None) => Some(Start::Uniform),
            (None, None) => None,
            (Some(StartKind::Uniform), Some(_)) => {
                anyhow::bail!("--noise is not supported with --start uniform");
            }
            (Some(StartKind::Image), noise) => {
                let image = ImageSource::Part(START.into());
                Some(Start::Image { image, noise: noise.unwrap_or(0.0), max_rms_distance: method.max_rms_distance })
            }
        };
        if method.max_rms_distance.is_some() && !matches!(method.start, Some(StartKind::Image)) {
            anyhow::bail!("--max-rms-distance is only supported with --start image");
        }
        let diversity = method.diversity_layer.clone().zip(method.diversity_copies);
        let diversity = diversity.map(|(layer, copies)| Diversity { layer, copies, weight: method.diversity_weight });
        let size = method.size.as_deref().map(<[usize; 2]>::try_from);
        let size = size.transpose().map_err(|_| {
            let found = format!("{:?}", method.size.as_deref().unwrap_or_default());
            Invalid::new("--size", found, "height and width, such as 224,224")
        })?;
        Ok(Request {
            model: self.model.clone(),
            objective: None,
            objectives: Some(self.units.clone()),
            preset: if let [preset] = *method.presets { Some(preset) } else { None },
            presets: given(&method.presets).filter(|presets| presets.len() > 1),
            gate: method.gate.map(Into::into),
            search: method.search(),
            steps: method.steps,
            patience: method.patience,
            optimizer: method.optimizer.map(Into::into),
            parameterization: method
                .parameterization
                .map(|kind| ParameterizationRequest { kind, ..ParameterizationRequest::default() }),
            transforms: if method.no_transforms { Some(Vec::new()) } else { given(&method.transforms) },
            regularizers: given(&method.regularizers),
            coarse: method.coarse(),
            size,
            start,
            score_every: method.score_every,
            diagnostics: Some(match method.judges.as_slice() {
                [] => DiagnosticsRequest::Measured(method.diagnostics),
                judges => DiagnosticsRequest::Judged(JudgesRequest { judges: judges.to_vec() }),
            }),
            alpha: Some(method.alpha),
            animation: self.animation.as_ref().map(|_| match method.frames {
                Some(frames) => Animation { frames },
                None => Animation::default(),
            }),
            diversity,
            seed: Some(method.seed),
        })
    }
}

impl Method {
    /// Applies single settings of gate, optimizer and parameterization on top of the preset's.
    pub(super) fn refine(&self, request: &mut Request, model: &Model, limits: &Limits) {
        let mut gate = request.filled(model, limits).gate;
        let soft = self.temperature.is_some() || self.relative.is_some();
        let strengths = [self.slope, self.temperature, self.anneal, self.polish];
        if soft || strengths.iter().any(Option::is_some) {
            // The gate auto has no such settings, so a gate that has them is meant.
            if self.gate.is_none() && gate.kind == GateKind::Auto {
                gate = if soft { GateKind::Soft.into() } else { GateKind::Decoupled.into() };
            }
            gate.slope = self.slope.or(gate.slope);
            gate.temperature = self.temperature.or(gate.temperature);
            gate.relative = self.relative.or(gate.relative);
            gate.anneal = self.anneal.or(gate.anneal);
            gate.polish = self.polish.or(gate.polish);
            request.gate = Some(gate);
        }
        let spectrum = self.spectrum.as_deref().map(|spectrum| match spectrum {
            "natural" => SpectrumKind::Natural,
            _ => SpectrumKind::Measured,
        });
        let given = self.decay_power.is_some() || self.colour.is_some();
        if given || spectrum.is_some() || self.contrast.is_some() {
            request.parameterization = Some(ParameterizationRequest {
                decay_power: self.decay_power,
                colour: self.colour.clone(),
                spectrum,
                contrast: self.contrast,
                ..request.filled(model, limits).parameterization
            });
        }
        if self.lr.is_some() || self.decay.is_some() {
            let Filled { optimizer, coarse, .. } = request.filled(model, limits);
            if let (None, Some(coarse)) = (self.lr, coarse) {
                // Another decay keeps the preset's step sizes.
                request.coarse.get_or_insert_default().lr = coarse.lr;
            }
            request.optimizer = Some(OptimizerRequest {
                lr: self.lr.or(optimizer.lr),
                decay: self.decay.or(optimizer.decay),
                ..optimizer
            });
        }
    }

    fn coarse(&self) -> Option<CoarseRequest> {
        let coarse = CoarseRequest {
            share: self.coarse_share,
            scale: self.coarse_scale,
            lr: self.coarse_lr,
            transforms: given(&self.coarse_transforms),
            regularizers: given(&self.coarse_regularizers),
        };
        (coarse != CoarseRequest::default()).then_some(coarse)
    }

    fn search(&self) -> Option<SearchRequest> {
        let arms = (!self.arms.is_empty()).then(|| self.arms.clone());
        let search = SearchRequest { arms, restarts: self.restarts, rungs: self.rungs.clone() };
        (search != SearchRequest::default()).then_some(search)
    }
}

/// Splits a request into parts within the limit on objectives, without splitting diversity groups.
pub(super) fn parts(request: Request) -> impl Iterator<Item = Request> {
    let copies = request.diversity.as_ref().map_or(1, |diversity| diversity.copies.max(1));
    let at_once = (Limits::default().objectives / copies).max(1);
    let mut left = request.objectives.clone().unwrap_or_default();
    std::iter::from_fn(move || {
        let rest = left.split_off(left.len().min(at_once));
        let part = std::mem::replace(&mut left, rest);
        (!part.is_empty()).then(|| Request { objectives: Some(part), ..request.clone() })
    })
}

/// The values of a repeatable flag, if it was given.
fn given<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// Replaces the field by its flag: `gate.slope` becomes `--slope`, `objectives[0].channel` becomes `--unit`.
pub(super) fn as_flag(invalid: &Invalid) -> Invalid {
    let field = invalid.field.split(['[', '.']).next().unwrap_or_default();
    let flag = match field {
        _ if invalid.field == "start.image" => "--start-image".to_owned(),
        "objectives" if invalid.field.ends_with(".image") => "--image".to_owned(),
        "coarse" if invalid.field.contains("transforms") => "--coarse-transform".to_owned(),
        "coarse" if invalid.field.contains("regularizers") => "--coarse-regularizer".to_owned(),
        "diagnostics" if invalid.field.contains("judges") => "--judges".to_owned(),
        "coarse" | "diversity" => format!("--{}", invalid.field.replace('.', "-")),
        "objectives" => "--unit".to_owned(),
        "search" if invalid.field.contains("arms") => "--arm".to_owned(),
        "gate" | "optimizer" | "parameterization" | "search" | "start" | "animation" => {
            format!("--{}", invalid.field.rsplit('.').next().unwrap_or(field).replace('_', "-"))
        }
        "presets" => "--preset".to_owned(),
        "transforms" => "--transform".to_owned(),
        "regularizers" => "--regularizer".to_owned(),
        field => format!("--{}", field.replace('_', "-")),
    };
    Invalid { field: flag, ..invalid.clone() }
}

/// The error for a request beyond the memory limit, with the flags that could be reduced.
pub(super) fn too_large(TooLarge { needed, allowed, fields }: TooLarge) -> anyhow::Error {
    let flag = |invalid: &Invalid| match invalid.field.as_str() {
        "search" => "--arm or --restarts".to_owned(),
        "animation.frames" => "--frames".to_owned(),
        _ => as_flag(invalid).field,
    };
    let flags: Vec<String> = fields.iter().map(|invalid| format!("{} ({})", flag(invalid), invalid.expected)).collect();
    anyhow::anyhow!(
        "the run needs up to {needed} bytes of memory, but --max-run-memory allows {allowed}: increase the limit, or \
         reduce {}",
        flags.join(" or ")
    )
}
