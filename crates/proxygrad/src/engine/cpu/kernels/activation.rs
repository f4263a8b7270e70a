//! Kernel of activations that are not fused into another kernel, from their f64 definitions, with all gates.
#![expect(unsafe_code, reason = "rows of maps")]

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, BackwardNeeds, ForwardArgs, Kernel, MICRO_BATCH, ThreadCtx};
use crate::engine::cpu::kernels::memory_order::strides;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::engine::{Forward, Gate};
use crate::network::{Activation, Shape};

/// Values that are computed at a time.
const ROW: usize = 256;

/// An activation and its gates.
pub(crate) struct ActivationKernel {
    activation: Activation,
    /// Values from one channel to the next, and number of channels, to find the channel of a value.
    channels: [usize; 2],
}

impl ActivationKernel {
    pub(crate) fn new(activation: &Activation, input: &Shape) -> Self {
        let stride = strides(input).first().copied().unwrap_or(1);
        Self { activation: activation.clone(), channels: [stride, input.channels().max(1)] }
    }

    fn channel(&self, at: usize) -> usize {
        at / self.channels[0] % self.channels[1]
    }

    fn value(&self, forward: Forward, z: f32, at: usize) -> f32 {
        let z = f64::from(z);
        let value = match forward {
            Forward::Original => self.activation.value(z, self.channel(at)),
            Forward::Proxy { slope } => self.activation.proxy_value(z, f64::from(slope), self.channel(at)),
        };
        value as f32
    }

    fn slope(&self, gate: Gate, z: f32, at: usize) -> f32 {
        let (z, channel) = (f64::from(z), self.channel(at));
        let slope = match gate {
            Gate::Plain | Gate::Redirect => self.activation.derivative(z, channel),
            Gate::Proxy { slope } => self.activation.proxy_derivative(z, f64::from(slope), channel),
            Gate::Soft { temperature } => self.activation.soft_derivative(z, f64::from(temperature), channel),
            Gate::Identity => self.activation.peak(),
        };
        slope as f32
    }

    /// Factor on a gradient with [`Gate::Redirect`] where the whole layer's gradient vanishes.
    fn redirected(&self, z: f32, gradient: f32) -> f32 {
        let ((low, high), z) = (self.activation.breakpoints(), f64::from(z));
        let outwards = (z <= low && gradient < 0.0) || (z >= high && gradient > 0.0);
        if outwards { 0.0 } else { self.activation.peak() as f32 }
    }
}

impl Kernel for ActivationKernel {
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: true, output: false }
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let (z, forward) = (args.inputs[0], args.forward);
        // SAFETY: input and output have the same shape.
        unsafe { for_each_row(ctx, epilogue, |at, place| self.value(forward, *place(&z), at)) };
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, _: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let (z, gradient, gate) = (args.inputs[0], args.gradient, args.gate);
        // SAFETY: all maps have the same shape; they are only read.
        unsafe {
            let dead: [bool; MICRO_BATCH] = std::array::from_fn(|image| {
                gate == Gate::Redirect && image < z.images && {
                    let values = z.image(image).iter().zip(gradient.image(image)).enumerate();
                    values.into_iter().all(|(at, (&z, &g))| self.slope(Gate::Plain, z, at) * g == 0.0)
                }
            });
            for_each_row(ctx, epilogue, |at, place| {
                let (z_here, g) = (*place(&z), *place(&gradient));
                let image = at / (z.size() * z.channels);
                g * if dead[image] { self.redirected(z_here, g) } else { self.slope(gate, z_here, at) }
            });
        }
    }
}

/// Applies `epilogue` to the results of `f`, which takes the index of a value in a dense map, and a function that
/// returns the value's address in any map of the same shape.
///
/// # Safety
/// The maps that `f` reads have the shape of `epilogue.to`.
unsafe fn for_each_row(
    ctx: &ThreadCtx<'_>,
    epilogue: &Epilogue<'_>,
    f: impl Fn(usize, &dyn Fn(&FeatureMap) -> *const f32) -> f32,
) {
    const PIECE: usize = 8 * 1024;
    let (pixels, channels) = (epilogue.to.pixels(), epilogue.to.channels);
    let rows = channels.div_ceil(ROW);
    let pieces = (pixels * channels).div_ceil(PIECE).min(pixels * rows);
    ctx.worker.for_each_piece(pieces, |piece| {
        for row in pixels * rows * piece / pieces..pixels * rows * (piece + 1) / pieces {
            let (pixel, first) = (row / rows, row % rows * ROW);
            let count = (channels - first).min(ROW);
            let mut staged = [0.0; ROW];
            for (c, value) in staged.iter_mut().enumerate().take(count) {
                // SAFETY: the position lies in every map of this shape.
                let place = |map: &FeatureMap| unsafe { map.at(pixel).add(first + c).cast_const() };
                *value = f(pixel * channels + first + c, &place);
            }
            // SAFETY: the instruction set is supported; no two pieces write the same values.
            unsafe { ctx.instructions.run(RowStore { epilogue, pixel, first, staged: &staged, count }) };
        }
    });
}

struct RowStore<'a> {
    epilogue: &'a Epilogue<'a>,
    pixel: usize,
    first: usize,
    staged: &'a [f32; ROW],
    count: usize,
}

impl SimdOp for RowStore<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the staged values fill whole vectors.
        unsafe { self.epilogue.store_row::<S>(self.pixel, self.first, self.staged.as_ptr(), self.count) };
    }
}
