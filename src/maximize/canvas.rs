//! The images of a batch and what moves them.

use candle_core::{Result, Tensor};

use super::ascent::{Ascent, Range};
use super::leash::Leash;
use super::settings::Settings;

/// The images that an optimizer paints: one per search of a batch.
#[derive(Debug)]
pub(super) struct Canvas {
    /// Pixels `[N,C,H,W]` in [0, 1].
    pixels: Tensor,
    ascent: Ascent,
    leash: Option<Leash>,
}

impl Canvas {
    /// Starts from these pixels `[N,C,H,W]` in [0, 1], for at most so many steps.
    pub(super) fn new(pixels: Tensor, settings: &Settings, steps: u32) -> Result<Self> {
        let ascent = Ascent::new(&settings.optimizer, &pixels, steps, Range::Pixels)?;
        let leash = settings.start.leash().map(|radius| Leash::new(&pixels, radius));
        Ok(Self { pixels, ascent, leash })
    }

    /// The images as they are: `[N,C,H,W]` in [0, 1].
    pub(super) fn pixels(&self) -> &Tensor {
        &self.pixels
    }

    /// One update, from the gradient `[N,C,H,W]` by the pixels.
    pub(super) fn step(&mut self, gradient: &Tensor) -> Result<()> {
        self.pixels = self.ascent.step(&self.pixels, gradient)?;
        if let Some(leash) = &self.leash {
            self.pixels = leash.pull(&self.pixels)?;
        }
        Ok(())
    }

    /// Goes on with these images of the batch alone.
    pub(super) fn keep(&mut self, rows: &Tensor) -> Result<()> {
        self.pixels = self.pixels.index_select(rows, 0)?;
        if let Some(leash) = &mut self.leash {
            leash.keep(rows)?;
        }
        self.ascent.keep(rows)
    }

    /// For every image, whether a gradient other than zero ever reached it, and whether one was not finite.
    pub(super) fn fates(&self) -> Result<Vec<(bool, bool)>> {
        self.ascent.fates()
    }
}
