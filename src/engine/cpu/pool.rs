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
        let rows: usize = self.backward.iter().map(|phase| phase.grid[0]).sum();
        let Some(winners) = view.memory else { return };
        let (gradient, channels) = (view.gradient, finish.to.channels);
        let winners = Map { data: winners, pixel: channels, ..gradient };
        site.member.each(gradient.images * rows, |piece| {
            let (image, mut row) = (piece / rows, piece % rows);
            for phase in &self.backward {
                if row < phase.grid[0] {
                    // SAFETY: the instructions are available; no two pieces write the same row of the phase.
                    unsafe { site.instructions.run(Backward { phase, image, row, gradient, winners, finish }) };
                    break;
                }
                row -= phase.grid[0];
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
        let to = &finish.to;
        for x in 0..to.width {
            let pixel = (image * to.height + row) * to.width + x;
            let mut c = 0;
            while c < to.channels {
                let count = (to.channels - c).min(S::LANES);
                // SAFETY: taps outside the map are skipped, channels behind the last neither read nor written.
                unsafe {
                    let (mut largest, mut winner) = (S::splat(f32::NEG_INFINITY), S::splat(-1.0));
                    for (t, tap) in phase.taps.iter().enumerate() {
                        let Some(y) = phase.source(0, row, tap, source.height) else { continue };
                        let Some(x) = phase.source(1, x, tap, source.width) else { continue };
                        let from = source.at((image * source.height + y) * source.width + x).add(c);
                        let value = if count == S::LANES { S::load(from) } else { S::load_some(from, count) };
                        winner = S::where_greater(value, largest, S::splat(t as f32), winner);
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
        let to = &finish.to;
        for x in 0..phase.grid[1] {
            let y = phase.start[0] + row * phase.step[0];
            let pixel = (image * to.height + y) * to.width + phase.start[1] + x * phase.step[1];
            let mut c = 0;
            while c < to.channels {
                let count = (to.channels - c).min(S::LANES);
                // SAFETY: windows outside the map are skipped, channels behind the last neither read nor written.
                unsafe {
                    let zero = S::splat(0.0);
                    let mut sum = zero;
                    for tap in &phase.taps {
                        let Some(y) = phase.source(0, row, tap, gradient.height) else { continue };
                        let Some(x) = phase.source(1, x, tap, gradient.width) else { continue };
                        let from = (image * gradient.height + y) * gradient.width + x;
                        let winner = load::<S>(&winners, from, c, count);
                        let part = load::<S>(&gradient, from, c, count);
                        sum = S::add(sum, S::where_equal(winner, S::splat(tap.index as f32), part, zero));
                    }
                    finish.vector::<S>(pixel, c, sum, count);
                }
                c += S::LANES;
            }
        }
    }
}
