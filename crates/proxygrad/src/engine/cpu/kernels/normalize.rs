//! Normalization of groups of values in vector code.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, BackwardNeeds, ForwardArgs, Kernel, ThreadCtx};
use crate::engine::cpu::kernels::elementwise::load_channels;
use crate::engine::cpu::kernels::value_groups::{
    BLOCK, GroupLayout, MOST_LANES, Table, Unit, UnitWork, first_values, for_each_vector_of, sums_of,
};
use crate::engine::cpu::layout::Layout;
use crate::engine::cpu::simd::math::abs;
use crate::engine::cpu::simd::vector::Simd;
use crate::network::{Norm, Normalize};

/// Numbers per group that the forward pass saves: center, factor and feedback of its
/// [`Statistics`](crate::network::Statistics).
const SAVED: usize = 3;

/// A normalization.
pub(crate) struct NormalizeKernel {
    kind: Norm,
    epsilon: f64,
    layout: GroupLayout,
    scale: Option<Table>,
    shift: Option<Table>,
}

impl NormalizeKernel {
    pub(crate) fn new(normalize: &Normalize, layout: GroupLayout, input: &Layout, weightless: bool) -> Self {
        let Normalize { kind, epsilon, scale, shift, .. } = normalize;
        let table = |array| Table::new(array, input, &layout, weightless);
        let (scale, shift) = (scale.as_ref().map(table), shift.as_ref().map(table));
        Self { kind: *kind, epsilon: f64::from(*epsilon), layout, scale, shift }
    }

    /// A period of both tables.
    fn period(&self) -> usize {
        let period = |table: &Option<Table>| table.as_ref().map_or(1, |table| table.period);
        period(&self.scale).max(period(&self.shift))
    }
}

/// The vector at an index of a table, whose period divides that of the index.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn of_table<S: Simd>(table: &Table, at: usize, count: usize) -> S::V {
    // SAFETY: a vector lies within a period, since it lies within a span of the layout.
    unsafe { S::load_up_to(table.values.as_ptr().add(at % table.period), count) }
}

impl Kernel for NormalizeKernel {
    /// The bits of an activation mask are written in whole bytes.
    fn fuses_epilogue(&self) -> bool {
        self.layout.starts_bytes()
    }

    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: true, output: false }
    }

    fn saved_len(&self) -> usize {
        SAVED * self.layout.count()
    }

    fn weight_bytes(&self) -> usize {
        [&self.scale, &self.shift].into_iter().flatten().map(Table::bytes).sum()
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let work = ForwardUnit { kernel: self, x: args.inputs[0], saved: args.saved, epilogue };
        // SAFETY: input and output have the shape of the layout; every unit has groups of its own.
        unsafe { self.layout.for_each_unit(ctx, epilogue.to.images, work) };
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, _: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let Some(saved) = args.saved else { return };
        let work = BackwardUnit { kernel: self, x: args.inputs[0], gradient: args.gradient, saved, epilogue };
        // SAFETY: as above.
        unsafe { self.layout.for_each_unit(ctx, epilogue.to.images, work) };
    }
}

#[derive(Clone, Copy)]
struct ForwardUnit<'a> {
    kernel: &'a NormalizeKernel,
    x: FeatureMap,
    saved: Option<*mut f32>,
    epilogue: &'a Epilogue<'a>,
}

impl UnitWork for ForwardUnit<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self, unit: &Unit) {
        let Self { kernel, x, saved, epilogue } = self;
        // SAFETY: the caller's.
        unsafe {
            let share = S::splat(1.0 / kernel.layout.len() as f32);
            let center = if kernel.kind.is_centered() {
                let [sum] = sums_of!(S, 1, unit, 1, |pixel, channel, _at, count| {
                    [load_channels::<S>(x, pixel, channel, count)]
                });
                S::mul(sum, share)
            } else {
                S::splat(0.0)
            };
            let [sum] = sums_of!(S, 1, unit, 1, |pixel, channel, _at, count| {
                let value = S::sub(load_channels::<S>(x, pixel, channel, count), center);
                let value = first_values::<S>(value, count, 0.0);
                [if kernel.kind == Norm::L1 { abs::<S>(value) } else { S::mul(value, value) }]
            });
            let [mut centers, mut factors, mut feedbacks] = [[0f32; MOST_LANES]; SAVED];
            let mut sums = [0f32; MOST_LANES];
            S::store(centers.as_mut_ptr(), center);
            S::store(sums.as_mut_ptr(), sum);
            for group in 0..unit.count {
                let (center, sum) = (f64::from(centers[group]), f64::from(sums[group]));
                let found = kernel.kind.statistics(kernel.epsilon, kernel.layout.len(), center, sum);
                (factors[group], feedbacks[group]) = (found.factor as f32, found.feedback as f32);
            }
            if let Some(saved) = saved {
                let saved = saved.add(unit.image * kernel.saved_len() + unit.group);
                for (i, values) in [&mut centers, &mut factors, &mut feedbacks].into_iter().enumerate() {
                    let to = saved.add(i * kernel.layout.count());
                    std::ptr::copy_nonoverlapping(values.as_ptr(), to, unit.count);
                }
            }
            let factor = unit.of_groups::<S>(factors.as_ptr());
            for_each_vector_of!(unit, S::LANES, kernel.period(), |pixel, channel, at, count| {
                let mut value = S::mul(S::sub(load_channels::<S>(x, pixel, channel, count), center), factor);
                if let Some(scale) = &kernel.scale {
                    value = S::mul(value, of_table::<S>(scale, at, count));
                }
                if let Some(shift) = &kernel.shift {
                    value = S::add(value, of_table::<S>(shift, at, count));
                }
                epilogue.store_vector::<S>(pixel, channel, value, count);
            });
        }
    }
}

#[derive(Clone, Copy)]
struct BackwardUnit<'a> {
    kernel: &'a NormalizeKernel,
    x: FeatureMap,
    gradient: FeatureMap,
    saved: *mut f32,
    epilogue: &'a Epilogue<'a>,
}

impl BackwardUnit<'_> {
    /// The gradient with respect to the normalized values.
    ///
    /// # Safety
    /// As [`UnitWork::run`].
    #[inline(always)]
    unsafe fn scaled<S: Simd>(&self, pixel: usize, channel: usize, at: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let gradient = load_channels::<S>(&self.gradient, pixel, channel, count);
            match &self.kernel.scale {
                Some(scale) => S::mul(gradient, of_table::<S>(scale, at, count)),
                None => gradient,
            }
        }
    }
}

impl UnitWork for BackwardUnit<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self, unit: &Unit) {
        let Self { kernel, x, saved, epilogue, .. } = self;
        // SAFETY: the caller's.
        unsafe {
            let zero = S::splat(0.0);
            let saved = saved.add(unit.image * kernel.saved_len() + unit.group).cast_const();
            let of_groups = |i: usize| unit.of_groups::<S>(saved.add(i * kernel.layout.count()));
            let (center, factor, feedback) = (of_groups(0), of_groups(1), of_groups(2));
            let period = kernel.period();
            let [sum, along] = sums_of!(S, 2, unit, period, |pixel, channel, at, count| {
                let gradient = self.scaled::<S>(pixel, channel, at, count);
                let value = S::mul(S::sub(load_channels::<S>(x, pixel, channel, count), center), factor);
                [gradient, S::mul(gradient, value)]
            });
            let along = S::mul(along, feedback);
            let mean = if kernel.kind.is_centered() { S::mul(sum, feedback) } else { zero };
            for_each_vector_of!(unit, S::LANES, period, |pixel, channel, at, count| {
                let value = load_channels::<S>(x, pixel, channel, count);
                let direction = if kernel.kind == Norm::L1 {
                    let negative = S::where_greater(zero, value, S::splat(-1.0), zero);
                    S::where_greater(value, zero, S::splat(1.0), negative)
                } else {
                    S::mul(S::sub(value, center), factor)
                };
                let gradient = S::sub(self.scaled::<S>(pixel, channel, at, count), mean);
                let gradient = S::mul(S::sub(gradient, S::mul(direction, along)), factor);
                epilogue.store_vector::<S>(pixel, channel, gradient, count);
            });
        }
    }
}
