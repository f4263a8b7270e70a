//! Regularization of a batch of images: penalties on the gradient, and blur.

mod document;
mod penalties;
mod smooth;

use candle_core::{Result, Tensor};

pub use self::document::Regularizer;
use self::penalties::Penalties;
use crate::maximize::ops::Arithmetic;
use crate::maximize::ops::host::for_type_of;

/// The regularizers of a run; images are independent of each other.
#[derive(Debug)]
pub(super) struct Regularization {
    penalties: Penalties,
    /// Standard deviation at the start and steps from one blur to the next.
    blurs: Vec<(f32, u32)>,
    /// Steps of the run.
    steps: u32,
    arithmetic: Arithmetic,
}

impl Regularization {
    /// For a run of `steps` steps.
    pub(super) fn new(regularizers: &[Regularizer], steps: u32, arithmetic: Arithmetic) -> Self {
        let blur = |regularizer: &Regularizer| match *regularizer {
            Regularizer::Blur { sigma, every } => Some((sigma, every)),
            _ => None,
        };
        let blurs = regularizers.iter().filter_map(blur).collect();
        Self { penalties: Penalties::new(regularizers), blurs, steps, arithmetic }
    }

    /// The gradient that a step follows: the objective's with respect to the pixels `[N,C,H,W]`, minus that of the
    /// penalties. Zero or not finite where the objective's is.
    pub(super) fn apply_to_gradient(&self, pixels: &Tensor, gradient: Tensor) -> Result<Tensor> {
        if self.penalties.is_empty() {
            return Ok(gradient);
        }
        match self.arithmetic {
            Arithmetic::Host => for_type_of!(pixels, T => self.penalties.apply_on_host::<T>(pixels, &gradient)),
            Arithmetic::Device => self.penalties.apply_on_device(pixels, &gradient),
        }
    }

    /// The images `[N,C,H,W]` after `done` steps, blurred if a blur is due.
    pub(super) fn blurred(&self, pixels: Tensor, done: u32) -> Result<Tensor> {
        self.blurs.iter().try_fold(pixels, |pixels, &(sigma, every)| {
            let left = 1.0 - done as f32 / self.steps.max(1) as f32;
            if done == 0 || !done.is_multiple_of(every) || left <= 0.0 {
                return Ok(pixels);
            }
            smooth::smoothed(sigma * left, &pixels, self.arithmetic)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn blurs_come_when_they_should_and_fade() {
        let mut spot = vec![0.0; 81];
        spot[40] = 1.0;
        let spot = Tensor::from_vec(spot, (1, 1, 9, 9), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        let regularization = Regularization::new(&["blur:1,2".parse().unwrap()], 8, Arithmetic::Host);
        let peak = |done| {
            let blurred = regularization.blurred(spot.clone(), done).unwrap();
            blurred.max_all().unwrap().to_scalar::<f64>().unwrap()
        };
        assert_eq!([peak(0), peak(1), peak(3), peak(8)], [1.0; 4], "not now, and not by nothing");
        assert!(peak(2) < 0.5 && peak(2) < peak(4) && peak(4) < peak(6) && peak(6) < 1.0);
    }
}
