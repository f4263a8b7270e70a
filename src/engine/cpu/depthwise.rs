//! Depthwise convolution: one filter per channel, all channels of a pixel side by side.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use super::Site;
use super::finish::Finish;
use super::map::{Buffer, Map};
use super::simd::{Job, Simd};
use super::taps::{Phase, Read};
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
        let rows = finish.to.height;
        site.member.each(source.images * rows, |piece| {
            let (image, y) = (piece / rows, piece % rows);
            // All phases of a row together: they write neighbouring pixels.
            for (phase, row) in self.phases.iter().filter_map(|phase| Some((phase, phase.row_at(y)?))) {
                let job = Row { depthwise: self, phase, image, row, source, finish };
                // SAFETY: the instructions are available; the phase's grid lies in the destination; no two pieces write
                // the same row of it.
                unsafe { site.instructions.run(job) };
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
        let size = [self.source.height, self.source.width];
        let whole = phase.whole(self.source.width);
        let mut reads = Vec::with_capacity(phase.taps.len());
        // SAFETY: groups of pixels only between the borders, where all read alike.
        unsafe {
            for x in (0..whole.start).chain(whole.end..width) {
                phase.reads([self.row, x], size, &mut reads);
                self.pixels::<S, 1>(x, &reads, 0);
            }
            phase.reads([self.row, whole.start], size, &mut reads);
            let mut x = whole.start;
            while x < whole.end {
                let shift = (x - whole.start) * phase.stride[1];
                x += match whole.end - x {
                    TOGETHER.. => self.pixels::<S, TOGETHER>(x, &reads, shift),
                    3.. => self.pixels::<S, 3>(x, &reads, shift),
                    2 => self.pixels::<S, 2>(x, &reads, shift),
                    _ => self.pixels::<S, 1>(x, &reads, shift),
                };
            }
        }
    }
}

impl Row<'_> {
    /// Computes `COUNT` neighbouring pixels of the grid, from column `x`, and gives `COUNT`; the first reads what `reads`
    /// says, `shift` pixels further.
    ///
    /// # Safety
    /// As [`Simd`]; all that is read lies on the map.
    #[inline(always)]
    unsafe fn pixels<S: Simd, const COUNT: usize>(&self, x: usize, reads: &[Read], shift: usize) -> usize {
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
                let image = source.at(self.image * source.size() + shift).add(c).cast_const();
                let mut sums = [S::splat(0.0); COUNT];
                match &depthwise.filters {
                    Filters::PerChannel { weights, pixel } => {
                        let weights = weights.values().as_ptr().add(c);
                        for read in reads {
                            let from = image.add(read.pixel * source.pixel);
                            let weight = S::load(weights.add(read.tap * pixel));
                            for (i, sum) in sums.iter_mut().enumerate() {
                                let value = S::load_up_to(from.add(i * stride * source.pixel), count);
                                *sum = S::mul_add(value, weight, *sum);
                            }
                        }
                    }
                    Filters::PerPixel { shares, of_source } => {
                        for read in reads {
                            let from = image.add(read.pixel * source.pixel);
                            for (i, sum) in sums.iter_mut().enumerate() {
                                let share = if *of_source { shares[read.pixel + shift + i * stride] } else { 1.0 };
                                let value = S::load_up_to(from.add(i * stride * source.pixel), count);
                                *sum = S::mul_add(value, S::splat(share), *sum);
                            }
                        }
                    }
                }
                for i in COUNT..2 * COUNT {
                    finish.prefetch::<S>(pixel + i * phase.step[1], c, count);
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
        COUNT
    }
}
