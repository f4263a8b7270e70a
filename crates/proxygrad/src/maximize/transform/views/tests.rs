#![allow(clippy::unwrap_used)]
use candle_core::{DType, Device};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Random images `[n,2,height,width]`.
fn images(rng: &mut impl Rng, n: usize, [height, width]: [usize; 2]) -> Tensor {
    let values: Vec<f64> = (0..n * 2 * height * width).map(|_| rng.random::<f64>() - 0.5).collect();
    Tensor::from_vec(values, (n, 2, height, width), &Device::Cpu).unwrap()
}

/// Views of as many images as there are seeds.
fn views(transforms: &[&str], seeds: &[u64], size: [usize; 2]) -> Views {
    let transforms: Vec<Transform> = transforms.iter().map(|text| text.parse().unwrap()).collect();
    let mut streams: Vec<_> = seeds.iter().map(|&seed| ChaCha8Rng::seed_from_u64(seed)).collect();
    Views::draw(&transforms, streams.iter_mut(), size, Arithmetic::Host)
}

fn by_tensors(views: &Views, x: &Tensor, backwards: bool) -> Tensor {
    let mut sampled: Vec<&SampledTransform> = views.sampled.iter().collect();
    if backwards {
        sampled.reverse();
    }
    let run = if backwards { tensors::adjoint } else { tensors::apply };
    sampled.into_iter().fold(x.clone(), |x, transform| run(transform, &x).unwrap())
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).unwrap().sum_all().unwrap().to_scalar().unwrap()
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

const CHAINS: [&[&str]; 14] = [
    &["jitter:3"],
    &["scale:0.7,1.4"],
    &["rotate:40"],
    &["blur:0.8"],
    &["jitter:2@0.5", "scale:0.9,1.1", "rotate:10", "blur:0.5@0.7", "rotate:90"],
    &["rotate:180@0.5", "jitter:1@0.5", "scale:0.2,4", "jitter:200"],
    &["blur:3@0.5", "blur:0.3", "scale:0.3,0.4@0.5"],
    &["crop:0.1,1"],
    &["flip", "rotate:20", "flip@0.3", "crop:0.5,0.5@0.5"],
    &["pad:3@0.5"],
    &["colour:0.7@0.5", "jitter:2", "colour:0.2"],
    &["pad:2", "jitter:2", "crop:0.3,0.6@0.5", "pad:20@0.5", "blur:1", "rotate:30", "jitter:1", "colour:0.1@0.5"],
    &["noise:0.1", "pad:2", "noise:0.3@0.5", "colour:0.3", "noise:1"],
    &["pad:4", "jitter:4", "scale:0.9,1.1", "rotate:10@0.8", "jitter:2"],
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_adjoint_moves_across_the_inner_product(
        chain in 0..CHAINS.len(), seed in 0u64..1000, height in 1usize..12, width in 1usize..12,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let size = [height, width];
        let views = views(CHAINS[chain], &[seed, seed + 1], size);
        let (x, g) = (images(&mut rng, 2, size), images(&mut rng, 2, size));
        // Without the constants that are added.
        let linear = (views.apply(&x).unwrap() - views.apply(&x.zeros_like().unwrap()).unwrap()).unwrap();
        let (left, right) = (dot(&linear, &g), dot(&x, &views.adjoint(&g).unwrap()));
        prop_assert!((left - right).abs() < 1e-9, "{left} and {right}");
    }

    #[test]
    fn loops_and_tensor_operations_agree(
        chain in 0..CHAINS.len(), seed in 0u64..1000, height in 1usize..12, width in 1usize..12,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let size = [height, width];
        let views = views(CHAINS[chain], &[seed, seed + 1, seed + 2], size);
        let x = images(&mut rng, 3, size);
        // Both compute positions in f32.
        prop_assert!(distance(&views.apply(&x).unwrap(), &by_tensors(&views, &x, false)) < 1e-4);
        prop_assert!(distance(&views.adjoint(&x).unwrap(), &by_tensors(&views, &x, true)) < 1e-3);
    }

    #[test]
    fn a_view_does_not_depend_on_its_batch(chain in 0..CHAINS.len(), seed in 0u64..1000, n in 1usize..9) {
        let (mut rng, size) = (ChaCha8Rng::seed_from_u64(seed), [9, 7]);
        let seeds: Vec<u64> = (seed..).take(n).collect();
        let (together, x) = (views(CHAINS[chain], &seeds, size), images(&mut rng, n, size));
        for (i, &seed) in seeds.iter().enumerate() {
            let (alone, one) = (views(CHAINS[chain], &[seed], size), x.narrow(0, i, 1).unwrap());
            let row = |batch: Tensor| values(&batch.get(i).unwrap());
            prop_assert_eq!(values(&alone.apply(&one).unwrap()), row(together.apply(&x).unwrap()));
            prop_assert_eq!(values(&alone.adjoint(&one).unwrap()), row(together.adjoint(&x).unwrap()));
            prop_assert_eq!(values(&by_tensors(&alone, &one, false)), row(by_tensors(&together, &x, false)));
            prop_assert_eq!(values(&by_tensors(&alone, &one, true)), row(by_tensors(&together, &x, true)));
        }
    }
}

#[test]
fn nothing_moves_a_uniform_image() {
    let size = [9, 7];
    let ones = Tensor::ones((1, 2, 9, 7), DType::F64, &Device::Cpu).unwrap();
    for seed in 0..20 {
        let views = views(&["scale:0.5,2", "jitter:3", "blur:2", "rotate:180"], &[seed], size);
        assert!(distance(&views.apply(&ones).unwrap(), &ones) < 1e-5);
    }
}

#[test]
fn noise_is_normal_and_its_own_for_every_image_and_channel() {
    let size = [40, 50];
    let zeros = Tensor::zeros((3, 2, 40, 50), DType::F64, &Device::Cpu).unwrap();
    let views = views(&["noise:0.2"], &[1, 2, 1], size);
    let noise = views.apply(&zeros).unwrap();
    assert_eq!(values(&noise), values(&by_tensors(&views, &zeros, false)));
    assert_eq!(values(&views.adjoint(&noise).unwrap()), values(&noise), "what is added has no derivative");
    let planes: Vec<Vec<f64>> = values(&noise).chunks(2000).map(<[f64]>::to_vec).collect();
    assert!(planes[0] != planes[1] && planes[0] != planes[2], "channels and seeds differ");
    assert_eq!(planes[..2], planes[4..], "the stream decides");
    let mean = |f: fn(f64) -> f64| planes.iter().flatten().map(|&x| f(x / 0.2)).sum::<f64>() / 12_000.0;
    assert!(mean(|x| x).abs() < 0.05, "mean {}", mean(|x| x));
    assert!((mean(|x| x * x) - 1.0).abs() < 0.05, "variance {}", mean(|x| x * x));
    assert!((mean(|x| x.powi(4)) - 3.0).abs() < 0.4, "fourth moment {}", mean(|x| x.powi(4)));
}

#[test]
fn a_margin_is_grey_and_shows_when_the_image_is_moved() {
    let ones = Tensor::ones((1, 2, 4, 4), DType::F64, &Device::Cpu).unwrap();
    for seed in 0..20 {
        let still = views(&["pad:2"], &[seed], [4, 4]);
        assert_eq!(values(&still.apply(&ones).unwrap()), [1.0; 32], "the image is in the middle");
        let moved = views(&["pad:2", "jitter:2"], &[seed], [4, 4]);
        let SampledTransform::Roll(shifts) = &moved.sampled[1] else { panic!("a jitter is a roll") };
        let [down, right] = shifts[0].unwrap();
        let grey = |shift: i32, i: usize| !(shift..shift + 4).contains(&(i as i32));
        let expected = |i: usize| if grey(down, i / 4 % 4) || grey(right, i % 4) { 0.5 } else { 1.0 };
        let expected: Vec<f64> = (0..32).map(expected).collect();
        assert_eq!(values(&moved.apply(&ones).unwrap()), expected, "moved by {down} and {right}");
    }
}

#[test]
fn a_flip_is_exact_and_happens_half_of_the_time() {
    let size = [3, 6];
    let x = images(&mut ChaCha8Rng::seed_from_u64(1), 1, size);
    let flipped = (0..1000).filter(|&seed| {
        let view = values(&views(&["flip"], &[seed], size).apply(&x).unwrap());
        let mirrored = values(&x).chunks(6).flat_map(|row| row.iter().rev().copied()).collect::<Vec<_>>();
        assert!(view == values(&x) || view == mirrored);
        view == mirrored
    });
    assert!((400..600).contains(&flipped.count()));
}

#[test]
fn crops_lie_inside_and_reach_all_corners() {
    // Planes whose values are the positions of the pixels.
    let size = [9, 11];
    let places = (0..2 * 99).map(|i| if i < 99 { (i / 11) as f64 } else { (i % 11) as f64 });
    let x = Tensor::from_vec(places.collect::<Vec<_>>(), (1, 2, 9, 11), &Device::Cpu).unwrap();
    let mut corners = [[f64::MAX, f64::MIN]; 2];
    for seed in 0..300 {
        let view = values(&views(&["crop:0.25,0.25"], &[seed], size).apply(&x).unwrap());
        for (axis, (plane, length)) in view.chunks(99).zip([9.0, 11.0]).enumerate() {
            let (first, last) = (plane[0], plane[98]);
            assert!((last - first - 0.5 * (length - 1.0)).abs() < 1e-4, "half of each side: {first} to {last}");
            corners[axis] = [corners[axis][0].min(first), corners[axis][1].max(last)];
        }
    }
    let [[top, bottom], [left, right]] = corners;
    assert!(top < 0.2 && left < 0.2 && bottom > 7.8 && right > 9.8, "{corners:?}");
}

#[test]
fn colours_change_as_they_are_defined() {
    let x = Tensor::new(&[[[[0.3f64]], [[0.9]], [[0.6]]]], &Device::Cpu).unwrap();
    let colour = colour::Colour::new(0.05, 1.2, 0.5);
    let sampled = vec![SampledTransform::Colour(vec![Some(colour)])];
    let views = Views { size: [1, 1], sampled, arithmetic: Arithmetic::Host };
    // Halfway to the mean 0.6, then 1.2 times as far from 0.5, then brighter.
    let expected = [0.45, 0.75, 0.6].map(|x| 0.5 + 1.2 * (x - 0.5) + 0.05);
    for view in [views.apply(&x).unwrap(), by_tensors(&views, &x, false)] {
        for (found, expected) in values(&view).into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        }
    }
}

#[test]
fn a_quarter_turn_is_a_quarter_turn() {
    let quarter = Linear::rotation(std::f32::consts::FRAC_PI_2);
    let mut x = vec![0f64; 25];
    x[1] = 1.0;
    let mut turned = vec![0f64; 25];
    sampling::apply(quarter, [5, 5], &x, &mut turned);
    let at: Vec<usize> = (0..25).filter(|&i| turned[i] > 0.999).collect();
    assert!(at == [9] || at == [15], "the pixel at row 0, column 1 went to {at:?}");
}

#[test]
fn jitter_reaches_both_ends_and_only_them() {
    let seeds: Vec<u64> = (0..200).collect();
    let views = views(&["jitter:2"], &seeds, [9, 7]);
    let SampledTransform::Roll(shifts) = &views.sampled[0] else { panic!("a jitter is a roll") };
    let seen: std::collections::BTreeSet<i32> = shifts.iter().flatten().map(|shift| shift[0]).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [-2, -1, 0, 1, 2]);
}
