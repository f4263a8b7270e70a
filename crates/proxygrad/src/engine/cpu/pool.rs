//! Max pooling.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::bands::{Band, row_by_row};
use super::finish::{Block, Finish, load};
use super::map::Map;
use super::simd::{Job, Simd};
use super::taps::Phase;
use super::{Banded, Heading, Kernel, Site};
use crate::network::{Shape, Window};

/// Channels of a pixel that are computed before they are finished: whole vectors of any kind.
const TOGETHER: usize = 256;

/// Values that are computed before they are finished.
const LINE: usize = 4 * TOGETHER;

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
        let to = &finish.to;
        let whole = phase.whole(source.width);
        let mut reads = Vec::with_capacity(phase.taps.len());
        let mut x = 0;
        while x < to.width {
            if !whole.contains(&x) || x == whole.start {
                At::all(phase, [row, x], &source, &winners, &mut reads);
            }
            let shift = if whole.contains(&x) { (x - whole.start) * phase.stride[1] } else { 0 };
            let pixels = alike(x, to.width, &whole, to.channels);
            let pixel = (image * to.height + row) * to.width + x;
            // SAFETY: what is read lies on the map.
            unsafe {
                let from = source.at(image * source.size() + shift).cast_const();
                let to = winners.at(pixel);
                let steps = [phase.stride[1] * source.pixel, winners.pixel];
                let find = Largest { reads: &reads, from, to, steps };
                finish_pixels::<S>(finish, pixel, pixels.len(), 1, find);
            }
            x = pixels.end;
        }
    }
}

/// What the pixels of a pool's sink are, vector by vector.
trait Pooled {
    /// The vector of the channels from `channel`, of which `count` count when it is not `WHOLE`, of the `i`th pixel.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channels lie in the maps.
    unsafe fn vector<S: Simd, const WHOLE: bool>(&self, i: usize, channel: usize, count: usize) -> S::V;
}

/// Values of so many channels in whole vectors of any kind.
fn padded(channels: usize) -> usize {
    channels.next_multiple_of(16)
}

/// Columns of a grid that read alike, as far as their values fit the line: those whose taps all lie on the map, or one.
fn alike(x: usize, width: usize, whole: &Range<usize>, channels: usize) -> Range<usize> {
    let most = LINE / padded(channels.clamp(1, TOGETHER));
    let end = if whole.contains(&x) { whole.end.min(x + most) } else { x + 1 };
    x..end.min(width)
}

/// Computes all channels of the pixels of a row, which are `apart`.
///
/// # Safety
/// As [`Simd`]; the pixels lie in the maps of `finish` and `pooled`, and are no more than [`alike`] allows.
#[inline(always)]
unsafe fn finish_pixels<S: Simd>(finish: &Finish<'_>, pixel: usize, pixels: usize, apart: usize, pooled: impl Pooled) {
    let mut line = MaybeUninit::<[f32; LINE]>::uninit();
    let line = line.as_mut_ptr().cast::<f32>();
    let mut channel = 0;
    while channel < finish.to.channels {
        let channels = (finish.to.channels - channel).min(TOGETHER);
        let step = padded(channels);
        // SAFETY: channels behind the last are neither read nor written; the line holds whole vectors of all pixels.
        unsafe {
            for i in 0..pixels {
                let line = line.add(i * step);
                let mut c = 0;
                while c + S::LANES <= channels {
                    S::store(line.add(c), pooled.vector::<S, true>(i, channel + c, S::LANES));
                    c += S::LANES;
                }
                if c < channels {
                    S::store(line.add(c), pooled.vector::<S, false>(i, channel + c, channels - c));
                }
            }
            let block = Block { apart, ..Block::row(pixel, pixels, channel, channels) };
            finish.block::<S>(block, line, [0, step]);
        }
        channel += channels;
    }
}

/// What a pixel reads.
struct At {
    /// Index of the pixel's first value in its map.
    source: usize,
    /// The same in the map of the winners.
    winners: usize,
    /// Number of the tap, as the winners have it.
    tap: f32,
}

impl At {
    /// All that a pixel of the grid reads.
    fn all(phase: &Phase, at: [usize; 2], source: &Map, winners: &Map, all: &mut Vec<Self>) {
        all.clear();
        all.extend(phase.reads(at, [source.height, source.width]).map(|read| Self {
            source: read.pixel * source.pixel,
            winners: read.pixel * winners.pixel,
            tap: read.tap as f32,
        }));
    }
}

/// The largest value of a window; its tap is kept.
struct Largest<'a> {
    reads: &'a [At],
    /// Only formed, where only some rows are in memory.
    from: *const f32,
    /// Where the tap is kept.
    to: *mut f32,
    /// Values from one pixel to the next, in the source and where taps are kept.
    steps: [usize; 2],
}

impl Pooled for Largest<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd, const WHOLE: bool>(&self, i: usize, channel: usize, count: usize) -> S::V {
        let from = self.from.wrapping_add(i * self.steps[0] + channel);
        // SAFETY: the caller's.
        unsafe {
            let (mut largest, mut winner) = (S::splat(f32::NEG_INFINITY), S::splat(-1.0));
            for at in self.reads {
                let value = load::<S, WHOLE>(from.wrapping_add(at.source), count);
                winner = S::where_greater(value, largest, S::splat(at.tap), winner);
                largest = S::where_greater(value, largest, value, largest);
            }
            let to = self.to.add(i * self.steps[1] + channel);
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
    reads: &'a [At],
    /// As above.
    gradient: *const f32,
    winners: *const f32,
    /// Values from what one pixel reads to what the next reads, of the gradient and the winners.
    steps: [usize; 2],
}

impl Pooled for Won<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd, const WHOLE: bool>(&self, i: usize, channel: usize, count: usize) -> S::V {
        let gradient = self.gradient.wrapping_add(i * self.steps[0] + channel);
        let winners = self.winners.wrapping_add(i * self.steps[1] + channel);
        // SAFETY: the caller's.
        unsafe {
            let zero = S::splat(0.0);
            let mut sum = zero;
            for at in self.reads {
                let winner = load::<S, WHOLE>(winners.wrapping_add(at.winners), count);
                let part = load::<S, WHOLE>(gradient.wrapping_add(at.source), count);
                sum = S::add(sum, S::where_equal(winner, S::splat(at.tap), part, zero));
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
        let to = &finish.to;
        let whole = phase.whole(gradient.width);
        let mut reads = Vec::with_capacity(phase.taps.len());
        let mut x = 0;
        while x < phase.grid[1] {
            if !whole.contains(&x) || x == whole.start {
                At::all(phase, [row, x], &gradient, &winners, &mut reads);
            }
            let shift = if whole.contains(&x) { (x - whole.start) * phase.stride[1] } else { 0 };
            let pixels = alike(x, phase.grid[1], &whole, to.channels);
            let y = phase.start[0] + row * phase.step[0];
            let pixel = (image * to.height + y) * to.width + phase.start[1] + x * phase.step[1];
            // SAFETY: what is read lies on the maps.
            unsafe {
                let first = image * gradient.size() + shift;
                let (gradient_at, winners_at) = (gradient.at(first).cast_const(), winners.at(first).cast_const());
                let steps = [gradient.pixel, winners.pixel].map(|pixel| phase.stride[1] * pixel);
                let won = Won { reads: &reads, gradient: gradient_at, winners: winners_at, steps };
                finish_pixels::<S>(finish, pixel, pixels.len(), phase.step[1], won);
            }
            x = pixels.end;
        }
    }
}
