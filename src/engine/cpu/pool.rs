//! Max pooling.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use super::elementwise::load;
use super::finish::Finish;
use super::map::Map;
use super::simd::{Job, Simd};
use super::taps::Phase;
use super::{Ahead, Back, Kernel, Site};
use crate::network::{Shape, Window};

/// Max pooling; remembers which tap won.
pub(super) struct MaxPool {
    forward: Phase,
    backward: Vec<Phase>,
    /// Values of the winners: one tap number for every value of the output.
    memory: usize,
}

impl MaxPool {
    pub(super) fn new(window: &Window, input: &Shape, output: &Shape) -> Self {
        Self {
            forward: Phase::forward(window, [output[1], output[2]]),
            backward: Phase::backward(window, [input[1], input[2]]),
            memory: output.elements(),
        }
    }
}

impl Kernel for MaxPool {
    fn memory(&self) -> usize {
        self.memory
    }

    fn forward(&self, site: &Site<'_>, view: &Ahead<'_>, finish: &Finish<'_>) {
        let (source, rows) = (view.inputs[0], self.forward.grid[0]);
        let Some(winners) = view.memory else { return };
        let winners = Map { data: winners, pixel: finish.to.channels, ..finish.to };
        site.member.each(source.images * rows, |piece| {
            let (image, row) = (piece / rows, piece % rows);
            // SAFETY: the instructions are available; no two pieces write the same row.
            unsafe { site.instructions.run(Forward { phase: &self.forward, image, row, source, winners, finish }) };
        });
    }

    fn backward(&self, site: &Site<'_>, _: usize, view: &Back<'_>, finish: &Finish<'_>) {
        let rows = finish.to.height;
        let Some(winners) = view.memory else { return };
        let (gradient, channels) = (view.gradient, finish.to.channels);
        let winners = Map { data: winners, pixel: channels, ..gradient };
        site.member.each(gradient.images * rows, |piece| {
            let (image, y) = (piece / rows, piece % rows);
            // All phases of a row together: they write neighbouring pixels.
            for (phase, row) in self.backward.iter().filter_map(|phase| Some((phase, phase.row_at(y)?))) {
                // SAFETY: the instructions are available; no two pieces write the same row.
                unsafe { site.instructions.run(Backward { phase, image, row, gradient, winners, finish }) };
            }
        });
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
            let mut c = 0;
            while c < to.channels {
                let count = (to.channels - c).min(S::LANES);
                // SAFETY: what is read lies on the map, channels behind the last are neither read nor written.
                unsafe {
                    let (mut largest, mut winner) = (S::splat(f32::NEG_INFINITY), S::splat(-1.0));
                    for read in &reads {
                        let value = load::<S>(&source, image * source.size() + read.pixel + shift, c, count);
                        winner = S::where_greater(value, largest, S::splat(read.tap as f32), winner);
                        largest = S::where_greater(value, largest, value, largest);
                    }
                    finish.vector::<S>(pixel, c, largest, count);
                    S::store_some(winners.at(pixel).add(c), winner, count);
                }
                c += S::LANES;
            }
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
            let mut c = 0;
            while c < to.channels {
                let count = (to.channels - c).min(S::LANES);
                // SAFETY: what is read lies on the map, channels behind the last are neither read nor written.
                unsafe {
                    let zero = S::splat(0.0);
                    let mut sum = zero;
                    finish.prefetch::<S>(pixel + 2 * phase.step[1], c, count);
                    for read in &reads {
                        let from = image * gradient.size() + read.pixel + shift;
                        let winner = load::<S>(&winners, from, c, count);
                        let part = load::<S>(&gradient, from, c, count);
                        sum = S::add(sum, S::where_equal(winner, S::splat(read.tap as f32), part, zero));
                    }
                    finish.vector::<S>(pixel, c, sum, count);
                }
                c += S::LANES;
            }
        }
    }
}
