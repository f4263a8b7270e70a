//! Max pooling.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::bands::{Band, row_by_row};
use super::finish::{Block, Finish, load};
use super::map::Map;
use super::simd::{Job, Simd};
use super::taps::{Phase, Read};
use super::{Banded, Heading, Kernel, Site};
use crate::network::{Shape, Window};

/// Channels of a pixel that are computed before they are finished: whole vectors of any kind.
const TOGETHER: usize = 256;

/// Max pooling; remembers which tap won.
pub(super) struct MaxPool {
    forward: Ahead,
    backward: Back,
    /// Values of the winners: one tap number for every value of the output.
    memory: usize,
}

/// The forward pass: the largest value of each window.
struct Ahead(Phase);

/// The backward pass: each value adds the gradients of the windows that it won.
struct Back(Vec<Phase>);

impl MaxPool {
    pub(super) fn new(window: &Window, input: &Shape, output: &Shape) -> Self {
        Self {
            forward: Ahead(Phase::forward(window, [output[1], output[2]])),
            backward: Back(Phase::backward(window, [input[1], input[2]])),
            memory: output.elements(),
        }
    }
}

impl Kernel for MaxPool {
    fn memory(&self) -> usize {
        self.memory
    }

    fn bands(&self, heading: Heading) -> Option<&dyn Banded> {
        Some(match heading {
            Heading::Forward => &self.forward,
            Heading::Backward => &self.backward,
        })
    }

    fn forward(&self, site: &Site<'_>, view: &super::Ahead<'_>, finish: &Finish<'_>) {
        row_by_row(&self.forward, site, view.inputs[0], view.memory, finish);
    }

    fn backward(&self, site: &Site<'_>, _: usize, view: &super::Back<'_>, finish: &Finish<'_>) {
        row_by_row(&self.backward, site, view.gradient, view.memory, finish);
    }
}

impl Banded for Ahead {
    fn reach(&self, rows: &Range<usize>) -> Range<isize> {
        Phase::reach([&self.0], rows)
    }

    /// Of two threads that compute a row, both would write who won.
    fn closes(&self) -> bool {
        true
    }

    fn band(&self, site: &Site<'_>, band: &Band, source: Map, memory: Option<*mut f32>, finish: &Finish<'_>) {
        let (phase, image) = (&self.0, band.image);
        let Some(winners) = memory else { return };
        let winners = Map { data: winners, pixel: finish.to.channels, ..finish.to };
        for row in band.rows.clone() {
            // SAFETY: the instructions are available; nobody else writes the row.
            unsafe { site.instructions.run(Forward { phase, image, row, source, winners, finish }) };
        }
    }
}

impl Banded for Back {
    fn reach(&self, rows: &Range<usize>) -> Range<isize> {
        Phase::reach(&self.0, rows)
    }

    fn band(&self, site: &Site<'_>, band: &Band, gradient: Map, memory: Option<*mut f32>, finish: &Finish<'_>) {
        let image = band.image;
        let Some(winners) = memory else { return };
        let winners = Map { data: winners, pixel: finish.to.channels, ..gradient };
        for y in band.rows.clone() {
            // All phases of a row together: they write neighbouring pixels.
            for (phase, row) in self.0.iter().filter_map(|phase| Some((phase, phase.row_at(y)?))) {
                // SAFETY: the instructions are available; nobody else writes the row.
                unsafe { site.instructions.run(Backward { phase, image, row, gradient, winners, finish }) };
            }
        }
    }
}

/// One row of outputs.
struct Forward<'a> {
    phase: &'a Phase,
    image: usize,
    row: usize,
    source: Map,
    winners: Map,
    finish: &'a Finish<'a>,
}

impl Job for Forward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { phase, image, row, source, winners, finish } = self;
        let (to, size) = (&finish.to, [source.height, source.width]);
        let whole = phase.whole(source.width);
        let mut reads = Vec::with_capacity(phase.taps.len());
        for x in 0..to.width {
            if !whole.contains(&x) || x == whole.start {
                phase.reads([row, x], size, &mut reads);
            }
            let shift = if whole.contains(&x) { (x - whole.start) * phase.stride[1] } else { 0 };
            let pixel = (image * to.height + row) * to.width + x;
            // SAFETY: what is read lies on the map.
            unsafe {
                let from = source.at(image * source.size() + shift).cast_const();
                let to = winners.at(pixel);
                let find = Largest { reads: &reads, from, apart: source.pixel, to };
                finish_pixel::<S>(finish, pixel, find);
            }
        }
    }
}

/// What a pixel of a pool's sink is, vector by vector.
trait Pooled {
    /// The vector of the channels from `channel`, of which `count` count when it is not `WHOLE`.
    ///
    /// # Safety
    /// As [`Simd`]; the channels lie in the maps.
    unsafe fn vector<S: Simd, const WHOLE: bool>(&self, channel: usize, count: usize) -> S::V;
}

/// Computes all channels of a pixel.
///
/// # Safety
/// As [`Simd`]; the pixel lies in the maps of `finish` and `pooled`.
#[inline(always)]
unsafe fn finish_pixel<S: Simd>(finish: &Finish<'_>, pixel: usize, pooled: impl Pooled) {
    let mut line = MaybeUninit::<[f32; TOGETHER]>::uninit();
    let line = line.as_mut_ptr().cast::<f32>();
    let mut channel = 0;
    while channel < finish.to.channels {
        let channels = (finish.to.channels - channel).min(TOGETHER);
        let mut c = 0;
        // SAFETY: channels behind the last are neither read nor written; the line holds whole vectors.
        unsafe {
            while c + S::LANES <= channels {
                S::store(line.add(c), pooled.vector::<S, true>(channel + c, S::LANES));
                c += S::LANES;
            }
            if c < channels {
                S::store(line.add(c), pooled.vector::<S, false>(channel + c, channels - c));
            }
            finish.block::<S>(Block::row(pixel, 1, channel, channels), line, [0, TOGETHER]);
        }
        channel += channels;
    }
}

/// The largest value of a window; its tap is kept.
struct Largest<'a> {
    reads: &'a [Read],
    /// Only formed, where only some rows are in memory.
    from: *const f32,
    /// Values between two neighbouring pixels there.
    apart: usize,
    /// Where the tap is kept.
    to: *mut f32,
}

impl Pooled for Largest<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd, const WHOLE: bool>(&self, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let (mut largest, mut winner) = (S::splat(f32::NEG_INFINITY), S::splat(-1.0));
            for read in self.reads {
                let value = load::<S, WHOLE>(self.from.wrapping_add(read.pixel * self.apart + channel), count);
                winner = S::where_greater(value, largest, S::splat(read.tap as f32), winner);
                largest = S::where_greater(value, largest, value, largest);
            }
            let to = self.to.add(channel);
            if WHOLE {
                S::store(to, winner)
            } else {
                S::store_some(to, winner, count)
            }
            largest
        }
    }
}

/// The gradients of the windows that a pixel won.
struct Won<'a> {
    reads: &'a [Read],
    /// As above.
    gradient: *const f32,
    /// Values between two neighbouring pixels there.
    apart: usize,
    winners: *const f32,
    /// The same for the winners.
    winners_apart: usize,
}

impl Pooled for Won<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd, const WHOLE: bool>(&self, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let zero = S::splat(0.0);
            let mut sum = zero;
            for read in self.reads {
                let winner = load::<S, WHOLE>(self.winners.add(read.pixel * self.winners_apart + channel), count);
                let part = load::<S, WHOLE>(self.gradient.wrapping_add(read.pixel * self.apart + channel), count);
                sum = S::add(sum, S::where_equal(winner, S::splat(read.tap as f32), part, zero));
            }
            sum
        }
    }
}

/// One row of a phase of input gradients: each adds the gradients of the windows that it won.
struct Backward<'a> {
    phase: &'a Phase,
    image: usize,
    row: usize,
    gradient: Map,
    winners: Map,
    finish: &'a Finish<'a>,
}

impl Job for Backward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { phase, image, row, gradient, winners, finish } = self;
        let (to, size) = (&finish.to, [gradient.height, gradient.width]);
        let whole = phase.whole(gradient.width);
        let mut reads = Vec::with_capacity(phase.taps.len());
        for x in 0..phase.grid[1] {
            if !whole.contains(&x) || x == whole.start {
                phase.reads([row, x], size, &mut reads);
            }
            let shift = if whole.contains(&x) { (x - whole.start) * phase.stride[1] } else { 0 };
            let y = phase.start[0] + row * phase.step[0];
            let pixel = (image * to.height + y) * to.width + phase.start[1] + x * phase.step[1];
            // SAFETY: what is read lies on the maps.
            unsafe {
                finish.prefetch::<S>(pixel + 2 * phase.step[1], 0, to.channels);
                let first = image * gradient.size() + shift;
                let (gradient_at, winners_at) = (gradient.at(first).cast_const(), winners.at(first).cast_const());
                let won = Won {
                    reads: &reads,
                    gradient: gradient_at,
                    apart: gradient.pixel,
                    winners: winners_at,
                    winners_apart: winners.pixel,
                };
                finish_pixel::<S>(finish, pixel, won);
            }
        }
    }
}
