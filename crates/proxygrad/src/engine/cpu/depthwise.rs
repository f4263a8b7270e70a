//! Depthwise convolution: one filter per channel, all channels of a pixel side by side.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::bands::{Band, row_by_row};
use super::finish::{Block, Finish, load};
use super::map::{Buffer, Map};
use super::simd::{Job, Simd};
use super::slide::{self, Slide};
use super::taps::{Phase, Read};
use super::{Banded, Layout, Site};
use crate::network::{Conv, Window};

/// Neighbouring pixels computed together.
const TOGETHER: usize = 6;

/// Most sums computed together: those of [`TOGETHER`] pixels in two vectors of 16.
const SUMS: usize = TOGETHER * 2 * 16;

/// One direction of a depthwise convolution, or of an average pool (`weights` is then absent and every tap counts with
/// the share of its pool's window).
pub(super) struct Depthwise {
    phases: Vec<Phase>,
    /// For each phase whose windows slide along its rows, how.
    slides: Vec<Option<Slide>>,
    /// Filters `[taps, C]`, channels rounded up to vectors.
    filters: Filters,
}

/// The weights of the taps.
enum Filters {
    /// `[taps, C]`, channels rounded up to `pixel`: `length` values, also where they were not laid out.
    PerChannel { weights: Buffer, length: usize, pixel: usize, lanes: usize },
    /// One factor per pixel of the pool's output map.
    PerPixel { shares: Vec<f32>, of_source: bool },
}

/// Whether every channel has exactly one filter of its own.
pub(super) fn fits(conv: &Conv) -> bool {
    conv.groups == conv.out_channels() && conv.weight.shape()[1] == 1
}

impl Depthwise {
    pub(super) fn forward(conv: &Conv, outside: [usize; 2], layout: Layout) -> Self {
        Self::new(vec![Phase::forward(&conv.window, outside)], Filters::new(conv, layout))
    }

    pub(super) fn backward(conv: &Conv, inside: [usize; 2], layout: Layout) -> Self {
        Self::new(Phase::backward(&conv.window, inside), Filters::new(conv, layout))
    }

    /// The mean of windows; `shares` is one over the number of values that count, for each pixel of the pool's output.
    pub(super) fn average(window: &Window, outside: [usize; 2], shares: Vec<f32>) -> Self {
        let filters = Filters::PerPixel { shares, of_source: false };
        Self::new(vec![Phase::forward(window, outside)], filters)
    }

    /// The backward direction of [`Depthwise::average`].
    pub(super) fn average_backward(window: &Window, inside: [usize; 2], shares: Vec<f32>) -> Self {
        let filters = Filters::PerPixel { shares, of_source: true };
        Self::new(Phase::backward(window, inside), filters)
    }

    fn new(phases: Vec<Phase>, filters: Filters) -> Self {
        let slide =
            |phase| if let Filters::PerChannel { lanes, .. } = filters { Slide::new(phase, lanes) } else { None };
        Self { slides: phases.iter().map(slide).collect(), phases, filters }
    }

    /// Bytes of the filters.
    pub(super) fn bytes(&self) -> usize {
        match &self.filters {
            Filters::PerChannel { length, .. } => Buffer::bytes(*length),
            Filters::PerPixel { shares, .. } => size_of_val(&shares[..]),
        }
    }

    /// Computes `finish` from `source`.
    pub(super) fn run(&self, site: &Site<'_>, source: Map, finish: &Finish<'_>) {
        assert_eq!(source.channels, finish.to.channels);
        assert_eq!(source.images, finish.to.images);
        row_by_row(self, site, source, None, finish);
    }

    /// One row of the destination; nobody else computes it at the same time.
    fn row(&self, site: &Site<'_>, image: usize, y: usize, source: Map, finish: &Finish<'_>) {
        // All phases of a row together: they write neighbouring pixels.
        for (phase, slide) in self.phases.iter().zip(&self.slides) {
            let Some(row) = phase.row_at(y) else { continue };
            if let (Some(slide), Filters::PerChannel { weights, pixel, .. }) = (slide, &self.filters) {
                let (weights, pixel) = (weights.values(), *pixel);
                let job = slide::Row { slide, phase, weights, pixel, image, row, source, finish };
                // SAFETY: as below.
                unsafe { site.instructions.run(job) };
                continue;
            }
            let job = Row { depthwise: self, phase, image, row, source, finish };
            // SAFETY: the instructions are available; the phase's grid lies in the destination.
            unsafe { site.instructions.run(job) };
        }
    }
}

impl Banded for Depthwise {
    fn reach(&self, rows: &Range<usize>) -> Range<isize> {
        Phase::reach(&self.phases, rows)
    }

    fn band(&self, site: &Site<'_>, band: &Band, source: Map, _: Option<*mut f32>, finish: &Finish<'_>) {
        band.rows.clone().for_each(|y| self.row(site, band.image, y, source, finish));
    }
}

impl Filters {
    fn new(conv: &Conv, Layout { lanes, hollow, .. }: Layout) -> Self {
        let (channels, taps) = (conv.groups, conv.window.kernel[0] * conv.window.kernel[1]);
        let pixel = channels.div_ceil(lanes) * lanes;
        if hollow {
            return Self::PerChannel { weights: Buffer::new(0), length: taps * pixel, pixel, lanes };
        }
        let mut weights = Buffer::new(taps * pixel);
        for (i, &weight) in conv.weight.data().iter().enumerate() {
            weights.values_mut()[i % taps * pixel + i / taps] = weight;
        }
        Self::PerChannel { weights, length: taps * pixel, pixel, lanes }
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
                reads.clear();
                reads.extend(phase.reads([self.row, x], size));
                self.pixels::<S, 1, 4>(x, &reads, 0);
            }
            reads.clear();
            reads.extend(phase.reads([self.row, whole.start], size));
            let mut x = whole.start;
            while x < whole.end {
                let shift = (x - whole.start) * phase.stride[1];
                x += match whole.end - x {
                    TOGETHER.. if S::ROWS < TOGETHER => self.pixels::<S, TOGETHER, 1>(x, &reads, shift),
                    TOGETHER.. => self.pixels::<S, TOGETHER, 2>(x, &reads, shift),
                    3.. => self.pixels::<S, 3, 4>(x, &reads, shift),
                    2 => self.pixels::<S, 2, 4>(x, &reads, shift),
                    _ => self.pixels::<S, 1, 4>(x, &reads, shift),
                };
            }
        }
    }
}

impl Row<'_> {
    /// Computes `COUNT` neighbouring pixels of the grid, from column `x`, and gives `COUNT`; the first reads what `reads`
    /// says, `shift` pixels further. `VECTORS` of channels are computed together: one chain of multiply-adds alone would
    /// wait for itself.
    ///
    /// # Safety
    /// As [`Simd`]; all that is read lies on the map.
    #[inline(always)]
    unsafe fn pixels<S: Simd, const COUNT: usize, const VECTORS: usize>(
        &self,
        x: usize,
        reads: &[Read],
        shift: usize,
    ) -> usize {
        let channels = self.finish.to.channels;
        let mut c = 0;
        // SAFETY: the caller's; channels behind the last are not read from the source.
        unsafe {
            while c + VECTORS * S::LANES <= channels {
                S::call(Sums::<'_, COUNT, VECTORS, true> { row: self, x, reads, shift, channel: c });
                c += VECTORS * S::LANES;
            }
            while c + S::LANES <= channels {
                S::call(Sums::<'_, COUNT, 1, true> { row: self, x, reads, shift, channel: c });
                c += S::LANES;
            }
            if c < channels {
                S::call(Sums::<'_, COUNT, 1, false> { row: self, x, reads, shift, channel: c });
            }
        }
        COUNT
    }
}

/// `COUNT` neighbouring pixels in `VECTORS` of channels, all of which count when they are `WHOLE`.
struct Sums<'a, const COUNT: usize, const VECTORS: usize, const WHOLE: bool> {
    row: &'a Row<'a>,
    x: usize,
    reads: &'a [Read],
    shift: usize,
    channel: usize,
}

impl<const COUNT: usize, const VECTORS: usize, const WHOLE: bool> Job for Sums<'_, COUNT, VECTORS, WHOLE> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { row, x, reads, shift, channel } = self;
        let Row { depthwise, phase, source, finish, .. } = *row;
        let to = &finish.to;
        let y = phase.start[0] + row.row * phase.step[0];
        let pixel = (row.image * to.height + y) * to.width + phase.start[1] + x * phase.step[1];
        let (stride, apart) = (phase.stride[1] * source.pixel, phase.step[1]);
        let left = to.channels - channel;
        let channels = if WHOLE { VECTORS * S::LANES } else { left };
        // SAFETY: the caller's.
        unsafe {
            for i in COUNT..2 * COUNT {
                finish.prefetch::<S>(pixel + i * apart, channel, channels);
            }
            // Only formed, where only some rows are in memory.
            let image = source.at(row.image * source.size() + shift).wrapping_add(channel).cast_const();
            let mut sums = [[S::splat(0.0); VECTORS]; COUNT];
            match &depthwise.filters {
                Filters::PerChannel { weights, pixel, .. } => {
                    let weights = weights.values().as_ptr().add(channel);
                    for read in reads {
                        let from = image.wrapping_add(read.pixel * source.pixel);
                        let weights = weights.add(read.tap * pixel);
                        for v in 0..VECTORS {
                            let weight = S::load(weights.add(v * S::LANES));
                            for (i, sum) in sums.iter_mut().enumerate() {
                                let value = load::<S, WHOLE>(from.add(i * stride + v * S::LANES), left);
                                sum[v] = S::mul_add(value, weight, sum[v]);
                            }
                        }
                    }
                }
                Filters::PerPixel { shares, of_source } => {
                    for read in reads {
                        let from = image.wrapping_add(read.pixel * source.pixel);
                        for (i, sum) in sums.iter_mut().enumerate() {
                            let at = read.pixel + shift + i * phase.stride[1];
                            let share = S::splat(if *of_source { shares[at] } else { 1.0 });
                            for (v, sum) in sum.iter_mut().enumerate() {
                                let value = load::<S, WHOLE>(from.add(i * stride + v * S::LANES), left);
                                *sum = S::mul_add(value, share, *sum);
                            }
                        }
                    }
                    if !of_source {
                        for (i, sum) in sums.iter_mut().enumerate() {
                            let share = S::splat(shares[(pixel + i * apart) % to.size()]);
                            sum.iter_mut().for_each(|sum| *sum = S::mul(*sum, share));
                        }
                    }
                }
            }
            let mut line = MaybeUninit::<[f32; SUMS]>::uninit();
            let line = line.as_mut_ptr().cast::<f32>();
            let step = VECTORS * S::LANES;
            for (i, sum) in sums.iter().enumerate() {
                for (v, &sum) in sum.iter().enumerate() {
                    S::store(line.add(i * step + v * S::LANES), sum);
                }
            }
            let block = Block { apart, ..Block::row(pixel, COUNT, channel, channels) };
            finish.block::<S>(block, line, [0, step]);
        }
    }
}
