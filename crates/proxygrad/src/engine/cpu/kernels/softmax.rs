//! Softmax and its logarithm in vector code.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, BackwardNeeds, ForwardArgs, Kernel, ThreadCtx};
use crate::engine::cpu::kernels::elementwise::load_channels;
use crate::engine::cpu::kernels::value_groups::{
    BLOCK, GroupLayout, MOST_LANES, Unit, UnitWork, first_values, for_each_vector_of, sums_of,
};
use crate::engine::cpu::layout::Layout;
use crate::engine::cpu::simd::math::exp;
use crate::engine::cpu::simd::vector::Simd;

/// A softmax, or its logarithm, along one axis.
pub(crate) struct SoftmaxKernel {
    layout: GroupLayout,
    logarithm: bool,
}

impl SoftmaxKernel {
    /// # Errors
    /// When the input has no such axis.
    pub(crate) fn new(axis: usize, input: &Layout, logarithm: bool) -> Result<Self, String> {
        let layout = GroupLayout::of(&[axis], 1, input);
        let layout = layout.ok_or_else(|| format!("{input:?} cannot be normalized along axis {axis}"))?;
        Ok(Self { layout, logarithm })
    }
}

impl Kernel for SoftmaxKernel {
    /// Exponentials are stored before they are divided by their sum.
    fn fuses_epilogue(&self) -> bool {
        false
    }

    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: false, output: true }
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let work = ForwardUnit { logarithm: self.logarithm, x: args.inputs[0], epilogue };
        // SAFETY: input and output have the shape of the layout; every unit has groups of its own.
        unsafe { self.layout.for_each_unit(ctx, epilogue.to.images, work) };
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, _: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let work = BackwardUnit { logarithm: self.logarithm, y: args.output, gradient: args.gradient, epilogue };
        // SAFETY: as above.
        unsafe { self.layout.for_each_unit(ctx, epilogue.to.images, work) };
    }
}

#[derive(Clone, Copy)]
struct ForwardUnit<'a> {
    logarithm: bool,
    x: FeatureMap,
    epilogue: &'a Epilogue<'a>,
}

impl UnitWork for ForwardUnit<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self, unit: &Unit) {
        let Self { logarithm, x, epilogue } = self;
        // SAFETY: the caller's; results are stored once as they are, then with the epilogue.
        unsafe {
            let mut largest = S::splat(f32::NEG_INFINITY);
            for_each_vector_of!(unit, S::LANES, 1, |pixel, channel, _at, count| {
                let x = first_values::<S>(load_channels::<S>(x, pixel, channel, count), count, f32::NEG_INFINITY);
                largest = S::max(largest, x);
            });
            let largest = unit.combined::<S>(largest, f32::max);
            let [sum] = sums_of!(S, 1, unit, 1, |pixel, channel, _at, count| {
                let power = exp::<S>(S::sub(load_channels::<S>(x, pixel, channel, count), largest));
                if !logarithm {
                    let to = epilogue.to.at(pixel).add(channel);
                    if count < S::LANES {
                        S::store_some(to, power, count);
                    } else {
                        S::store(to, power);
                    }
                }
                [first_values::<S>(power, count, 0.0)]
            });
            if *logarithm {
                let mut logarithms = [0f32; MOST_LANES];
                S::store(logarithms.as_mut_ptr(), sum);
                logarithms.iter_mut().for_each(|sum| *sum = sum.ln());
                let shift = S::load(logarithms.as_ptr());
                for_each_vector_of!(unit, S::LANES, 1, |pixel, channel, _at, count| {
                    let shifted = S::sub(load_channels::<S>(x, pixel, channel, count), largest);
                    epilogue.store_vector::<S>(pixel, channel, S::sub(shifted, shift), count);
                });
            } else {
                let factor = S::div(S::splat(1.0), sum);
                for_each_vector_of!(unit, S::LANES, 1, |pixel, channel, _at, count| {
                    let power = load_channels::<S>(&epilogue.to, pixel, channel, count);
                    epilogue.store_vector::<S>(pixel, channel, S::mul(power, factor), count);
                });
            }
        }
    }
}

#[derive(Clone, Copy)]
struct BackwardUnit<'a> {
    logarithm: bool,
    y: FeatureMap,
    gradient: FeatureMap,
    epilogue: &'a Epilogue<'a>,
}

impl UnitWork for BackwardUnit<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self, unit: &Unit) {
        let Self { logarithm, y, gradient, epilogue } = self;
        // SAFETY: the caller's.
        unsafe {
            let [sum] = sums_of!(S, 1, unit, 1, |pixel, channel, _at, count| {
                let gradient = load_channels::<S>(gradient, pixel, channel, count);
                match logarithm {
                    true => [gradient],
                    false => [S::mul(gradient, load_channels::<S>(y, pixel, channel, count))],
                }
            });
            for_each_vector_of!(unit, S::LANES, 1, |pixel, channel, _at, count| {
                let gradient = load_channels::<S>(gradient, pixel, channel, count);
                let y = load_channels::<S>(y, pixel, channel, count);
                let value = match logarithm {
                    true => S::sub(gradient, S::mul(exp::<S>(y), sum)),
                    false => S::mul(S::sub(gradient, sum), y),
                };
                epilogue.store_vector::<S>(pixel, channel, value, count);
            });
        }
    }
}
