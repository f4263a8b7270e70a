//! Stages of a run: the coarse one, if there is one, and the one that makes the stimulus.

use std::borrow::Cow;

use candle_core::{Result, Tensor};

use crate::maximize::ops::Arithmetic;
use crate::maximize::optimizer::{Ascent, Optimizer, Range};
use crate::maximize::parameterization::ImageDecoder;
use crate::maximize::regularization::{Regularization, Regularizer};
use crate::maximize::request::Settings;
use crate::maximize::transform::Transform;

/// Steps of an optimization that share their settings.
#[derive(Debug, Clone)]
pub(super) struct Stage<'a> {
    /// The first step, counted from the start of the optimization, and the step after the last.
    pub(super) steps: [u32; 2],
    /// Height and width of the images.
    pub(super) size: [usize; 2],
    pub(super) transforms: &'a [Transform],
    optimizer: Cow<'a, Optimizer>,
    regularizers: &'a [Regularizer],
}

impl<'a> Stage<'a> {
    /// The first stage of an optimization of `steps` steps, and the last one, with the size of the stimulus, if that is
    /// another.
    pub(super) fn of(settings: &'a Settings, steps: u32) -> (Self, Option<Self>) {
        let last = |first| Self {
            steps: [first, steps],
            size: settings.size,
            transforms: &settings.transforms,
            optimizer: Cow::Borrowed(&settings.optimizer),
            regularizers: &settings.regularizers,
        };
        match settings.coarse.as_ref().map(|coarse| (coarse, coarse.steps(steps))) {
            None | Some((_, 0)) => (last(0), None),
            Some((coarse, end)) => {
                let coarse = Self {
                    steps: [0, end],
                    size: coarse.size,
                    transforms: &coarse.transforms,
                    optimizer: Cow::Owned(Optimizer { lr: coarse.lr, ..settings.optimizer.clone() }),
                    regularizers: &coarse.regularizers,
                };
                (coarse, Some(last(end)))
            }
        }
    }

    /// Optimizer and regularizers of this stage, at its start; their schedules are as long as the stage.
    pub(super) fn updates(
        &self,
        decoder: &ImageDecoder,
        parameters: &Tensor,
        arithmetic: Arithmetic,
    ) -> Result<(Ascent, Regularization)> {
        let steps = self.steps[1].saturating_sub(self.steps[0]);
        let range = if decoder.is_pixel() { Range::Pixels } else { Range::Free };
        let ascent = Ascent::new(&self.optimizer, parameters, steps, range, arithmetic)?;
        Ok((ascent, Regularization::new(self.regularizers, steps, arithmetic)))
    }
}
