//! Activations and their gates in vector code, on rows of pixels.
#![expect(unsafe_code, reason = "loads and stores through pointers")]

mod function;

use self::function::{
    Elu, Gelu, GeluTanh, HardSwish, Leaky, Mish, Ramp, Sigmoid, Silu, Softplus, Tanh, VectorFunction,
};
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::engine::{Forward, Gate};
use crate::network::{Activation, SELU_ALPHA, SELU_LAMBDA};

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
}

impl SimdOp for ActivationBlock<'_> {
    type Output = ();

    /// # Safety
    /// All channels of all pixels are readable and writable; a PReLU has a slope for each channel, or one for all.
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        if let Task::Gradient(gradient, Gate::Soft { temperature: ..=0.0 }) = self.task {
            self.task = Task::Gradient(gradient, Gate::Plain);
        }
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
        let peak = self.activation.peak() as f32;
        // SAFETY: the caller's.
        unsafe {
            match self.task {
                Task::Value(Forward::Original) => {
                    self.for_each_vector::<S>(|z, _, c, count| function.value::<S>(z, c, count));
                }
                Task::Value(Forward::Proxy { slope }) => {
                    let sides = FlatSides::of(self.activation, slope);
                    self.for_each_vector::<S>(|z, _, c, count| {
                        S::add(function.value::<S>(z, c, count), sides.line::<S>(z))
                    });
                }
                Task::Gradient(_, Gate::Plain | Gate::Redirect) => {
                    self.for_each_vector::<S>(|z, gradient, c, count| {
                        S::mul(gradient, function.derivative::<S>(z, c, count))
                    })
                }
                Task::Gradient(_, Gate::Proxy { slope }) => {
                    let sides = FlatSides::of(self.activation, slope);
                    self.for_each_vector::<S>(|z, gradient, c, count| {
                        S::mul(gradient, S::add(function.derivative::<S>(z, c, count), sides.slope::<S>(z)))
                    });
                }
                Task::Gradient(_, Gate::Soft { temperature }) => {
                    let inverse = S::splat((1.0 / temperature).min(MAX_INVERSE_TEMPERATURE));
                    self.for_each_vector::<S>(|z, gradient, c, count| {
                        S::mul(gradient, function.soft_derivative::<S>(z, inverse, peak, c, count))
                    });
                }
                Task::Gradient(_, Gate::Identity) => {
                    self.for_each_vector::<S>(|_, gradient, _, _| S::mul(gradient, S::splat(peak)));
                }
            }
        }
    }

    /// Stores the result of `f` for every vector; it takes the pre-activations, the gradient (or the pre-activations
    /// again), the first channel and the number of channels left.
    ///
    /// # Safety
    /// As [`ActivationBlock::run`].
    #[inline(always)]
    unsafe fn for_each_vector<S: Simd>(self, f: impl Fn(S::V, S::V, usize, usize) -> S::V) {
        let Self { task, z, to, rows, pixels, channel, channels, .. } = self;
        let gradient = if let Task::Gradient(gradient, _) = task { gradient } else { z };
        for (y, x) in (0..rows).flat_map(|y| (0..pixels).map(move |x| (y, x))) {
            let at = |values: Strided| values.first.wrapping_add(y * values.row + x * values.pixel);
            let (z, gradient, to) = (at(z), at(gradient), at(to));
            let mut c = 0;
            while c + S::LANES <= channels {
                // SAFETY: the caller's.
                unsafe {
                    let value = f(S::load(z.add(c)), S::load(gradient.add(c)), channel + c, S::LANES);
                    S::store(to.add(c), value);
                }
                c += S::LANES;
            }
            let count = channels - c;
            if count > 0 {
                // SAFETY: as above.
                unsafe {
                    let (z, gradient) = (S::load_some(z.add(c), count), S::load_some(gradient.add(c), count));
                    S::store_some(to.add(c), f(z, gradient, channel + c, count), count);
                }
            }
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
