//! Groups of values that are reduced together, by normalizations and softmax: where they lie in memory, and vector code
//! that walks over them.
//!
//! A unit of work is one group, or neighbouring groups whose values lie side by side, one group per lane of a vector.
//! The values of a group are always combined in the same order, whatever the batch and the number of threads.
#![expect(unsafe_code, reason = "vector code")]

use crate::engine::cpu::kernel::ThreadCtx;
use crate::engine::cpu::layout::Layout;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::network::Array;

/// Values per piece of work.
const PIECE: usize = 8 * 1024;

/// Repetitions whose sum is added to the total at once: sums of sums are more accurate for large groups.
pub(crate) const BLOCK: usize = 64;

/// Largest number of lanes of a vector.
pub(crate) const MOST_LANES: usize = 16;

/// Layout of the groups of an image in memory, `[outer, repeat, groups, run]`: a group has `repeat * run` values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GroupLayout {
    outer: usize,
    repeat: usize,
    groups: usize,
    run: usize,
    /// Values per pixel; neither a run nor a vector of groups crosses its end.
    pixel: usize,
}

impl GroupLayout {
    /// The layout if `axes` are reduced, the first of them in `parts` equal parts; None if it is not of this form.
    pub(crate) fn of(axes: &[usize], parts: usize, tensor: &Layout) -> Option<Self> {
        let memory = tensor.strides();
        let mut order: Vec<usize> = (0..tensor.len()).filter(|&axis| tensor[axis] > 1).collect();
        order.sort_by_key(|&axis| std::cmp::Reverse(memory[axis]));
        // Lengths and whether they are reduced, equal neighbours joined.
        let mut lengths: Vec<(usize, bool)> = Vec::new();
        let mut add = |length: usize, reduced: bool| match lengths.last_mut() {
            _ if length == 1 => {}
            Some((last, is)) if *is == reduced => *last *= length,
            _ => lengths.push((length, reduced)),
        };
        for axis in order {
            let reduced = axes.contains(&axis);
            let parts = if axes.first() == Some(&axis) { parts } else { 1 };
            add(parts, false);
            add(tensor[axis] / parts, reduced);
        }
        let mut next = |reduced: bool| match lengths.last() {
            Some(&(length, is)) if is == reduced => {
                lengths.pop();
                length
            }
            _ => 1,
        };
        let (run, groups, repeat, outer) = (next(true), next(false), next(true), next(false));
        // Rows of adjacent values come one after the other.
        let (groups, outer) = if repeat == 1 && run > 1 { (1, outer * groups) } else { (groups, outer) };
        let pixel = tensor.pixel_len();
        let mut layout = Self { outer, repeat, groups, run, pixel };
        if run > pixel && groups == 1 {
            (layout.repeat, layout.run) = (repeat * (run / pixel), pixel);
        }
        let fits = |length: usize| length.is_multiple_of(pixel) || pixel.is_multiple_of(length);
        (lengths.is_empty() && layout.run <= pixel && fits(layout.run) && fits(layout.groups * layout.run))
            .then_some(layout)
    }

    /// Number of groups of an image.
    pub(crate) fn count(&self) -> usize {
        self.outer * self.groups
    }

    /// Number of values of a group.
    pub(crate) fn len(&self) -> usize {
        self.repeat * self.run
    }

    /// Values that a vector, or a row of vectors, may be taken from.
    fn span(&self) -> usize {
        if self.run > 1 { self.run } else { self.groups.min(self.pixel) }
    }

    /// Whether all units start at a channel that is a multiple of eight.
    pub(crate) fn starts_bytes(&self) -> bool {
        self.span() == self.pixel || self.span().is_multiple_of(8)
    }

    /// Units of work of one image.
    fn units(&self, lanes: usize) -> usize {
        match self.run {
            1 => self.outer * (self.groups / self.span()) * self.span().div_ceil(lanes),
            _ => self.count(),
        }
    }

    fn unit(&self, unit: usize, lanes: usize) -> Unit {
        let units = self.units(lanes);
        let (image, unit) = (unit / units, unit % units);
        let size = self.outer * self.repeat * self.groups * self.run;
        let (outer, group, width) = match self.run {
            1 => {
                let chunks = self.span().div_ceil(lanes);
                let (span, chunk) = (unit / chunks, unit % chunks * lanes);
                let spans = self.groups / self.span();
                (span / spans, span % spans * self.span() + chunk, (self.span() - chunk).min(lanes))
            }
            run => (unit / self.groups, unit % self.groups, run),
        };
        let at = (outer * self.repeat * self.groups + group) * self.run;
        let step = self.groups * self.run;
        Unit {
            image,
            group: outer * self.groups + group,
            count: if self.run == 1 { width } else { 1 },
            across: self.run == 1,
            repeat: self.repeat,
            width,
            at,
            pixel: (image * size + at) / self.pixel,
            channel: at % self.pixel,
            step,
            pixel_step: step / self.pixel,
            channel_step: step % self.pixel,
        }
    }

    /// Runs `work` on all units of all images; the threads divide them.
    ///
    /// # Safety
    /// The units may be worked on at the same time.
    pub(crate) unsafe fn for_each_unit(&self, ctx: &ThreadCtx<'_>, images: usize, work: impl UnitWork) {
        let lanes = ctx.instructions.lanes();
        let units = images * self.units(lanes);
        let values = images * self.count() * self.len();
        let pieces = values.div_ceil(PIECE).clamp(1, units.max(1));
        ctx.worker.for_each_piece(pieces, |piece| {
            let range = [units * piece / pieces, units * (piece + 1) / pieces];
            // SAFETY: the instruction set is supported; the rest is the caller's.
            unsafe { ctx.instructions.run(UnitRange { layout: *self, range, work }) };
        });
    }
}

/// What is done with a unit.
pub(crate) trait UnitWork: Copy {
    /// # Safety
    /// As [`Simd`]; the unit's positions lie in the maps that are read and written.
    unsafe fn run<S: Simd>(&self, unit: &Unit);
}

struct UnitRange<W> {
    layout: GroupLayout,
    range: [usize; 2],
    work: W,
}

impl<W: UnitWork> SimdOp for UnitRange<W> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for unit in self.range[0]..self.range[1] {
            // SAFETY: the caller's.
            unsafe { self.work.run::<S>(&self.layout.unit(unit, S::LANES)) };
        }
    }
}

/// One group, or groups side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) image: usize,
    /// First group, counted within the image.
    pub(crate) group: usize,
    /// Number of groups.
    pub(crate) count: usize,
    /// Whether each lane of a vector belongs to a group of its own.
    across: bool,
    pub(crate) repeat: usize,
    /// Values from one repetition that lie side by side.
    pub(crate) width: usize,
    /// First value, counted within the image.
    pub(crate) at: usize,
    /// Pixel of the first value, counted over all images, and its channel.
    pub(crate) pixel: usize,
    pub(crate) channel: usize,
    /// Values, pixels and channels from one repetition to the next.
    pub(crate) step: usize,
    pub(crate) pixel_step: usize,
    pub(crate) channel_step: usize,
}

impl Unit {
    /// Combines the lanes of a vector if they belong to one group; every lane then holds the result.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub(crate) unsafe fn combined<S: Simd>(&self, x: S::V, combine: fn(f32, f32) -> f32) -> S::V {
        if self.across {
            return x;
        }
        let mut lanes = [0.0; MOST_LANES];
        // SAFETY: no vector has more lanes.
        unsafe {
            S::store(lanes.as_mut_ptr(), x);
            // Halves are added to each other: a fixed order, and few dependent steps.
            let mut half = S::LANES / 2;
            while half > 0 {
                for i in 0..half {
                    lanes[i] = combine(lanes[i], lanes[i + half]);
                }
                half /= 2;
            }
            S::splat(lanes[0])
        }
    }

    /// The values of this unit's groups from a table with one value per group.
    ///
    /// # Safety
    /// As [`Simd`]; the table has [`Unit::count`] values at `from`.
    #[inline(always)]
    pub(crate) unsafe fn of_groups<S: Simd>(&self, from: *const f32) -> S::V {
        // SAFETY: the caller's.
        unsafe { if self.across { S::load_up_to(from, self.count) } else { S::splat(*from) } }
    }
}

/// The first `count` values of a vector, then `rest`.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn first_values<S: Simd>(x: S::V, count: usize, rest: f32) -> S::V {
    if count >= S::LANES {
        return x;
    }
    const ONES: [f32; MOST_LANES] = [1.0; MOST_LANES];
    // SAFETY: the caller's; no vector has more lanes than there are ones.
    unsafe { S::where_greater(S::load_some(ONES.as_ptr(), count), S::splat(0.5), x, S::splat(rest)) }
}

/// Evaluates `$body` for every vector of a unit: its pixel, its channel, its index in tables of `$period` values that
/// repeat along the image, and its number of values, which may be more than a vector has.
macro_rules! for_each_vector_of {
    ($unit:expr, $lanes:expr, $period:expr, |$pixel:ident, $channel:ident, $at:ident, $count:ident| $body:expr) => {{
        let (unit, period): (&Unit, usize) = ($unit, $period);
        let (mut pixel, mut first, mut start) = (unit.pixel, unit.channel, unit.at % period);
        let step = unit.step % period;
        for _ in 0..unit.repeat {
            let mut offset = 0;
            while offset < unit.width {
                let ($pixel, $channel, $at, $count) = (pixel, first + offset, start + offset, unit.width - offset);
                $body;
                offset += $lanes;
            }
            pixel += unit.pixel_step;
            first += unit.channel_step;
            start += step;
            if start >= period {
                start -= period;
            }
        }
    }};
}

/// Sums over the groups of a unit of an array of terms, each a vector; terms beyond the number of values must be 0.
macro_rules! sums_of {
    ($S:ty, $terms_count:literal, $unit:expr, $period:expr, |$pixel:ident, $channel:ident, $at:ident, $count:ident| $terms:expr) => {{
        let unit: &Unit = $unit;
        let zero = <$S>::splat(0.0);
        let (mut totals, mut parts, mut vectors) = ([zero; $terms_count], [zero; $terms_count], 0);
        for_each_vector_of!(unit, <$S>::LANES, $period, |$pixel, $channel, $at, $count| {
            let terms = $terms;
            for (part, term) in parts.iter_mut().zip(terms) {
                *part = <$S>::add(*part, term);
            }
            vectors += 1;
            if vectors == BLOCK {
                for (total, part) in totals.iter_mut().zip(&mut parts) {
                    (*total, *part) = (<$S>::add(*total, *part), zero);
                }
                vectors = 0;
            }
        });
        for (total, part) in totals.iter_mut().zip(parts) {
            *total = unit.combined::<$S>(<$S>::add(*total, part), |a, b| a + b);
        }
        totals
    }};
}

pub(crate) use {for_each_vector_of, sums_of};

/// An array that broadcasts over an image, repeated as little as possible: value `i` of the image in memory has value
/// `i % period` of the table.
pub(crate) struct Table {
    pub(crate) period: usize,
    /// Left out in plans without weights.
    pub(crate) values: Vec<f32>,
}

impl Table {
    pub(crate) fn new(array: &Array, tensor: &Layout, layout: &GroupLayout, weightless: bool) -> Self {
        let memory = tensor.strides();
        let mut order: Vec<usize> = (0..tensor.len()).collect();
        order.sort_by_key(|&axis| std::cmp::Reverse(memory[axis]));
        let lead = tensor.len() - array.shape().len();
        let own = |axis: usize| axis.checked_sub(lead).map_or(1, |axis| array.shape()[axis]);
        let varies = order.iter().position(|&axis| own(axis) > 1).unwrap_or(order.len());
        let trailing: usize = order[varies..].iter().map(|&axis| tensor[axis]).product();
        let period = trailing.max(layout.span());
        let length = if weightless { 0 } else { period };
        let value = |at: usize| {
            let index = (lead..tensor.len()).map(|axis| at / memory[axis] % tensor[axis]);
            let at = index.zip(array.shape()).fold(0, |at, (i, &length)| at * length + if length == 1 { 0 } else { i });
            array.data()[at]
        };
        Self { period, values: (0..length).map(value).collect() }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.period * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn groups_of_every_common_normalization_have_a_layout() {
        let layout = |axes: &[usize], parts, shape: &[usize]| {
            GroupLayout::of(axes, parts, &Layout::channels_last(shape.to_vec().into()))
        };
        let new = |outer, repeat, groups, run, pixel| Some(GroupLayout { outer, repeat, groups, run, pixel });
        // Tokens: a row each.
        assert_eq!(layout(&[1], 1, &[7, 20]), new(7, 1, 1, 20, 20));
        // Maps, whose channels are last in memory: along channels, instance, group, and layer normalization.
        assert_eq!(layout(&[0], 1, &[20, 3, 5]), new(15, 1, 1, 20, 20));
        assert_eq!(layout(&[1, 2], 1, &[20, 3, 5]), new(1, 15, 20, 1, 20));
        assert_eq!(layout(&[0, 1, 2], 4, &[20, 3, 5]), new(1, 15, 4, 5, 20));
        assert_eq!(layout(&[0, 1, 2], 1, &[20, 3, 5]), new(1, 15, 1, 20, 20));
        // Along columns, and bands of rows.
        assert_eq!(layout(&[2], 1, &[20, 3, 5]), new(3, 5, 20, 1, 20));
        assert_eq!(layout(&[1], 2, &[20, 4, 5]), new(2, 2, 100, 1, 20));
        // Attention over windows.
        assert_eq!(layout(&[3], 1, &[4, 6, 9, 9]), new(216, 1, 1, 9, 9));
        // Too many changes between reduced and other axes.
        assert_eq!(layout(&[0, 2], 1, &[2, 3, 4, 5]), None);
        // One value per group.
        assert_eq!(layout(&[1], 1, &[5, 1]), new(1, 1, 5, 1, 1));
    }

    #[test]
    fn units_are_all_values_once() {
        for (axes, parts, shape) in [
            (&[0][..], 1, &[18, 3, 5][..]),
            (&[1, 2], 1, &[37, 3, 5]),
            (&[0, 1, 2], 3, &[18, 3, 5]),
            (&[1], 2, &[20, 4, 5]),
            (&[2], 1, &[20, 3, 5]),
            (&[1], 1, &[4, 9]),
            (&[0], 1, &[4, 19]),
            (&[0], 1, &[6, 4, 1, 19]),
            (&[0, 1], 3, &[6, 19]),
            (&[2], 1, &[4, 3, 5, 1]),
        ] {
            let shape = Layout::channels_last(shape.to_vec().into());
            let layout = GroupLayout::of(axes, parts, &shape).unwrap();
            for lanes in [8, 16] {
                let mut seen = vec![0; 2 * shape.elements()];
                let mut groups = vec![0; 2 * layout.count()];
                for unit in 0..2 * layout.units(lanes) {
                    let unit = layout.unit(unit, lanes);
                    for group in 0..unit.count {
                        groups[unit.image * layout.count() + unit.group + group] += 1;
                    }
                    for_each_vector_of!(&unit, lanes, shape.elements(), |pixel, channel, at, count| {
                        let first = pixel * layout.pixel + channel;
                        assert_eq!(at, first % shape.elements());
                        assert!(channel + count.min(lanes) <= layout.pixel, "a vector crosses a pixel");
                        seen[first..first + count.min(lanes)].iter_mut().for_each(|seen| *seen += 1);
                    });
                }
                assert!(seen.iter().all(|&seen| seen == 1), "{axes:?} of {shape:?}");
                assert!(groups.iter().all(|&seen| seen == 1), "{axes:?} of {shape:?}");
            }
        }
    }
}
