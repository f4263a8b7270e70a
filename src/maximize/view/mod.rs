//! Transforms at work: concrete views of a batch of images and their adjoints.
//!
//! Every image has its own view, a chain of linear maps. In main memory plain loops take each image through its whole
//! chain; elsewhere all images go through one map after the other, as tensor operations.

mod blur;
mod linear;
mod roll;
mod sampling;
mod tensors;

use candle_core::{Result, Tensor, WithDType};
use rand::{Rng, RngExt};

use self::blur::Blur;
use self::linear::Linear;
use super::host::{self, Real, for_type_of};
use super::transform::{Transform, TransformKind};

/// One drawn view for every image of a batch.
#[derive(Debug)]
pub(super) struct Views {
    /// Height and width of the images.
    size: [usize; 2],
    /// The maps in the order that they are applied in.
    slots: Vec<Slot>,
}

/// One map of every chain: an entry per image, nothing where its chain goes without.
#[derive(Debug)]
enum Slot {
    /// Shifts down and to the right, in pixels.
    Roll(Vec<Option<[i32; 2]>>),
    Sample(Vec<Option<Linear>>),
    Blur(Blur, Vec<bool>),
}

/// One map of one image's chain.
enum Map<'a> {
    Roll([i32; 2]),
    Sample(Linear),
    Blur(&'a Blur),
}

impl Slot {
    fn map(&self, image: usize) -> Option<Map<'_>> {
        match self {
            Self::Roll(shifts) => shifts[image].map(Map::Roll),
            Self::Sample(linears) => linears[image].map(Map::Sample),
            Self::Blur(blur, on) => on[image].then_some(Map::Blur(blur)),
        }
    }

    fn is_used(&self) -> bool {
        match self {
            Self::Roll(shifts) => shifts.iter().any(Option::is_some),
            Self::Sample(linears) => linears.iter().any(Option::is_some),
            Self::Blur(_, on) => on.contains(&true),
        }
    }
}

/// Zooms and rotations are collected until a map of another kind follows: they are one sampling.
fn slots(transforms: &[Transform], size: [usize; 2]) -> Vec<Slot> {
    let mut slots = vec![];
    for transform in transforms {
        let slot = match transform.kind {
            TransformKind::Jitter { .. } => Slot::Roll(Vec::new()),
            TransformKind::Blur { sigma } => Slot::Blur(Blur::new(sigma, size), Vec::new()),
            TransformKind::Scale { .. } | TransformKind::Rotate { .. } => continue,
        };
        slots.extend([Slot::Sample(Vec::new()), slot]);
    }
    slots.push(Slot::Sample(Vec::new()));
    slots
}

impl Views {
    /// Draws a view of images of height and width `size` from each stream. How many random numbers are drawn depends on
    /// the transforms alone, so that a run does not depend on what its draws were.
    pub(super) fn draw<'a, R: Rng + 'a>(
        transforms: &[Transform],
        streams: impl IntoIterator<Item = &'a mut R>,
        size: [usize; 2],
    ) -> Self {
        let mut slots = slots(transforms, size);
        for rng in streams {
            draw_chain(transforms, rng, &mut slots);
        }
        slots.retain(Slot::is_used);
        Self { size, slots }
    }

    /// The views of `images` `[N,C,H,W]`.
    pub(super) fn apply(&self, images: &Tensor) -> Result<Tensor> {
        if self.slots.is_empty() {
            return Ok(images.clone());
        }
        if host::suits(images.device(), images.dtype()) {
            return for_type_of!(images, T => self.run::<T>(images, false));
        }
        self.slots.iter().try_fold(images.clone(), |x, slot| tensors::apply(slot, &x))
    }

    /// The adjoint: from gradients with respect to the views to gradients with respect to the images.
    pub(super) fn adjoint(&self, gradients: &Tensor) -> Result<Tensor> {
        if self.slots.is_empty() {
            return Ok(gradients.clone());
        }
        if host::suits(gradients.device(), gradients.dtype()) {
            return for_type_of!(gradients, T => self.run::<T>(gradients, true));
        }
        self.slots.iter().rev().try_fold(gradients.clone(), |g, slot| tensors::adjoint(slot, &g))
    }

    /// Takes every image through its chain, or through the adjoint of its chain: plane by plane, since one plane and
    /// what becomes of it stay in a processor's own cache.
    fn run<T: Real>(&self, batch: &Tensor, backwards: bool) -> Result<Tensor> {
        let [_, channels, area] = host::planes(batch)?;
        host::fill_like::<T>(batch, area, |plane, values, result| {
            let mut chain: Vec<Map<'_>> = self.slots.iter().filter_map(|slot| slot.map(plane / channels)).collect();
            if backwards {
                chain.reverse();
            }
            let source = &values[plane * area..][..area];
            follow(&chain, source, result, |map, from, to| map.run(self.size, backwards, from, to));
        })
    }
}

/// Draws one more view: an entry for every slot.
fn draw_chain(transforms: &[Transform], rng: &mut impl Rng, slots: &mut [Slot]) {
    let mut linear: Option<Linear> = None;
    let mut slots = slots.iter_mut();
    for transform in transforms {
        let applied = rng.random::<f32>() < transform.probability;
        let (u, v) = (rng.random::<f32>(), rng.random::<f32>());
        match transform.kind {
            TransformKind::Scale { low, high } if applied => {
                linear = Some(Linear::zoom(low + (high - low) * u).after(linear));
            }
            TransformKind::Rotate { degrees } if applied => {
                let angle = degrees * (2.0 * u - 1.0);
                linear = Some(Linear::rotation(angle.to_radians()).after(linear));
            }
            TransformKind::Scale { .. } | TransformKind::Rotate { .. } => {}
            TransformKind::Jitter { pixels } => {
                let shift = |u: f32| (u * (2 * pixels + 1) as f32).floor() as i32 - pixels as i32;
                enter(slots.next(), linear.take_if(|_| applied), None, false);
                enter(slots.next(), None, applied.then(|| [shift(u), shift(v)]), false);
            }
            TransformKind::Blur { .. } => {
                enter(slots.next(), linear.take_if(|_| applied), None, false);
                enter(slots.next(), None, None, applied);
            }
        }
    }
    enter(slots.next(), linear, None, false);
}

/// Adds one image's entry, of the slot's kind, to a slot.
fn enter(slot: Option<&mut Slot>, linear: Option<Linear>, shift: Option<[i32; 2]>, blurred: bool) {
    match slot {
        Some(Slot::Sample(linears)) => linears.push(linear),
        Some(Slot::Roll(shifts)) => shifts.push(shift),
        Some(Slot::Blur(_, on)) => on.push(blurred),
        None => {}
    }
}

/// Carries `source` through the maps of a chain into `result`, which is as long.
fn follow<T: WithDType, M>(chain: &[M], source: &[T], result: &mut [T], run: impl Fn(&M, &[T], &mut [T])) {
    let Some((first, rest)) = chain.split_first() else {
        result.copy_from_slice(source);
        return;
    };
    let mut other = vec![T::zero(); if rest.is_empty() { 0 } else { result.len() }];
    // Each map leads from one buffer to the other, and the last one into the result.
    let (mut to, mut next) = if rest.len() % 2 == 0 { (result, &mut other[..]) } else { (&mut other[..], result) };
    run(first, source, to);
    for map in rest {
        run(map, to, next);
        (to, next) = (next, to);
    }
}

impl Map<'_> {
    /// Maps a plane of height and width `size`, or carries gradients back.
    fn run<T: Real>(&self, size: [usize; 2], backwards: bool, from: &[T], to: &mut [T]) {
        match (self, backwards) {
            (Map::Roll(shift), false) => roll::roll(*shift, size, from, to),
            (Map::Roll(shift), true) => roll::roll(shift.map(|s| -s), size, from, to),
            (Map::Sample(linear), false) => sampling::apply(*linear, size, from, to),
            (Map::Sample(linear), true) => sampling::adjoint(*linear, size, from, to),
            (Map::Blur(blur), false) => blur.apply(from, to),
            (Map::Blur(blur), true) => blur.adjoint(from, to),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device};
    use proptest::prelude::*;
    use rand::SeedableRng;
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
        Views::draw(&transforms, streams.iter_mut(), size)
    }

    fn by_tensors(views: &Views, x: &Tensor, backwards: bool) -> Tensor {
        let mut slots: Vec<&Slot> = views.slots.iter().collect();
        if backwards {
            slots.reverse();
        }
        let run = if backwards { tensors::adjoint } else { tensors::apply };
        slots.into_iter().fold(x.clone(), |x, slot| run(slot, &x).unwrap())
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

    const CHAINS: [&[&str]; 7] = [
        &["jitter:3"],
        &["scale:0.7,1.4"],
        &["rotate:40"],
        &["blur:0.8"],
        &["jitter:2@0.5", "scale:0.9,1.1", "rotate:10", "blur:0.5@0.7", "rotate:90"],
        &["rotate:180@0.5", "jitter:1@0.5", "scale:0.2,4", "jitter:200"],
        &["blur:3@0.5", "blur:0.3", "scale:0.3,0.4@0.5"],
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
            let (left, right) = (dot(&views.apply(&x).unwrap(), &g), dot(&x, &views.adjoint(&g).unwrap()));
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
        let Slot::Roll(shifts) = &views.slots[0] else { panic!("a jitter is a roll") };
        let seen: std::collections::BTreeSet<i32> = shifts.iter().flatten().map(|shift| shift[0]).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [-2, -1, 0, 1, 2]);
    }
}
