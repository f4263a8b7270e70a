//! The images of a batch and what moves them.

use candle_core::{DType, Result, Tensor};

use crate::maximize::ops::placement::Arithmetic;
use crate::maximize::optimizer::{Ascent, Range};
use crate::maximize::parameterization::Painter;
use crate::maximize::projection::Leash;
use crate::maximize::regularization::Calm;
use crate::maximize::request::Settings;

/// The images that an optimizer paints: one per search of a batch.
#[derive(Debug)]
pub(in crate::maximize) struct Canvas {
    painter: Painter,
    /// What the optimizer changes: `[N,…]`, as the painter needs it.
    parameters: Tensor,
    /// Pixels `[N,C,H,W]` in [0, 1] that the parameters make.
    pixels: Tensor,
    ascent: Ascent,
    calm: Calm,
    /// Updates so far.
    done: u32,
    /// Absolute gradients by the pixels, summed over channels and steps: `[N,H,W]`, f32; only where they are asked for.
    looks: Option<Tensor>,
    leash: Option<Leash>,
}

impl Canvas {
    /// Starts from these parameters, one image each, for at most so many steps.
    pub(in crate::maximize) fn new(
        painter: Painter,
        parameters: &[Tensor],
        settings: &Settings,
        steps: u32,
        arithmetic: Arithmetic,
    ) -> Result<Self> {
        let parameters = Tensor::stack(parameters, 0)?;
        let range = if painter.is_pixel() { Range::Pixels } else { Range::Free };
        let ascent = Ascent::new(&settings.optimizer, &parameters, steps, range, arithmetic)?;
        let pixels = painter.decode(&parameters)?;
        let (n, _, height, width) = pixels.dims4()?;
        let looks = || Tensor::zeros((n, height, width), DType::F32, pixels.device());
        let looks = settings.alpha.then(looks).transpose()?;
        let calm = Calm::new(&settings.regularizers, steps, arithmetic);
        // Only pixels are ever held back: a request for more is refused.
        let leash = settings.start.leash().map(|radius| Leash::new(&pixels, radius, arithmetic));
        Ok(Self { painter, parameters, pixels, ascent, calm, done: 0, looks, leash })
    }

    /// The images as they are: `[N,C,H,W]` in [0, 1].
    pub(in crate::maximize) fn pixels(&self) -> &Tensor {
        &self.pixels
    }

    /// How much the objective looked at every pixel so far, in any unit: `[N,H,W]`, f32; none unless settings ask for it.
    pub(in crate::maximize) fn looks(&self) -> Option<&Tensor> {
        self.looks.as_ref()
    }

    /// One update, from the gradient `[N,C,H,W]` by the pixels.
    pub(in crate::maximize) fn step(&mut self, gradient: Tensor) -> Result<()> {
        if let Some(looks) = &mut self.looks {
            let strength = gradient.to_dtype(DType::F32)?.abs()?.sum(1)?;
            // What is not finite would stay for ever.
            let known = strength.lt(f32::INFINITY)?.where_cond(&strength, &strength.zeros_like()?)?;
            *looks = (&*looks + known)?;
        }
        let gradient = self.calm.hold(&self.pixels, gradient)?;
        let gradient = self.painter.gradient(&self.parameters, &self.pixels, &gradient)?;
        let parameters = self.ascent.step(&self.parameters, &gradient)?;
        self.done += 1;
        // Only pixels are ever blurred: a request for more is refused.
        self.parameters = if self.painter.is_pixel() { self.calm.blurred(parameters, self.done)? } else { parameters };
        if let Some(leash) = &self.leash {
            self.parameters = leash.pull(&self.parameters)?;
        }
        self.pixels = self.painter.decode(&self.parameters)?;
        Ok(())
    }

    /// Goes on with these images of the batch alone.
    pub(in crate::maximize) fn keep(&mut self, rows: &Tensor) -> Result<()> {
        self.parameters = self.parameters.index_select(rows, 0)?;
        self.pixels = self.pixels.index_select(rows, 0)?;
        if let Some(looks) = &mut self.looks {
            *looks = looks.index_select(rows, 0)?;
        }
        if let Some(leash) = &mut self.leash {
            leash.keep(rows)?;
        }
        self.ascent.keep(rows)
    }

    /// For every image, whether a gradient was not finite.
    pub(in crate::maximize) fn broken(&self) -> Result<Vec<bool>> {
        self.ascent.broken()
    }
}
