//! Activations and their gates in vector code, on rows of pixels.
#![expect(unsafe_code, reason = "loads and stores through pointers")]

mod function;

use self::function::{
    Elu, Gelu, GeluTanh, HardSwish, Leaky, Mish, Ramp, ScaledSilu, Sigmoid, Silu, Softplus, Tanh, VectorFunction,
};
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::engine::{Forward, Gate};
use crate::network::{Activation, QUICK_GELU_FACTOR, SELU_ALPHA, SELU_LAMBDA};

/// Largest inverse temperature, at which products stay finite.
const MAX_INVERSE_TEMPERATURE: f32 = 1e30;

/// Values of some pixels: the address of the first, and the values from one row and from one pixel to the next.
#[derive(Clone, Copy)]
pub(crate) struct Strided {
    pub(crate) first: *mut f32,
    pub(crate) row: usize,
    pub(crate) pixel: usize,
}

/// What is computed of an activation.
#[derive(Clone, Copy)]
pub(crate) enum Task {
    /// Its values.
    Value(Forward),
    /// A gradient times the derivative of a gate.
    Gradient(Strided, Gate),
}

/// An activation on a block of pixels.
#[derive(Clone, Copy)]
pub(crate) struct ActivationBlock<'a> {
    pub(crate) activation: &'a Activation,
    pub(crate) task: Task,
    /// The pre-activations.
    pub(crate) z: Strided,
    /// May be the same memory as `z` or the gradient.
    pub(crate) to: Strided,
    pub(crate) rows: usize,
    /// Pixels per row.
    pub(crate) pixels: usize,
    /// First channel.
    pub(crate) channel: usize,
    pub(crate) channels: usize,
    /// Factors on the inverse temperature of a soft gate for each of the channels, or none.
    pub(crate) inverse_scales: &'a [f32],
}

impl SimdOp for ActivationBlock<'_> {
    type Output = ();

    /// # Safety
    /// All channels of all pixels are readable and writable; a PReLU has a slope for each channel, or one for all, and
    /// inverse scales are for all channels.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's.
        unsafe {
            match self.activation {
                Activation::Relu => self.ramp::<S>([1.0, 0.0], [0.0, f32::INFINITY]),
                Activation::Clip { min, max } => self.ramp::<S>([1.0, 0.0], [*min, *max]),
                Activation::HardSigmoid { alpha, beta } => self.ramp::<S>([*alpha, *beta], [0.0, 1.0]),
                Activation::LeakyRelu { slope } => self.leaky::<S>(std::slice::from_ref(slope)),
                Activation::PRelu { slopes } => self.leaky::<S>(slopes.data()),
                Activation::HardSwish => self.apply::<S>(HardSwish {}),
                Activation::Sigmoid => self.apply::<S>(Sigmoid {}),
                Activation::Tanh => self.apply::<S>(Tanh {}),
                Activation::Silu => self.apply::<S>(Silu {}),
                Activation::Gelu { tanh: true } => self.apply::<S>(GeluTanh {}),
                Activation::Gelu { tanh: false } => self.apply::<S>(Gelu {}),
                Activation::QuickGelu => self.apply::<S>(ScaledSilu { factor: QUICK_GELU_FACTOR as f32 }),
                Activation::Elu { alpha } => self.apply::<S>(Elu { scale: 1.0, alpha: *alpha }),
                Activation::Selu => self.apply::<S>(Elu { scale: SELU_LAMBDA as f32, alpha: SELU_ALPHA as f32 }),
                Activation::Mish => self.apply::<S>(Mish {}),
                Activation::Softplus => self.apply::<S>(Softplus {}),
            }
        }
    }
}

impl ActivationBlock<'_> {
    /// # Safety
    /// As [`ActivationBlock::run`].
    #[inline(always)]
    unsafe fn ramp<S: Simd>(self, [slope, shift]: [f32; 2], [min, max]: [f32; 2]) {
        let (low, high) = self.activation.breakpoints();
        let (low, high) = (at_most(low), -at_most(-high));
        // SAFETY: the caller's.
        unsafe { self.apply::<S>(Ramp { slope, shift, min, max, low, high }) };
    }

    /// # Safety
    /// As [`ActivationBlock::run`].
    #[inline(always)]
    unsafe fn leaky<S: Simd>(self, slopes: &[f32]) {
        let (Task::Value(Forward::Proxy { slope: least }) | Task::Gradient(_, Gate::Proxy { slope: least })) =
            self.task
        else {
            // SAFETY: the caller's.
            return unsafe { self.apply::<S>(Leaky { slopes, least: f32::NEG_INFINITY }) };
        };
        // The proxy of a leaky function is another leaky function.
        let task = match self.task {
            Task::Value(_) => Task::Value(Forward::Original),
            Task::Gradient(gradient, _) => Task::Gradient(gradient, Gate::Plain),
        };
        // SAFETY: the caller's.
        unsafe { Self { task, ..self }.apply::<S>(Leaky { slopes, least }) };
    }

    /// # Safety
    /// As [`ActivationBlock::run`].
    #[inline(always)]
    unsafe fn apply<S: Simd>(self, function: impl VectorFunction) {
        // SAFETY: the caller's.
        unsafe {
            match self.task {
                Task::Value(forward) => {
                    let line = match forward {
                        Forward::Original => None,
                        Forward::Proxy { slope } => Some(FlatSides::of(self.activation, slope)),
                    };
                    self.for_each_vector::<S>(self.z, Values { function, line });
                }
                Task::Gradient(gradient, gate) => {
                    let rule = SlopeRule::of(gate, &self);
                    self.for_each_vector::<S>(gradient, Gradients { function, rule });
                }
            }
        }
    }

    /// Stores the result of `map` for every vector of the pre-activations and of `other`.
    ///
    /// # Safety
    /// As [`ActivationBlock::run`].
    #[inline(always)]
    unsafe fn for_each_vector<S: Simd>(self, other: Strided, map: impl VectorMap) {
        let Self { z, to, rows, pixels, channel, channels, .. } = self;
        for y in 0..rows {
            for x in 0..pixels {
                let [z, other, to] =
                    [z, other, to].map(|values| values.first.wrapping_add(y * values.row + x * values.pixel));
                let mut c = 0;
                while c < channels {
                    let count = channels - c;
                    // SAFETY: the caller's.
                    unsafe {
                        let (z, other) = (S::load_up_to(z.add(c), count), S::load_up_to(other.add(c), count));
                        let value = map.vector::<S>(z, other, c, channel + c, count);
                        if count >= S::LANES {
                            S::store(to.add(c), value);
                        } else {
                            S::store_some(to.add(c), value, count);
                        }
                    }
                    c += S::LANES;
                }
            }
        }
    }
}

/// A function of pre-activations and another vector. (Closures would not be compiled for the instruction set.)
trait VectorMap: Copy {
    /// The result for the channel at this place of the block, which is `channel` of the activation.
    ///
    /// # Safety
    /// As [`VectorFunction::value`].
    unsafe fn vector<S: Simd>(&self, z: S::V, other: S::V, place: usize, channel: usize, count: usize) -> S::V;
}

/// Values of an activation, or of its proxy.
#[derive(Clone, Copy)]
struct Values<F> {
    function: F,
    line: Option<FlatSides>,
}

impl<F: VectorFunction> VectorMap for Values<F> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, z: S::V, _: S::V, _: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let value = self.function.value::<S>(z, channel, count);
            match self.line {
                None => value,
                Some(line) => S::add(value, line.line::<S>(z)),
            }
        }
    }
}

/// The derivative that a gate uses.
#[derive(Clone, Copy)]
enum SlopeRule<'a> {
    Plain,
    Lifted(FlatSides),
    Soft {
        inverse_temperature: f32,
        inverse_scales: &'a [f32],
        peak: f32,
    },
    /// The same everywhere.
    Constant(f32),
}

impl<'a> SlopeRule<'a> {
    #[inline(always)]
    fn of(gate: Gate, block: &ActivationBlock<'a>) -> Self {
        let peak = block.activation.peak() as f32;
        match gate {
            Gate::Plain | Gate::Redirect | Gate::Soft { temperature: ..=0.0 } => Self::Plain,
            Gate::Proxy { slope } => Self::Lifted(FlatSides::of(block.activation, slope)),
            Gate::Soft { temperature } => {
                let inverse_temperature = (1.0 / temperature).min(MAX_INVERSE_TEMPERATURE);
                Self::Soft { inverse_temperature, inverse_scales: block.inverse_scales, peak }
            }
            Gate::Identity => Self::Constant(peak),
        }
    }
}

/// Gradients times the derivative of a gate.
#[derive(Clone, Copy)]
struct Gradients<'a, F> {
    function: F,
    rule: SlopeRule<'a>,
}

impl<F: VectorFunction> VectorMap for Gradients<'_, F> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, z: S::V, gradient: S::V, place: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's; there is a scale for every channel of the block, if any.
        unsafe {
            let slope = match self.rule {
                SlopeRule::Constant(slope) => S::splat(slope),
                SlopeRule::Soft { inverse_temperature, inverse_scales, peak } => {
                    let mut inverse = S::splat(inverse_temperature);
                    if !inverse_scales.is_empty() {
                        let scale = S::load_up_to(inverse_scales.as_ptr().add(place), count);
                        inverse = S::min(S::mul(scale, inverse), S::splat(MAX_INVERSE_TEMPERATURE));
                    }
                    self.function.soft_derivative::<S>(z, inverse, peak, channel, count)
                }
                SlopeRule::Plain | SlopeRule::Lifted(_) => {
                    let derivative = self.function.derivative::<S>(z, channel, count);
                    match self.rule {
                        SlopeRule::Lifted(sides) => S::add(derivative, sides.slope::<S>(z)),
                        _ => derivative,
                    }
                }
            };
            S::mul(gradient, slope)
        }
    }
}

/// The line that a proxy adds on the flat sides of an activation.
#[derive(Clone, Copy)]
struct FlatSides {
    low: f32,
    high: f32,
    slope: f32,
}

impl FlatSides {
    fn of(activation: &Activation, slope: f32) -> Self {
        let (low, high) = activation.breakpoints();
        Self { low: at_most(low), high: -at_most(-high), slope: (f64::from(slope) * activation.peak()) as f32 }
    }

    /// Value of the line.
    #[inline(always)]
    unsafe fn line<S: Simd>(self, z: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let zero = S::splat(0.0);
            let excess = match self.low > self.high {
                true => z,
                // The difference is the first operand, so at infinite breakpoints there is no excess.
                false => {
                    let below = S::min(S::sub(z, S::splat(self.low)), zero);
                    S::add(below, S::max(S::sub(z, S::splat(self.high)), zero))
                }
            };
            S::mul(S::splat(self.slope), excess)
        }
    }

    /// Its slope on the flat sides, 0 between them.
    #[inline(always)]
    unsafe fn slope<S: Simd>(self, z: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let slope = S::splat(self.slope);
            S::where_greater(
                z,
                S::splat(self.low),
                S::where_greater(S::splat(self.high), z, S::splat(0.0), slope),
                slope,
            )
        }
    }
}

/// The largest f32 of at most `x`: an f32 is above the one if and only if it is above the other.
fn at_most(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) > x { nearest.next_down() } else { nearest }
}

/// A gradient with [`Gate::Redirect`] where the whole gradient of an image vanishes at the activation.
pub(crate) fn redirected(activation: &Activation, z: f32, gradient: f32) -> f32 {
    let ((low, high), z) = (activation.breakpoints(), f64::from(z));
    let outwards = (z <= low && gradient < 0.0) || (z >= high && gradient > 0.0);
    if outwards { 0.0 } else { gradient * activation.peak() as f32 }
}
