//! Data movement: pad, reshape, transpose and slice. Every output value is one input value or a constant.
#![expect(unsafe_code, reason = "pieces of maps")]

use std::ops::Range;

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, ForwardArgs, Kernel, ThreadCtx};
use crate::engine::cpu::kernels::elementwise::{CopyOf, PixelRange};
use crate::engine::cpu::kernels::memory_order::{for_each_index, offset};
use crate::engine::cpu::layout::Layout;
use crate::network::PadMode;

/// Values per piece of work.
const PIECE: usize = 16 * 1024;

/// A data movement as a kernel.
pub(crate) struct MoveKernel {
    forward: Moves,
    backward: Backward,
    border: f32,
}

/// How a gradient goes back.
enum Backward {
    /// By the inverse movement: no value was moved to two places.
    Inverse(Moves),
    /// By adding to the sources of all values.
    Scatter,
}

impl MoveKernel {
    /// `source` writes the input index of an output index, or says that there is none: the value is then `border`.
    fn new(
        input: &Layout,
        output: &Layout,
        border: f32,
        mut source: impl FnMut(&[usize], &mut [usize]) -> bool,
    ) -> Self {
        let (from, to) = (input.strides(), output.strides());
        let mut sources = vec![Moves::NONE; output.elements()];
        let mut targets = vec![Moves::NONE; input.elements()];
        let (mut found, mut unique) = (vec![0; input.len()], true);
        for_each_index(output, |index| {
            if source(index, &mut found) {
                let (to, from) = (offset(&to, index), offset(&from, &found));
                sources[to] = from as u32;
                unique &= targets[from] == Moves::NONE;
                targets[from] = to as u32;
            }
        });
        let backward = if unique { Backward::Inverse(Moves::new(targets)) } else { Backward::Scatter };
        Self { forward: Moves::new(sources), backward, border }
    }

    pub(crate) fn reshape(input: &Layout, output: &Layout) -> Self {
        let mut position = 0;
        Self::new(input, output, 0.0, |_, source| {
            let mut rest = position;
            position += 1;
            for axis in (0..input.len()).rev() {
                source[axis] = rest % input[axis];
                rest /= input[axis];
            }
            true
        })
    }

    pub(crate) fn transpose(order: &[usize], input: &Layout, output: &Layout) -> Self {
        Self::new(input, output, 0.0, |index, source| {
            order.iter().zip(index).for_each(|(&axis, &i)| source[axis] = i);
            true
        })
    }

    pub(crate) fn slice(axis: usize, start: usize, step: usize, input: &Layout, output: &Layout) -> Self {
        Self::new(input, output, 0.0, |index, source| {
            source.copy_from_slice(index);
            source[axis] = start + index[axis] * step;
            true
        })
    }

    pub(crate) fn pad(before: &[usize], mode: PadMode, input: &Layout, output: &Layout) -> Self {
        let border = if let PadMode::Constant(value) = mode { value } else { 0.0 };
        Self::new(input, output, border, |index, source| {
            for (axis, &i) in index.iter().enumerate() {
                let length = input[axis];
                source[axis] = match (i.checked_sub(before[axis]), mode) {
                    (Some(inside), _) if inside < length => inside,
                    (_, PadMode::Constant(_)) => return false,
                    (Some(beyond), PadMode::Reflect) => 2 * (length - 1) - beyond,
                    (None, PadMode::Reflect) => before[axis] - i,
                    (Some(_), PadMode::Edge) => length - 1,
                    (None, PadMode::Edge) => 0,
                };
            }
            true
        })
    }
}

/// Where the values of a tensor come from.
enum Moves {
    /// Runs of values whose sources are equally spaced, in the order of their first values.
    Runs(Vec<Run>),
    /// The source of each value, or [`Moves::NONE`]; where runs would take more memory.
    Each(Vec<u32>),
}

/// Values up to the first one of the next run.
#[derive(Clone, Copy)]
struct Run {
    /// The first value.
    first: u32,
    /// Its source, or [`Moves::NONE`] for all values of the run.
    source: u32,
    /// From the source of a value to that of the next; with wrapping additions.
    step: u32,
}

impl Moves {
    const NONE: u32 = u32::MAX;

    fn new(sources: Vec<u32>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for (at, &source) in sources.iter().enumerate() {
            if !runs.last_mut().is_some_and(|run| run.extend(at as u32, source)) {
                runs.push(Run { first: at as u32, source, step: 0 });
            }
        }
        if runs.len() * size_of::<Run>() > sources.len() * size_of::<u32>() {
            return Self::Each(sources);
        }
        Self::Runs(runs)
    }

    /// Calls `each` with all values in `range`, run by run, and with their sources.
    fn for_each_run(&self, range: Range<usize>, mut each: impl FnMut(Range<usize>, Sources)) {
        match self {
            Self::Each(sources) => {
                for (at, &source) in range.clone().zip(&sources[range]) {
                    each(at..at + 1, Sources { first: source, step: 1 });
                }
            }
            Self::Runs(runs) => {
                let mut at = range.start;
                let mut next = runs.partition_point(|run| run.first as usize <= at);
                while at < range.end {
                    let run = runs[next - 1];
                    let end = runs.get(next).map_or(range.end, |next| range.end.min(next.first as usize));
                    let first = run.source_of(at as u32);
                    each(at..end, Sources { first, step: run.step });
                    (at, next) = (end, next + 1);
                }
            }
        }
    }
}

impl Run {
    /// The source of a value of the run.
    fn source_of(&self, at: u32) -> u32 {
        match self.source {
            Moves::NONE => Moves::NONE,
            source => source.wrapping_add(self.step.wrapping_mul(at - self.first)),
        }
    }

    /// Takes the next value into the run if its source fits.
    fn extend(&mut self, at: u32, source: u32) -> bool {
        if source == Moves::NONE || self.source == Moves::NONE {
            return source == self.source;
        }
        if at - self.first == 1 {
            self.step = source.wrapping_sub(self.source);
        }
        self.source_of(at) == source
    }
}

/// The sources of a run of values.
#[derive(Clone, Copy)]
struct Sources {
    first: u32,
    step: u32,
}

impl Sources {
    /// Calls `each` with every value of `to` and its source in `from`; false if the values have none.
    fn visit(self, to: &mut [f32], from: &[f32], each: impl Fn(&mut f32, f32)) -> bool {
        if self.first == Moves::NONE {
            return false;
        }
        if self.step == 1 {
            let from = &from[self.first as usize..][..to.len()];
            to.iter_mut().zip(from).for_each(|(to, &from)| each(to, from));
            return true;
        }
        let mut source = self.first;
        for to in to {
            each(to, from[source as usize]);
            source = source.wrapping_add(self.step);
        }
        true
    }
}

/// Divides the images of a map into pieces of whole pixels, and calls `f` with the image and its pixels of each.
fn for_each_part(ctx: &ThreadCtx<'_>, map: FeatureMap, f: impl Fn(usize, Range<usize>)) {
    let pixels = map.size();
    let parts = (pixels * map.channels).div_ceil(PIECE).clamp(1, pixels.max(1));
    ctx.worker.for_each_piece(map.images * parts, |piece| {
        let (image, part) = (piece / parts, piece % parts);
        f(image, pixels * part / parts..pixels * (part + 1) / parts);
    });
}

/// Some pixels of an image of a dense map.
///
/// # Safety
/// The pixels lie in the map, and are not read or written elsewhere meanwhile.
unsafe fn part_of<'a>(map: FeatureMap, image: usize, pixels: &Range<usize>) -> &'a mut [f32] {
    let first = map.at(image * map.size() + pixels.start);
    // SAFETY: the caller's; the pixels of a dense map are contiguous.
    unsafe { std::slice::from_raw_parts_mut(first, pixels.len() * map.channels) }
}

impl Kernel for MoveKernel {
    fn fuses_epilogue(&self) -> bool {
        false
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let (from, to) = (args.inputs[0], epilogue.to);
        assert!(to.is_dense() && from.is_dense());
        for_each_part(ctx, to, |image, pixels| {
            // SAFETY: dense maps; the input is only read in this step; each part of the output is one piece.
            let (from, output) = unsafe { (from.image(image), part_of(to, image, &pixels)) };
            let start = pixels.start * to.channels;
            self.forward.for_each_run(start..start + output.len(), |at, sources| {
                let output = &mut output[at.start - start..at.end - start];
                if !sources.visit(output, from, |to, from| *to = from) {
                    output.fill(self.border);
                }
            });
        });
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, _: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let (g, to) = (args.gradient, epilogue.to);
        assert!(to.is_dense() && g.is_dense() && epilogue.addend.is_none_or(|addend| addend.is_dense()));
        let finish = |image: usize, pixels: Range<usize>| {
            let first = image * to.size();
            let epilogue = &Epilogue { addend: None, ..*epilogue };
            let (f, pixels) = (CopyOf(to), [first + pixels.start, first + pixels.end]);
            if !epilogue.is_store_only() {
                // SAFETY: the instruction set is supported; the pixels are those of this piece.
                unsafe { ctx.instructions.run(PixelRange { epilogue, f, pixels, channels: [0, to.channels] }) };
            }
        };
        // Fills some pixels with what is there to be added to.
        let prepare = |sink: &mut [f32], image: usize, pixels: &Range<usize>| match epilogue.addend {
            Some(addend) if addend.data == to.data => {}
            // SAFETY: a dense map that is only read in this step.
            Some(addend) => sink.copy_from_slice(unsafe { part_of(addend, image, pixels) }),
            None => sink.fill(0.0),
        };
        let Backward::Inverse(moves) = &self.backward else {
            return ctx.worker.for_each_piece(to.images, |image| {
                // SAFETY: dense maps; the gradient is only read in this step; each image is one piece.
                let (g, sink) = unsafe { (g.image(image), to.image_mut(image)) };
                prepare(sink, image, &(0..to.size()));
                self.forward.for_each_run(0..g.len(), |at, sources| {
                    let mut source = sources.first;
                    for &g in g[at].iter().take_while(|_| sources.first != Moves::NONE) {
                        sink[source as usize] += g;
                        source = source.wrapping_add(sources.step);
                    }
                });
                finish(image, 0..to.size());
            });
        };
        for_each_part(ctx, to, |image, pixels| {
            // SAFETY: dense maps; the gradient is only read in this step; each part of the target is one piece.
            let (g, sink) = unsafe { (g.image(image), part_of(to, image, &pixels)) };
            if epilogue.addend.is_some() {
                prepare(sink, image, &pixels);
            }
            let start = pixels.start * to.channels;
            moves.for_each_run(start..start + sink.len(), |at, sources| {
                let sink = &mut sink[at.start - start..at.end - start];
                match epilogue.addend {
                    Some(_) => {
                        sources.visit(sink, g, |sum, g| *sum += g);
                    }
                    None if sources.visit(sink, g, |to, g| *to = g) => {}
                    None => sink.fill(0.0),
                }
            });
            finish(image, pixels);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_say_what_the_table_says_from_any_value_on() {
        let tables: [Vec<u32>; 4] = [
            (0..20).collect(),
            (0..24).map(|at| at % 4 * 6 + at / 4).collect(),
            (0..20).map(|at| if at / 5 == 2 { Moves::NONE } else { 19 - at }).collect(),
            vec![7, 3, Moves::NONE, 9, 1, 1, 0, 5, Moves::NONE, Moves::NONE, 2],
        ];
        let runs = |table: &[u32]| match Moves::new(table.to_vec()) {
            Moves::Runs(runs) => runs.len(),
            Moves::Each(_) => usize::MAX,
        };
        assert_eq!(tables.each_ref().map(|table| runs(table)), [1, 6, 3, usize::MAX]);
        for table in tables {
            let moves = Moves::new(table.clone());
            for start in 0..table.len() {
                for end in start..=table.len() {
                    let mut found = Vec::new();
                    moves.for_each_run(start..end, |at, sources| {
                        assert_eq!(at.start, start + found.len());
                        let source = |i: u32| match sources.first {
                            Moves::NONE => Moves::NONE,
                            first => first.wrapping_add(sources.step.wrapping_mul(i)),
                        };
                        found.extend((0..at.len() as u32).map(source));
                    });
                    assert_eq!(found, table[start..end]);
                }
            }
        }
    }
}
