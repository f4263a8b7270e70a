//! Accuracy of the vector functions against f64, on numbers of every magnitude.
#![expect(unsafe_code, reason = "vector code")]

use crate::engine::cpu::activation::{ActivationBlock, Strided, Task};
use crate::engine::cpu::simd::Instructions;
use crate::engine::cpu::simd::math::{exp, exp_m1, ln_1p, logistic, normal, tanh};
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::engine::cpu::tests::instruction_sets;
use crate::engine::{Forward, Gate};
use crate::network::{Activation, Array};

/// Numbers of every exponent and both signs, zeros, subnormal numbers, infinities and NaN, and a fine grid around 0.
fn arguments() -> Vec<f32> {
    let step = if cfg!(miri) { 1 << 24 } else { (1 << 17) + 1 };
    let mut numbers: Vec<f32> = (0..=u32::MAX).step_by(step).map(f32::from_bits).collect();
    let grid = if cfg!(miri) { 100 } else { 6000 };
    numbers.extend((-grid..=grid).map(|i| i as f32 * 18.0 / grid as f32));
    numbers.extend((-grid..=grid).map(|i| i as f32 * 110.0 / grid as f32));
    for edge in [0.0, 3.0, 6.0, 1.0, 0.5, 88.72, 87.33, 103.9, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE, f32::NAN] {
        numbers.extend([edge, -edge, edge.next_up(), edge.next_down(), -edge.next_up(), -edge.next_down()]);
    }
    numbers
}

/// Whether two results agree within a relative error, or an absolute one of `floor`.
fn agree(found: f32, exact: f64, relative: f64, floor: f64) -> bool {
    if exact.is_nan() || found.is_nan() {
        return exact.is_nan() && found.is_nan();
    }
    if found.is_infinite() {
        return exact.abs() > f64::from(f32::MAX) * (1.0 - relative) && (exact > 0.0) == (found > 0.0);
    }
    (f64::from(found) - exact).abs() <= relative * exact.abs() + floor
}

/// The smallest subnormal number: results below the normal numbers cannot be closer.
const LAST_PLACE: f64 = 1.5e-45;

/// Functions by their place in [`Functions`].
struct Functions<'a>(&'a [f32], usize, &'a mut [f32]);

impl SimdOp for Functions<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self(x, function, to) = self;
        // SAFETY: the set was checked; no more values than there are.
        unsafe {
            for at in (0..x.len()).step_by(S::LANES) {
                let count = x.len() - at;
                let x = S::load_up_to(x.as_ptr().add(at), count);
                let value = match function {
                    0 => exp::<S>(x),
                    1 => exp_m1::<S>(x),
                    2 => ln_1p::<S>(x),
                    3 => tanh::<S>(x),
                    4 => logistic::<S>(x),
                    5 => normal::<S>(x).0,
                    _ => normal::<S>(x).1,
                };
                S::store_some(to.as_mut_ptr().add(at), value, count.min(S::LANES));
            }
        }
    }
}

#[test]
fn functions_are_accurate_to_f32_over_the_whole_range() {
    let normal_cdf = |x: f64| candle_core::cpu::erf::erfc_f64(-x / std::f64::consts::SQRT_2) / 2.0;
    let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    type Exact<'a> = &'a dyn Fn(f64) -> f64;
    let functions: [(&str, Exact<'_>, [f64; 2], f64); 7] = [
        ("exp", &f64::exp, [f64::NEG_INFINITY, f64::INFINITY], 2e-7),
        ("exp_m1", &f64::exp_m1, [f64::NEG_INFINITY, 0.0], 3e-7),
        ("ln_1p", &f64::ln_1p, [0.0, 1.0], 3e-7),
        ("tanh", &f64::tanh, [f64::NEG_INFINITY, f64::INFINITY], 3e-7),
        ("logistic", &|x| 1.0 / (1.0 + (-x).exp()), [f64::NEG_INFINITY, f64::INFINITY], 3e-7),
        ("normal", &normal_cdf, [f64::NEG_INFINITY, f64::INFINITY], 5e-7),
        ("density", &density, [f64::NEG_INFINITY, f64::INFINITY], 3e-7),
    ];
    let arguments = arguments();
    for set in instruction_sets() {
        for (i, (name, exact, [low, high], relative)) in functions.iter().enumerate() {
            let x: Vec<f32> =
                arguments.iter().copied().filter(|x| !(f64::from(*x) < *low || f64::from(*x) > *high)).collect();
            let mut found = vec![0.0; x.len()];
            // SAFETY: the set is available.
            unsafe { set.run(Functions(&x, i, &mut found)) };
            for (&x, &found) in x.iter().zip(&found) {
                let exact = exact(f64::from(x));
                assert!(
                    agree(found, exact, *relative, LAST_PLACE),
                    "{set:?}: {name}({x:e}) = {found:e}, not {exact:e}"
                );
            }
        }
    }
}

/// Computes an activation of some values, as one pixel.
fn evaluate(set: Instructions, activation: &Activation, z: &[f32], gate: Option<Gate>, forward: Forward) -> Vec<f32> {
    let (mut to, ones) = (vec![f32::NAN; z.len()], vec![1f32; z.len()]);
    let strided = |first: *const f32| Strided { first: first.cast_mut(), row: 0, pixel: 0 };
    let task = match gate {
        None => Task::Value(forward),
        Some(gate) => Task::Gradient(strided(ones.as_ptr()), gate),
    };
    let (z_here, channels) = (strided(z.as_ptr()), z.len());
    let to_here = Strided { first: to.as_mut_ptr(), row: 0, pixel: 0 };
    let block = ActivationBlock {
        activation,
        task,
        z: z_here,
        to: to_here,
        rows: 1,
        pixels: 1,
        channel: 0,
        channels,
        inverse_scales: &[],
    };
    // SAFETY: the set is available, and all slices have the same length.
    unsafe { set.run(block) };
    to
}

fn activations() -> Vec<Activation> {
    vec![
        Activation::Relu,
        Activation::LeakyRelu { slope: 0.15 },
        Activation::PRelu { slopes: Array::vector(vec![-0.3]) },
        Activation::Clip { min: -0.5, max: 0.8 },
        Activation::HardSigmoid { alpha: 0.4, beta: 0.6 },
        Activation::HardSwish,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Silu,
        Activation::QuickGelu,
        Activation::Gelu { tanh: true },
        Activation::Gelu { tanh: false },
        Activation::Elu { alpha: 0.7 },
        Activation::Selu,
        Activation::Mish,
        Activation::Softplus,
    ]
}

#[test]
fn activations_are_accurate_to_f32_over_the_whole_range() {
    let gates = [
        Gate::Plain,
        Gate::Proxy { slope: 0.25 },
        Gate::Soft { temperature: 0.5 },
        Gate::Soft { temperature: 0.0 },
        Gate::Identity,
    ];
    let arguments = arguments();
    for (set, activation) in instruction_sets().flat_map(|set| activations().into_iter().map(move |a| (set, a))) {
        let name = activation.name();
        // The cubic polynomial, or the multiple, of the approximate GELUs is rounded before its exponential is taken.
        let is_rounded = matches!(activation, Activation::Gelu { tanh: true } | Activation::QuickGelu);
        let relative = if is_rounded { 1.5e-5 } else { 5e-7 };
        for forward in [Forward::Original, Forward::Proxy { slope: 0.25 }] {
            let found = evaluate(set, &activation, &arguments, None, forward);
            for (&z, &found) in arguments.iter().zip(&found) {
                let exact = match forward {
                    Forward::Original => activation.value(f64::from(z), 0),
                    Forward::Proxy { slope } => activation.proxy_value(f64::from(z), f64::from(slope), 0),
                };
                // The f64 definitions of both GELUs cancel at negative z. A ramp and a proxy are sums that may be near 0.
                let sum = forward != Forward::Original || matches!(activation, Activation::HardSigmoid { .. });
                let floor = if sum { 5e-7 } else { 1e-15 * f64::from(z).abs().min(10.0) + LAST_PLACE };
                // The definitions of the piecewise linear functions turn NaN into a number.
                let close = (z.is_nan() && found.is_nan()) || agree(found, exact, relative, floor);
                assert!(close, "{set:?}: {name}, {forward:?}: {found:e} at {z:e}, not {exact:e}");
            }
        }
        // A derivative that passes through 0 has an absolute error. At an infinity it may be the limit instead of NaN.
        let finite: Vec<f32> = arguments.iter().copied().filter(|z| z.is_finite()).collect();
        for gate in gates {
            let found = evaluate(set, &activation, &finite, Some(gate), Forward::Original);
            for (&z, &found) in finite.iter().zip(&found) {
                let exact = match gate {
                    Gate::Plain | Gate::Redirect => activation.derivative(f64::from(z), 0),
                    Gate::Proxy { slope } => activation.proxy_derivative(f64::from(z), f64::from(slope), 0),
                    Gate::Soft { temperature } => activation.soft_derivative(f64::from(z), f64::from(temperature), 0),
                    Gate::Identity => activation.peak(),
                };
                assert!(
                    agree(found, exact, 5e-7, 4e-7),
                    "{set:?}: {name}, {gate:?}: {found:e} at {z:e}, not {exact:e}"
                );
            }
        }
    }
}

#[test]
fn a_value_does_not_depend_on_its_place_in_a_row() {
    let z: Vec<f32> = (0..67).map(|i| (i * 37 % 67) as f32 * 0.3 - 10.0).collect();
    for (set, activation) in instruction_sets().flat_map(|set| activations().into_iter().map(move |a| (set, a))) {
        for gate in [None, Some(Gate::Plain), Some(Gate::Soft { temperature: 0.5 })] {
            let whole = evaluate(set, &activation, &z, gate, Forward::Original);
            for first in [1, 5, 16, 30] {
                let part = evaluate(set, &activation, &z[first..], gate, Forward::Original);
                assert_eq!(part, whole[first..], "{set:?}: {}, {gate:?}", activation.name());
            }
        }
    }
}
