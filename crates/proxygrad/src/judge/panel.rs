//! A panel of judges that stimuli are shown to.

use std::collections::HashMap;
use std::sync::Arc;

use image::{DynamicImage, ImageFormat};

use super::class::class_of;
use super::features::affinity;
use super::natural::{MIN_OTHERS, Natural};
use super::verdict::Verdict;
use super::viewer::{Impression, Viewer};
use crate::Invalid;
use crate::engine::{Engine, EngineError};
use crate::network::{Model, Unit};

/// Most judges of a request or a study.
pub const MAX_JUDGES: usize = 8;

/// Why a stimulus could not be judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// A model cannot be a judge.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A judge needs more memory than is allowed.
    #[error("judge {judge} takes up to {needed} bytes of memory, but no more than {allowed} are allowed")]
    Memory {
        /// Id of the judge.
        judge: String,
        /// Bytes needed, at most.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// A judge could not be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The stimulus is not an image.
    #[error("the stimulus could not be read: {0}")]
    Stimulus(#[from] image::ImageError),
    /// An image of the calibration could not be read.
    #[error("an image of the calibration of {model} could not be read: {source}; calibrate the model again")]
    Natural {
        /// Id of the calibrated model.
        model: String,
        /// The reason.
        source: std::io::Error,
    },
}

impl From<candle_core::Error> for JudgeError {
    fn from(error: candle_core::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl JudgeError {
    /// The error for a model without anything to judge by.
    pub(super) fn no_classifier(model: &Model) -> Invalid {
        Invalid::new(
            "judges",
            &model.id,
            "a classifier: its first output must be one vector of logits or probabilities",
        )
    }
}

/// A stimulus to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Stimulus<'a> {
    /// The model that it was made with.
    pub model: &'a Model,
    /// The unit that it was made for.
    pub unit: &'a Unit,
    /// The delivered PNG.
    pub png: &'a [u8],
}

/// Judges, with the features of the natural images that they were shown last.
#[derive(Debug)]
pub struct Panel {
    judges: Vec<(Arc<Model>, LayerFeatures)>,
}

/// A judge's features of the natural patches of one layer.
#[derive(Debug, Default)]
struct LayerFeatures {
    /// Digest of the model and name of the layer.
    layer: (String, String),
    /// By channel, of its top patches in their order; channels that others are compared with may have only the first.
    channels: HashMap<usize, Vec<Vec<f32>>>,
}

/// Why judging ended early.
enum End {
    Stopped,
    Error(JudgeError),
}

impl<E: Into<JudgeError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl Panel {
    /// A panel of these judges.
    ///
    /// # Errors
    /// An [`Invalid`] `judges` if there are more than [`MAX_JUDGES`], one appears twice, or one is not a classifier of
    /// images.
    pub fn new(judges: Vec<Arc<Model>>) -> Result<Self, Invalid> {
        if judges.len() > MAX_JUDGES {
            return Err(Invalid::new("judges", format!("{} of them", judges.len()), format!("at most {MAX_JUDGES}")));
        }
        for (i, judge) in judges.iter().enumerate() {
            let located = |error: Invalid| Invalid { field: format!("judges[{i}]"), ..error };
            if judges[..i].iter().any(|earlier| earlier.id == judge.id) {
                return Err(located(Invalid::new("judges", &judge.id, "each judge once")));
            }
            if judge.network.logits().is_none() {
                return Err(located(JudgeError::no_classifier(judge)));
            }
            judge
                .preprocessing
                .check(judge.network.input_shape()[0])
                .map_err(|error| located(Invalid::new("judges", &judge.id, format!("a model of images: {error}"))))?;
        }
        Ok(Self { judges: judges.into_iter().map(|judge| (judge, LayerFeatures::default())).collect() })
    }

    /// The verdicts of every judge, in their order, on every stimulus. `None` if `should_stop`, which is asked before
    /// every pass, says so. Each judge runs within `memory` bytes.
    ///
    /// # Errors
    /// If a judge cannot run, or an image cannot be read.
    pub fn verdicts(
        &mut self,
        engine: &dyn Engine,
        stimuli: &[Stimulus<'_>],
        memory: u64,
        should_stop: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Vec<Vec<Verdict>>>, JudgeError> {
        let mut verdicts: Vec<Vec<Verdict>> = stimuli.iter().map(|_| Vec::with_capacity(self.judges.len())).collect();
        for (judge, features) in &mut self.judges {
            let mut session = Session { engine, judge, memory, viewer: None, features, should_stop };
            for (stimulus, verdicts) in stimuli.iter().zip(&mut verdicts) {
                match session.verdict(stimulus) {
                    Ok(verdict) => verdicts.push(verdict),
                    Err(End::Stopped) => return Ok(None),
                    Err(End::Error(error)) => return Err(error),
                }
            }
        }
        Ok(Some(verdicts))
    }
}

/// One judge at work.
struct Session<'a, 's> {
    engine: &'a dyn Engine,
    judge: &'a Model,
    memory: u64,
    /// The judge with its plan, once it has to see something.
    viewer: Option<Viewer<'a>>,
    features: &'a mut LayerFeatures,
    should_stop: &'s mut dyn FnMut() -> bool,
}

impl Session<'_, '_> {
    fn see(&mut self, image: DynamicImage) -> Result<Impression, End> {
        if (self.should_stop)() {
            return Err(End::Stopped);
        }
        let mut viewer = match self.viewer.take() {
            Some(viewer) => viewer,
            None => Viewer::open(self.engine, self.judge, self.memory)?,
        };
        let impression = viewer.see(image)?;
        self.viewer = Some(viewer);
        Ok(impression)
    }

    fn verdict(&mut self, stimulus: &Stimulus<'_>) -> Result<Verdict, End> {
        let image = image::load_from_memory_with_format(stimulus.png, ImageFormat::Png)?;
        let mut verdict =
            Verdict { judge: self.judge.id.clone(), rank: None, probability: None, affinity: None, passes: 0 };
        let took_part = self.judge.digest == stimulus.model.digest;
        // Of several models of a study, some may have classes that the judge does not know.
        let class = class_of(stimulus.model, stimulus.unit, self.judge).ok().flatten().filter(|_| !took_part);
        if let Some(class) = class {
            let logits = self.see(image.clone())?.logits;
            verdict.passes += 1;
            (verdict.rank, verdict.probability) = place(&logits, class).unzip();
        }
        let natural = Natural::of(stimulus.model, stimulus.unit);
        let same_size =
            |natural: &Natural<'_>| [image.height(), image.width()].map(|side| side as usize) == natural.size();
        if let Some(natural) = natural.filter(same_size) {
            let features = self.see(natural.part(&image))?.features;
            verdict.passes += 1;
            let [own, others] = self.natural_features(&natural, stimulus.model)?;
            if others.len() >= MIN_OTHERS && !features.is_empty() {
                verdict.affinity = affinity(&features, &own, &others);
            }
        }
        Ok(verdict)
    }

    /// Features of the unit's own top patches, and of the best patches of other units of the layer.
    fn natural_features(&mut self, natural: &Natural<'_>, model: &Model) -> Result<[Vec<Vec<f32>>; 2], End> {
        let layer = (model.digest.clone(), natural.layer().to_owned());
        if self.features.layer != layer {
            *self.features = LayerFeatures { layer, channels: HashMap::new() };
        }
        let unreadable = |source| JudgeError::Natural { model: model.id.clone(), source };
        let mut own = self.features.channels.remove(&natural.channel).unwrap_or_default();
        for top in natural.own().iter().skip(own.len()) {
            own.push(self.see(natural.patch(top).map_err(unreadable)?)?.features);
        }
        let mut others = Vec::new();
        for channel in natural.others() {
            let Some(best) = natural.best_of(channel) else { continue };
            let known = self.features.channels.get(&channel).and_then(|known| known.first()).cloned();
            others.push(match known {
                Some(known) => known,
                None => {
                    let found = self.see(natural.patch(best).map_err(unreadable)?)?.features;
                    self.features.channels.insert(channel, vec![found.clone()]);
                    found
                }
            });
        }
        self.features.channels.insert(natural.channel, own.clone());
        Ok([own, others])
    }
}

/// Rank, from 1, and probability of a class; `None` if a logit is not finite or there is no such class.
fn place(logits: &[f32], class: usize) -> Option<(u32, f32)> {
    let own = f64::from(*logits.get(class)?);
    let total: f64 = logits.iter().map(|&logit| (f64::from(logit) - own).exp()).sum();
    let rank = 1 + logits.iter().filter(|&&logit| f64::from(logit) > own).count();
    logits.iter().all(|logit| logit.is_finite()).then_some((rank as u32, (1.0 / total) as f32))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_class_has_a_rank_and_a_probability() {
        let logits = [1.0, 3.0, 2.0, 3.0];
        let (rank, probability) = place(&logits, 2).unwrap();
        let total: f64 = [1.0f64, 3.0, 2.0, 3.0].map(f64::exp).iter().sum();
        assert_eq!(rank, 3);
        assert!((f64::from(probability) - 2f64.exp() / total).abs() < 1e-7);
        assert_eq!(place(&logits, 3).unwrap().0, 1, "ties share the better rank");
        assert_eq!(place(&[1000.0, -1000.0], 0), Some((1, 1.0)));
        assert_eq!(place(&[1000.0, -1000.0], 1), Some((2, 0.0)));
        assert_eq!((place(&logits, 4), place(&[1.0, f32::NAN], 0)), (None, None));
    }
}
