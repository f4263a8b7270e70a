//! What certificates are measured with: passes of a batch of delivered images, counted.

use candle_core::{DType, Device, Tensor};

use crate::engine::{Forward, Gate};
use crate::maximize::error::MaximizeError;
use crate::maximize::model_runner::Passes;
use crate::maximize::objective::Scoring;
use crate::maximize::ops::placement::Arithmetic;
use crate::maximize::run::stimulus_state::Search;
use crate::maximize::task::Task;

/// Passes of the original network, for some stimuli at a time. Images are values `[C,H,W]` in [0, 1], in main memory:
/// beside a pass they cost nothing.
pub(super) struct Bench<'b, 'a> {
    passes: &'b mut Passes<'a>,
    scoring: Scoring,
    wanted: &'b mut dyn FnMut() -> bool,
    /// Passes of each image that it took to know what its objective is.
    before: Vec<u32>,
    /// Passes of all images since.
    count: u32,
}

/// Scores and where they rise.
pub(super) struct Climb {
    /// One per image.
    pub(super) scores: Vec<f64>,
    /// The true gradient of each score by its image, `[C,H,W]`.
    pub(super) gradients: Vec<Vec<f64>>,
}

impl<'b, 'a> Bench<'b, 'a> {
    /// For the stimuli of the tasks at these `places`.
    pub(super) fn new(
        passes: &'b mut Passes<'a>,
        tasks: &[Task],
        places: &[usize],
        wanted: &'b mut dyn FnMut() -> bool,
    ) -> Result<Self, MaximizeError> {
        let searches = places.iter().map(|&place| Search::new(place, &tasks[place], 0, passes.aims(&tasks[place])));
        let mut searches: Vec<Search> = searches.collect();
        passes.refer(&mut searches, tasks)?;
        let before = searches.iter().map(|search| search.passes).collect();
        let scoring = passes.scoring(&searches.iter().map(|search| &search.aims).collect::<Vec<_>>())?;
        Ok(Self { passes, scoring, wanted, before, count: 0 })
    }

    /// Passes of each image so far.
    pub(super) fn passes(&self) -> Vec<u32> {
        self.before.iter().map(|before| before + self.count).collect()
    }

    /// Whether anybody still waits for the certificates.
    pub(super) fn is_wanted(&mut self) -> bool {
        (self.wanted)()
    }

    pub(super) fn arithmetic(&self) -> Arithmetic {
        self.passes.placement.arithmetic
    }

    /// The images as one tensor `[N,C,H,W]` on the engine's device.
    pub(super) fn tensor(&self, images: &[Vec<f64>]) -> candle_core::Result<Tensor> {
        let [channels, height, width] = self.passes.image;
        let placement = &self.passes.placement;
        let values = Tensor::from_vec(images.concat(), (images.len(), channels, height, width), &Device::Cpu)?;
        values.to_dtype(placement.dtype)?.to_device(&placement.device)
    }

    /// Scores of pixels `[N,C,H,W]`.
    pub(super) fn scores(&mut self, pixels: &Tensor) -> Result<Vec<f64>, MaximizeError> {
        let outputs = self.passes.forward(pixels, Forward::Original)?;
        self.count += 1;
        values(&self.scoring.scores(&outputs)?)
    }

    /// Scores of the images, and the true gradients.
    pub(super) fn climb(&mut self, images: &[Vec<f64>]) -> Result<Climb, MaximizeError> {
        let outputs = self.passes.forward(&self.tensor(images)?, Forward::Original)?;
        let scored = self.scoring.scores_and_seeds(&outputs)?;
        let gradients = self.passes.backward(&scored.seeds, Gate::Plain, false)?;
        self.count += 2;
        let gradients = gradients.flatten_from(1)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        Ok(Climb { scores: values(&scored.scores)?, gradients: gradients.to_vec2().map_err(MaximizeError::from)? })
    }
}

fn values(scores: &Tensor) -> Result<Vec<f64>, MaximizeError> {
    Ok(scores.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
}
