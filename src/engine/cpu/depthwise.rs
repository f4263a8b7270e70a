//! Depthwise convolution: one filter per channel, all channels of a pixel side by side.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use super::Site;
use super::elementwise::load;
use super::finish::Finish;
use super::map::{Buffer, Map};
use super::simd::{Job, Simd};
use super::taps::{Phase, Tap};
use crate::network::{Conv, Window};

/// Neighbouring pixels computed together.
const TOGETHER: usize = 6;

/// One direction of a depthwise convolution, or of an average pool (`weights` is then absent and every tap counts with
/// the share of its pool's window).
pub(super) struct Depthwise {
    phases: Vec<Phase>,
    /// Filters `[taps, C]`, channels rounded up to vectors.
    filters: Filters,
}

/// The weights of the taps.
enum Filters {
    /// `[taps, C]`, channels rounded up to `pixel`.
    PerChannel { weights: Buffer, pixel: usize },
    /// One factor per pixel of the pool's output map.
    PerPixel { shares: Vec<f32>, of_source: bool },
}

/// Whether every channel has exactly one filter of its own.
pub(super) fn fits(conv: &Conv) -> bool {
    conv.groups == conv.out_channels() && conv.weight.shape()[1] == 1
}

impl Depthwise {
    pub(super) fn forward(conv: &Conv, outside: [usize; 2], lanes: usize) -> Self {
        Self { phases: vec![Phase::forward(&conv.window, outside)], filters: Filters::new(conv, lanes) }
    }

    pub(super) fn backward(conv: &Conv, inside: [usize; 2], lanes: usize) -> Self {
        Self { phases: Phase::backward(&conv.window, inside), filters: Filters::new(conv, lanes) }
    }

    /// The mean of windows; `shares` is one over the number of values that count, for each pixel of the pool's output.
    pub(super) fn average(window: &Window, outside: [usize; 2], shares: Vec<f32>) -> Self {
        let filters = Filters::PerPixel { shares, of_source: false };
        Self { phases: vec![Phase::forward(window, outside)], filters }
    }

    /// The backward direction of [`Depthwise::average`].
    pub(super) fn average_backward(window: &Window, inside: [usize; 2], shares: Vec<f32>) -> Self {
        let filters = Filters::PerPixel { shares, of_source: true };
        Self { phases: Phase::backward(window, inside), filters }
    }

    /// Computes `finish` from `source`.
    pub(super) fn run(&self, site: &Site<'_>, source: Map, finish: &Finish<'_>) {
        assert_eq!(source.channels, finish.to.channels);
        assert_eq!(source.images, finish.to.images);
        let rows: usize = self.phases.iter().map(|phase| phase.grid[0]).sum();
        site.member.each(source.images * rows, |piece| {
            let (image, mut row) = (piece / rows, piece % rows);
            for phase in &self.phases {
                if row < phase.grid[0] {
                    let job = Row { depthwise: self, phase, image, row, source, finish };
                    // SAFETY: the instructions are available; the phase's grid lies in the destination; no two pieces
                    // write the same row of it.
                    unsafe { site.instructions.run(job) };
                    break;
                }
                row -= phase.grid[0];
            }
        });
    }
}

impl Filters {
    fn new(conv: &Conv, lanes: usize) -> Self {
        let (channels, taps) = (conv.groups, conv.window.kernel[0] * conv.window.kernel[1]);
        let pixel = channels.div_ceil(lanes) * lanes;
        let mut weights = Buffer::new(taps * pixel);
        for (i, &weight) in conv.weight.data().iter().enumerate() {
            weights.values_mut()[i % taps * pixel + i / taps] = weight;
        }
        Self::PerChannel { weights, pixel }
    }
}

/// One row of a phase's grid.
struct Row<'a> {
    depthwise: &'a Depthwise,
    phase: &'a Phase,
    image: usize,
    row: usize,
    source: Map,
    finish: &'a Finish<'a>,
}

impl Job for Row<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (phase, width) = (self.phase, self.phase.grid[1]);
        let offsets = || phase.taps.iter().map(|tap| tap.offset[1]);
        let (left, right) = (offsets().min().unwrap_or(0), offsets().max().unwrap_or(0));
        // Columns of the grid whose taps all lie on the map.
        let stride = phase.stride[1];
        let first = (-left).max(0).unsigned_abs().div_ceil(stride).min(width);
        let room = self.source.width as isize - right;
        let last = if room > 0 { room.unsigned_abs().div_ceil(stride).min(width).max(first) } else { first };
        // SAFETY: whole groups of pixels only between the borders.
        unsafe {
            for x in 0..first {
                self.pixels::<S, 1>(x, false);
            }
            let mut x = first;
            while x + TOGETHER <= last {
                self.pixels::<S, TOGETHER>(x, true);
                x += TOGETHER;
            }
            while x + 2 <= last {
                self.pixels::<S, 2>(x, true);
                x += 2;
            }
            for x in x..width {
                self.pixels::<S, 1>(x, false);
            }
        }
    }
}

impl Row<'_> {
    /// Computes `COUNT` neighbouring pixels of the grid, from column `x`.
    ///
    /// # Safety
    /// As [`Simd`]; when `inside`, all taps of all these columns lie on the map.
    #[inline(always)]
    unsafe fn pixels<S: Simd, const COUNT: usize>(&self, x: usize, inside: bool) {
        let Self { depthwise, phase, source, finish, .. } = *self;
        let to = &finish.to;
        let y = phase.start[0] + self.row * phase.step[0];
        let pixel = (self.image * to.height + y) * to.width + phase.start[1] + x * phase.step[1];
        let stride = phase.stride[1];
        let mut c = 0;
        while c < to.channels {
            let count = (to.channels - c).min(S::LANES);
            // SAFETY: the caller's; channels behind the last are not read from the source.
            unsafe {
                let mut sums = [S::splat(0.0); COUNT];
                for tap in &phase.taps {
                    let Some((row, column)) = self.source_of(tap, x, inside) else { continue };
                    let from = (self.image * source.height + row) * source.width + column;
                    match &depthwise.filters {
                        Filters::PerChannel { weights, pixel } => {
                            let weight = S::load(weights.values().as_ptr().add(tap.index * pixel + c));
                            for (i, sum) in sums.iter_mut().enumerate() {
                                *sum = S::mul_add(load::<S>(&source, from + i * stride, c, count), weight, *sum);
                            }
                        }
                        Filters::PerPixel { shares, of_source: true } => {
                            for (i, sum) in sums.iter_mut().enumerate() {
                                let share = shares[row * source.width + column + i * stride];
                                *sum =
                                    S::mul_add(load::<S>(&source, from + i * stride, c, count), S::splat(share), *sum);
                            }
                        }
                        Filters::PerPixel { of_source: false, .. } => {
                            for (i, sum) in sums.iter_mut().enumerate() {
                                *sum = S::add(load::<S>(&source, from + i * stride, c, count), *sum);
                            }
                        }
                    }
                }
                for (i, &sum) in sums.iter().enumerate() {
                    let pixel = pixel + i * phase.step[1];
                    let sum = match &depthwise.filters {
                        Filters::PerPixel { shares, of_source: false } => {
                            S::mul(sum, S::splat(shares[pixel % to.size()]))
                        }
                        _ => sum,
                    };
                    finish.vector::<S>(pixel, c, sum, count);
                }
            }
            c += S::LANES;
        }
    }

    /// Row and column of the source that a tap reads for column `x` of the grid, when it lies on the map.
    #[inline(always)]
    fn source_of(&self, tap: &Tap, x: usize, inside: bool) -> Option<(usize, usize)> {
        let row = self.phase.source(0, self.row, tap, self.source.height)?;
        if inside {
            return Some((row, (tap.offset[1] + (x * self.phase.stride[1]) as isize).unsigned_abs()));
        }
        Some((row, self.phase.source(1, x, tap, self.source.width)?))
    }
}
