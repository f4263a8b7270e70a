//! Scores and gradients of a batch of final images, with a count of passes.

use candle_core::{DType, Device, Tensor};

use crate::engine::{Forward, Gate};
use crate::maximize::error::MaximizeError;
use crate::maximize::model_runner::ModelRunner;
use crate::maximize::objective::Scoring;
use crate::maximize::ops::Arithmetic;
use crate::maximize::task::Task;

/// Evaluates the original network on a batch of images: values `[C,H,W]` in [0, 1], in main memory, since copying them
/// is cheap compared with a pass.
pub(super) struct Evaluator<'b, 'a> {
    model_runner: &'b mut ModelRunner<'a>,
    scoring: Scoring,
    should_stop: &'b mut dyn FnMut() -> bool,
    /// Passes of each stimulus for its reference images.
    reference_passes: Vec<u32>,
    /// Passes of the whole batch since then.
    count: u32,
}

/// Scores and their gradients.
pub(super) struct Gradients {
    /// One per image.
    pub(super) scores: Vec<f64>,
    /// The true gradient of each score with respect to its image, `[C,H,W]`.
    pub(super) gradients: Vec<Vec<f64>>,
}

impl<'b, 'a> Evaluator<'b, 'a> {
    /// For one stimulus of each task.
    pub(super) fn new<'t>(
        model_runner: &'b mut ModelRunner<'a>,
        tasks: impl IntoIterator<Item = &'t Task>,
        should_stop: &'b mut dyn FnMut() -> bool,
    ) -> Result<Self, MaximizeError> {
        let (objectives, reference_passes): (Vec<_>, Vec<u32>) =
            model_runner.bind_objectives(tasks)?.into_iter().unzip();
        let scoring = model_runner.scoring(&objectives.iter().collect::<Vec<_>>())?;
        Ok(Self { model_runner, scoring, should_stop, reference_passes, count: 0 })
    }

    /// Passes of each stimulus so far.
    pub(super) fn passes(&self) -> Vec<u32> {
        self.reference_passes.iter().map(|passes| passes + self.count).collect()
    }

    pub(super) fn should_stop(&mut self) -> bool {
        (self.should_stop)()
    }

    pub(super) fn arithmetic(&self) -> Arithmetic {
        self.model_runner.placement.arithmetic
    }

    /// The images as one tensor `[N,C,H,W]` on the engine's device.
    pub(super) fn tensor(&self, images: &[Vec<f64>]) -> candle_core::Result<Tensor> {
        let [channels, height, width] = self.model_runner.image_shape;
        let placement = &self.model_runner.placement;
        let values = Tensor::from_vec(images.concat(), (images.len(), channels, height, width), &Device::Cpu)?;
        values.to_dtype(placement.dtype)?.to_device(&placement.device)
    }

    /// Scores of pixels `[N,C,H,W]`.
    pub(super) fn scores(&mut self, pixels: &Tensor) -> Result<Vec<f64>, MaximizeError> {
        let outputs = self.model_runner.forward(pixels, Forward::Original)?;
        self.count += 1;
        values(&self.scoring.scores(&outputs)?)
    }

    /// Scores of the images and their true gradients.
    pub(super) fn gradients(&mut self, images: &[Vec<f64>]) -> Result<Gradients, MaximizeError> {
        let outputs = self.model_runner.forward(&self.tensor(images)?, Forward::Original)?;
        let scored = self.scoring.scores_and_seeds(&outputs)?;
        let gradients = self.model_runner.backward(&scored.seeds, Gate::Plain, false)?;
        self.count += 2;
        let gradients = gradients.flatten_from(1)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        Ok(Gradients { scores: values(&scored.scores)?, gradients: gradients.to_vec2().map_err(MaximizeError::from)? })
    }
}

fn values(scores: &Tensor) -> Result<Vec<f64>, MaximizeError> {
    Ok(scores.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
}
