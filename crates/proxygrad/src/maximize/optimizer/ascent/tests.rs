#![allow(clippy::unwrap_used)]
use candle_core::Device;

use super::*;

/// Parameters and gradients of four images of twelve values: an ordinary one, one with a zero gradient, one with a NaN,
/// one with a faint gradient.
fn batch(shape: &[usize]) -> (Tensor, Tensor) {
    let parameters: Vec<f32> = (0..48).map(|i| 0.02 * i as f32).collect();
    let mut gradients: Vec<f32> = (0..48).map(|i| (i as f32 * 1.7).sin()).collect();
    gradients[12..24].fill(0.0);
    gradients[28] = f32::NAN;
    gradients[36..].iter_mut().for_each(|g| *g *= 1e-38);
    let tensor = |values: Vec<f32>| Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    (tensor(parameters), tensor(gradients))
}

const IMAGES: &[usize] = &[4, 2, 2, 3];

/// Pixels, vectors, and parameters with more axes.
const SHAPES: [&[usize]; 3] = [IMAGES, &[4, 12], &[4, 2, 1, 3, 2]];

const KINDS: [OptimizerKind; 5] = [
    OptimizerKind::L2Ascent,
    OptimizerKind::SpectralAscent,
    OptimizerKind::Momentum,
    OptimizerKind::Adam,
    OptimizerKind::Nadam,
];

fn ascent(kind: OptimizerKind, parameters: &Tensor, range: Range, arithmetic: Arithmetic) -> Ascent {
    Ascent::new(&Optimizer { kind, lr: 0.05, decay: Decay::Cosine }, parameters, 8, range, arithmetic).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn host_and_device_arithmetic_agree() {
    for (kind, shape) in KINDS.into_iter().flat_map(|kind| SHAPES.map(|shape| (kind, shape))) {
        let (start, gradients) = batch(shape);
        for range in [Range::Free, Range::Pixels] {
            let [mut host, mut device] =
                [Arithmetic::Host, Arithmetic::Device].map(|arithmetic| ascent(kind, &start, range, arithmetic));
            let (mut a, mut b) = (start.clone(), start.clone());
            for step in 0..5 {
                let gradients = gradients.affine(1.0 - 0.3 * f64::from(step), 0.0).unwrap();
                a = host.step(&a, &gradients, step).unwrap();
                b = device.step(&b, &gradients, step).unwrap();
                for (a, b) in values(&a).into_iter().zip(values(&b)) {
                    assert!((a - b).abs() < 1e-5, "{kind:?}, {shape:?}, step {step}: {a} and {b}");
                }
            }
            assert_eq!(host.non_finite_gradients().unwrap(), device.non_finite_gradients().unwrap());
            assert_eq!(host.non_finite_gradients().unwrap(), [false, false, true, false]);
            assert_eq!(host.moves.to_vec1::<f32>().unwrap(), device.moves.to_vec1::<f32>().unwrap());
        }
    }
}

#[test]
fn an_image_without_a_usable_gradient_stays_and_no_other_notices() {
    for (kind, shape) in KINDS.into_iter().flat_map(|kind| SHAPES.map(|shape| (kind, shape))) {
        let (start, gradients) = batch(shape);
        for arithmetic in [Arithmetic::Host, Arithmetic::Device] {
            let mut together = ascent(kind, &start, Range::Free, arithmetic);
            let first = together.step(&start, &gradients, 0).unwrap();
            let second = together.step(&first, &gradients, 1).unwrap();
            for i in 0..4 {
                let one = |batch: &Tensor| batch.narrow(0, i, 1).unwrap();
                let mut alone = ascent(kind, &one(&start), Range::Free, arithmetic);
                let once = alone.step(&one(&start), &one(&gradients), 0).unwrap();
                let twice = alone.step(&once, &one(&gradients), 1).unwrap();
                assert_eq!(values(&twice), values(&one(&second)), "{kind:?}, {shape:?}, image {i}");
            }
            assert_eq!(values(&second)[12..36], values(&start)[12..36], "{kind:?}");
        }
    }
}

#[test]
fn pixels_end_in_their_range_and_other_parameters_go_where_they_go() {
    let (start, gradients) = batch(IMAGES);
    for kind in KINDS {
        let by = |range| {
            let optimizer = Optimizer { kind, lr: 3.0, decay: Decay::None };
            let mut ascent = Ascent::new(&optimizer, &start, 8, range, Arithmetic::Host).unwrap();
            values(&ascent.step(&start, &gradients, 0).unwrap())
        };
        let (free, pixels) = (by(Range::Free), by(Range::Pixels));
        assert!(free.iter().any(|x| *x < 0.0) && free.iter().any(|x| *x > 1.0), "{kind:?}: {free:?}");
        assert_eq!(pixels, free.iter().map(|x| x.clamp(0.0, 1.0)).collect::<Vec<_>>(), "{kind:?}");
    }
}

#[test]
fn a_step_of_l2_ascent_has_its_length_however_faint_the_gradient_is() {
    let (start, gradients) = batch(IMAGES);
    let mut ascent = ascent(OptimizerKind::L2Ascent, &start, Range::Free, Arithmetic::Host);
    let next = ascent.step(&start, &gradients, 0).unwrap();
    let lengths = (next - start).unwrap().sqr().unwrap().flatten_from(1).unwrap().sum(1).unwrap();
    for (length, expected) in values(&lengths.sqrt().unwrap()).into_iter().zip([0.05, 0.0, 0.0, 0.05]) {
        assert!((length - expected).abs() < 1e-6, "{length}, not {expected}");
    }
}

#[test]
fn a_step_of_momentum_is_as_long_for_every_value_with_a_gradient_however_few_there_are() {
    let start = Tensor::full(0.5f32, IMAGES, &Device::Cpu).unwrap();
    let gradient = |i: usize| if i % 12 < 12 / (1 + i / 12) { (i as f32).cos() } else { 0.0 };
    let gradients = Tensor::from_vec((0..48).map(gradient).collect::<Vec<_>>(), IMAGES, &Device::Cpu).unwrap();
    for arithmetic in [Arithmetic::Host, Arithmetic::Device] {
        let mut ascent = ascent(OptimizerKind::Momentum, &start, Range::Pixels, arithmetic);
        let next = ascent.step(&start, &gradients, 0).unwrap();
        let squares = values(&(next - &start).unwrap().sqr().unwrap().flatten_from(1).unwrap().sum(1).unwrap());
        for (square, seen) in squares.into_iter().zip([12.0f32, 6.0, 4.0, 3.0]) {
            assert!(((square / seen).sqrt() - 0.05).abs() < 1e-6, "{square} over {seen} values");
        }
    }
}

/// Singular values 5, 3 and 1: `U diag(5, 3, 1) V^T` of four rows and three columns.
fn known_singular_values(scale: f32) -> Tensor {
    let (u, v) = ([[0.5f32, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5], [0.5, -0.5, -0.5]], [1.0f32, 2.0, 2.0]);
    // The columns of the Householder matrix that mirrors along v.
    let mirror = |i: usize, j: usize| f32::from(u8::from(i == j)) - 2.0 * v[i] * v[j] / 9.0;
    let value = |i: usize, j: usize| (0..3).map(|k| u[i][k] * [5.0, 3.0, 1.0][k] * mirror(j, k)).sum::<f32>() * scale;
    let values: Vec<f32> = (0..12).map(|at| value(at / 3, at % 3)).collect();
    Tensor::from_vec(values, (1, 2, 2, 3), &Device::Cpu).unwrap()
}

#[test]
fn a_step_of_spectral_ascent_is_the_gradient_over_its_largest_singular_value() {
    for scale in [1.0, 1e-30] {
        let gradient = known_singular_values(scale);
        let start = gradient.zeros_like().unwrap();
        for arithmetic in [Arithmetic::Host, Arithmetic::Device] {
            let mut ascent = ascent(OptimizerKind::SpectralAscent, &start, Range::Free, arithmetic);
            let next = ascent.step(&start, &gradient, 0).unwrap();
            for (x, g) in values(&next).into_iter().zip(values(&gradient)) {
                let expected = 0.05 * (g / scale) / 5.0;
                assert!((x - expected).abs() < 1e-5, "{x}, not {expected}, at scale {scale}");
            }
        }
    }
}

#[test]
fn adam_and_nadam_are_what_their_papers_say() {
    let gradient = |t: i32| [0.3 - 0.1 * f64::from(t), 2.0, -0.5 * f64::from(t % 2)];
    for kind in [OptimizerKind::Adam, OptimizerKind::Nadam] {
        let (mut expected, mut m, mut v) = ([0.4, 0.5, 0.6], [0.0; 3], [0.0; 3]);
        let mut found = Tensor::new(&[expected], &Device::Cpu).unwrap();
        let optimizer = Optimizer { kind, lr: 0.25, decay: Decay::None };
        let mut ascent = Ascent::new(&optimizer, &found, 6, Range::Free, Arithmetic::Host).unwrap();
        for t in 1..=6i32 {
            let g = gradient(t);
            for (((x, m), v), g) in expected.iter_mut().zip(&mut m).zip(&mut v).zip(g) {
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.999 * *v + 0.001 * g * g;
                let share = |beta: f64, t: i32| 1.0 - beta.powi(t);
                let mean = match kind {
                    OptimizerKind::Adam => *m / share(0.9, t),
                    _ => 0.9 * *m / share(0.9, t + 1) + 0.1 * g / share(0.9, t),
                };
                *x += f64::from(0.25f32) * mean / ((*v / share(0.999, t)).sqrt() + 1e-8);
            }
            let gradient = Tensor::new(&[g], &Device::Cpu).unwrap();
            found = ascent.step(&found, &gradient, t.unsigned_abs() - 1).unwrap();
            for (found, expected) in found.to_vec2::<f64>().unwrap()[0].iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "{kind:?}, step {t}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn cosine_decay_leads_from_the_whole_step_size_to_none() {
    let start = Tensor::zeros((1, 1, 1, 1), DType::F64, &Device::Cpu).unwrap();
    let optimizer = |decay| Optimizer { kind: OptimizerKind::L2Ascent, lr: 1.0, decay };
    let lengths = |decay| {
        let mut ascent = Ascent::new(&optimizer(decay), &start, 4, Range::Free, Arithmetic::Host).unwrap();
        let mut step = |t| ascent.step(&start, &start.ones_like().unwrap(), t).unwrap().sum_all().unwrap();
        (0..5).map(|t| step(t).to_scalar::<f64>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(lengths(Decay::None), [1.0; 5]);
    let eighth = std::f64::consts::FRAC_PI_4.cos();
    let expected = [1.0, (1.0 + eighth) / 2.0, 0.5, (1.0 - eighth) / 2.0, 0.0];
    for (length, expected) in lengths(Decay::Cosine).into_iter().zip(expected) {
        assert!((length - expected).abs() < 1e-12, "{length}, not {expected}");
    }
}

#[test]
fn images_that_are_kept_keep_what_is_known_of_them() {
    let (start, gradients) = batch(IMAGES);
    for kind in KINDS {
        let mut all = ascent(kind, &start, Range::Pixels, Arithmetic::Host);
        let first = all.step(&start, &gradients, 0).unwrap();
        let mut some = ascent(kind, &start, Range::Pixels, Arithmetic::Host);
        some.step(&start, &gradients, 0).unwrap();
        let rows = Tensor::new(&[0u32, 3], &Device::Cpu).unwrap();
        let kept = |batch: &Tensor| batch.index_select(&rows, 0).unwrap();
        some.retain_rows(&rows).unwrap();
        let second = all.step(&first, &gradients, 1).unwrap();
        assert_eq!(values(&some.step(&kept(&first), &kept(&gradients), 1).unwrap()), values(&kept(&second)));
        assert_eq!(some.non_finite_gradients().unwrap(), [false; 2]);
        assert_eq!(some.moves.to_vec1::<f32>().unwrap(), [2.0; 2]);
    }
}
