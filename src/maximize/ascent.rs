//! Optimizers at work on a batch of images.

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::host::{self, Real, for_type_of};
use super::optimizer::{Optimizer, OptimizerKind};

/// An optimizer and what it remembers of every image.
///
/// Each image has its own norm, its own count of steps and its own fate: one without a gradient, or with one that is not
/// finite, stays as it is, and so does what the optimizer remembers of it.
#[derive(Debug)]
pub(super) struct Ascent {
    optimizer: Optimizer,
    /// How many gradients other than zero reached each image: `[N]`, f32.
    moves: Tensor,
    /// How many gradients of each image were not finite: `[N]`, f32.
    broken: Tensor,
    adam: Option<Adam>,
}

/// Adam's running means.
#[derive(Debug)]
struct Adam {
    /// Of the gradient: `[N,C,H,W]`.
    mean: Tensor,
    /// Of its square.
    square: Tensor,
    /// By number of moves: one over the share of the past that each of the means has seen.
    corrections: [Vec<f64>; 2],
    /// The same on the images' device.
    correction_tables: [Tensor; 2],
}

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

impl Adam {
    fn new(images: &Tensor, steps: u32) -> Result<Self> {
        let seen = |beta: f64| (0..=steps).map(move |t| 1.0 / (1.0 - beta.powf(f64::from(t.max(1))))).collect();
        let corrections: [Vec<f64>; 2] = [seen(BETA1), seen(BETA2)];
        let table = |values: &[f64]| {
            Tensor::from_slice(values, values.len(), &Device::Cpu)?.to_dtype(images.dtype())?.to_device(images.device())
        };
        Ok(Self {
            mean: images.zeros_like()?,
            square: images.zeros_like()?,
            correction_tables: [table(&corrections[0])?, table(&corrections[1])?],
            corrections,
        })
    }
}

impl Ascent {
    /// For the batch `images` `[N,C,H,W]` and at most so many steps.
    pub(super) fn new(optimizer: &Optimizer, images: &Tensor, steps: u32) -> Result<Self> {
        let counts = Tensor::zeros(images.dim(0)?, DType::F32, images.device())?;
        let adam = match optimizer.kind {
            OptimizerKind::Adam => Some(Adam::new(images, steps)?),
            OptimizerKind::L2Ascent => None,
        };
        Ok(Self { optimizer: optimizer.clone(), moves: counts.clone(), broken: counts, adam })
    }

    /// Goes on with these images of the batch alone.
    pub(super) fn keep(&mut self, rows: &Tensor) -> Result<()> {
        self.moves = self.moves.index_select(rows, 0)?;
        self.broken = self.broken.index_select(rows, 0)?;
        if let Some(adam) = &mut self.adam {
            adam.mean = adam.mean.index_select(rows, 0)?;
            adam.square = adam.square.index_select(rows, 0)?;
        }
        Ok(())
    }

    /// For every image, whether a gradient other than zero ever reached it, and whether one was not finite.
    pub(super) fn fates(&self) -> Result<Vec<(bool, bool)>> {
        let (moves, broken) = (self.moves.to_vec1::<f32>()?, self.broken.to_vec1::<f32>()?);
        Ok(moves.into_iter().zip(broken).map(|(moves, broken)| (moves > 0.0, broken > 0.0)).collect())
    }

    /// The images behind one step: pixels `[N,C,H,W]`, kept in [0, 1].
    pub(super) fn step(&mut self, images: &Tensor, gradients: &Tensor) -> Result<Tensor> {
        if host::suits(images.device(), images.dtype()) {
            for_type_of!(images, T => self.plain_step::<T>(images, gradients))
        } else {
            self.tensor_step(images, gradients)
        }
    }
}

/// Steps as plain loops.
impl Ascent {
    fn plain_step<T: Real>(&mut self, images: &Tensor, gradients: &Tensor) -> Result<Tensor> {
        let [n, channels, area] = host::planes(images)?;
        let norms = host::read(gradients, |values: &[T]| square_sums(values, n, channels, area))?;
        let usable: Vec<bool> = norms.iter().map(|norm| norm.is_finite() && *norm > 0.0).collect();
        let count = |counts: &Tensor, more: &dyn Fn(usize) -> bool| {
            let mut counts = counts.to_vec1::<f32>()?;
            counts.iter_mut().enumerate().for_each(|(i, count)| *count += f32::from(u8::from(more(i))));
            Tensor::from_vec(counts, n, &Device::Cpu)
        };
        self.moves = count(&self.moves, &|i| usable[i])?;
        self.broken = count(&self.broken, &|i| !norms[i].is_finite())?;
        match self.optimizer.kind {
            OptimizerKind::L2Ascent => self.plain_l2::<T>(images, gradients, &norms, &usable),
            OptimizerKind::Adam => self.plain_adam::<T>(images, gradients, &usable),
        }
    }

    fn plain_l2<T: Real>(&self, images: &Tensor, gradients: &Tensor, norms: &[f64], usable: &[bool]) -> Result<Tensor> {
        let [_, channels, area] = host::planes(images)?;
        let lr = f64::from(self.optimizer.lr);
        host::read(gradients, |gradients: &[T]| {
            host::fill_like::<T>(images, area, |plane, images, next| {
                let (image, here) = (plane / channels, plane * area..(plane + 1) * area);
                let (from, gradient) = (&images[here.clone()], &gradients[here]);
                if !usable[image] {
                    return next.copy_from_slice(from);
                }
                let factor = lr / norms[image].sqrt();
                let pixels = next.iter_mut().zip(from).zip(gradient);
                // One over the norm of a faint gradient lies beyond f32.
                if factor < 1e30 {
                    let factor = T::from_f64(factor);
                    pixels.for_each(|((next, &x), &g)| *next = clamped(x + g * factor));
                } else {
                    pixels.for_each(|((next, &x), &g)| *next = clamped(x + T::from_f64(g.to_f64() * factor)));
                }
            })
        })?
    }

    fn plain_adam<T: Real>(&mut self, images: &Tensor, gradients: &Tensor, usable: &[bool]) -> Result<Tensor> {
        let Some(adam) = &mut self.adam else { return Ok(images.clone()) };
        let [_, channels, area] = host::planes(images)?;
        let moves = self.moves.to_vec1::<f32>()?;
        let read = |tensor: &Tensor| host::read(tensor, <[T]>::to_vec);
        let (mut next, mut mean, mut square) = (read(images)?, read(&adam.mean)?, read(&adam.square)?);
        let lr = T::from_f64(f64::from(self.optimizer.lr));
        let (keep1, keep2) = (T::from_f64(BETA1), T::from_f64(BETA2));
        let (add1, add2) = (T::from_f64(1.0 - BETA1), T::from_f64(1.0 - BETA2));
        let epsilon = T::from_f64(EPSILON);
        host::read(gradients, |gradients: &[T]| {
            let states = mean.par_chunks_mut(area).zip(square.par_chunks_mut(area));
            let planes = next.par_chunks_mut(area).zip(states).zip(gradients.par_chunks(area)).enumerate();
            planes.filter(|(plane, _)| usable[plane / channels]).for_each(|(plane, ((next, (mean, square)), g))| {
                let [seen1, seen2] =
                    adam.corrections.each_ref().map(|by| T::from_f64(by[moves[plane / channels] as usize]));
                for (((x, mean), square), &g) in next.iter_mut().zip(mean).zip(square).zip(g) {
                    *mean = *mean * keep1 + g * add1;
                    *square = *square * keep2 + g * g * add2;
                    *x = clamped(*x + lr * (*mean * seen1 / ((*square * seen2).sqrt() + epsilon)));
                }
            });
        })?;
        adam.mean = Tensor::from_vec(mean, images.shape(), &Device::Cpu)?;
        adam.square = Tensor::from_vec(square, images.shape(), &Device::Cpu)?;
        Tensor::from_vec(next, images.shape(), &Device::Cpu)
    }
}

fn clamped<T: Real>(x: T) -> T {
    let x = if x > T::zero() { x } else { T::zero() };
    if x < T::one() { x } else { T::one() }
}

/// The sum of squares of every image's gradient. In f64, where squares of f32 neither vanish nor overflow: it is finite
/// and not zero exactly when the gradient is.
fn square_sums<T: Real>(gradients: &[T], images: usize, channels: usize, area: usize) -> Vec<f64> {
    let planes: Vec<f64> = gradients.par_chunks(area.max(1)).map(square_sum).collect();
    (0..images).map(|n| planes[n * channels..][..channels].iter().sum()).collect()
}

/// In eight sums, which the vector units keep apart, added up in a fixed order.
fn square_sum<T: Real>(values: &[T]) -> f64 {
    let square = |x: T| x.to_f64() * x.to_f64();
    let mut sums = [0.0; 8];
    let chunks = values.chunks_exact(sums.len());
    let rest: f64 = chunks.remainder().iter().map(|&x| square(x)).sum();
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += square(x);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Steps as tensor operations; nothing is read back.
impl Ascent {
    fn tensor_step(&mut self, images: &Tensor, gradients: &Tensor) -> Result<Tensor> {
        let n = images.dim(0)?;
        let per_image = |t: &Tensor| t.reshape((n, 1, 1, 1));
        // Scaled first: squares of a faint gradient would vanish in f32.
        let largest = gradients.abs()?.flatten_from(1)?.max(1)?;
        let scale = largest.gt(0.0)?.where_cond(&largest, &largest.ones_like()?)?;
        let scaled = gradients.broadcast_div(&per_image(&scale)?)?;
        // Not a number wherever any value of the gradient is not finite; the maximum alone would overlook some.
        let norm = scaled.sqr()?.flatten_from(1)?.sum(1)?.sqrt()?;
        let (usable, whole) = (norm.gt(0.0)?, norm.ge(0.0)?);
        self.moves = (&self.moves + usable.to_dtype(DType::F32)?)?;
        self.broken = (&self.broken + whole.to_dtype(DType::F32)?.affine(-1.0, 1.0)?)?;
        let usable = per_image(&usable)?.broadcast_as(images.shape())?.contiguous()?;
        let lr = f64::from(self.optimizer.lr);
        let update = match &mut self.adam {
            None => scaled.broadcast_div(&per_image(&norm)?)?,
            Some(adam) => adam.update(gradients, &usable, &self.moves)?,
        };
        let next = (images + update.affine(lr, 0.0)?)?.clamp(0.0, 1.0)?;
        usable.where_cond(&next, images)
    }
}

impl Adam {
    /// Takes note of the gradients of images that are `usable` `[N,C,H,W]`; what it gives for others is of no use.
    fn update(&mut self, gradients: &Tensor, usable: &Tensor, moves: &Tensor) -> Result<Tensor> {
        let mean = (self.mean.affine(BETA1, 0.0)? + gradients.affine(1.0 - BETA1, 0.0)?)?;
        let square = (self.square.affine(BETA2, 0.0)? + gradients.sqr()?.affine(1.0 - BETA2, 0.0)?)?;
        self.mean = usable.where_cond(&mean, &self.mean)?;
        self.square = usable.where_cond(&square, &self.square)?;
        let moves = moves.to_dtype(DType::U32)?;
        let seen = |table: &Tensor| table.index_select(&moves, 0)?.reshape((moves.elem_count(), 1, 1, 1));
        let mean = self.mean.broadcast_mul(&seen(&self.correction_tables[0])?)?;
        let square = self.square.broadcast_mul(&seen(&self.correction_tables[1])?)?;
        mean / square.sqrt()?.affine(1.0, EPSILON)?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Four images `[4,2,1,3]`: a common one, one without a gradient, one that is broken, a faint one.
    fn batch() -> (Tensor, Tensor) {
        let images: Vec<f32> = (0..24).map(|i| 0.2 + 0.02 * i as f32).collect();
        let mut gradients: Vec<f32> = (0..24).map(|i| (i as f32 * 1.7).sin()).collect();
        gradients[6..12].fill(0.0);
        gradients[14] = f32::NAN;
        gradients[18..].iter_mut().for_each(|g| *g *= 1e-38);
        let tensor = |values: Vec<f32>| Tensor::from_vec(values, (4, 2, 1, 3), &Device::Cpu).unwrap();
        (tensor(images), tensor(gradients))
    }

    fn ascent(kind: OptimizerKind, images: &Tensor) -> Ascent {
        Ascent::new(&Optimizer { kind, lr: 0.05 }, images, 8).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    const KINDS: [OptimizerKind; 2] = [OptimizerKind::L2Ascent, OptimizerKind::Adam];

    #[test]
    fn loops_and_tensor_operations_agree() {
        let (start, gradients) = batch();
        for kind in KINDS {
            let (mut plain, mut tensors) = (ascent(kind, &start), ascent(kind, &start));
            let (mut a, mut b) = (start.clone(), start.clone());
            for step in 0..5 {
                let gradients = gradients.affine(1.0 - 0.3 * f64::from(step), 0.0).unwrap();
                a = plain.plain_step::<f32>(&a, &gradients).unwrap();
                b = tensors.tensor_step(&b, &gradients).unwrap();
                for (a, b) in values(&a).into_iter().zip(values(&b)) {
                    assert!((a - b).abs() < 1e-5, "{kind:?}, step {step}: {a} and {b}");
                }
            }
            assert_eq!(plain.fates().unwrap(), tensors.fates().unwrap());
            assert_eq!(plain.fates().unwrap(), [(true, false), (false, false), (false, true), (true, false)]);
        }
    }

    #[test]
    fn an_image_without_a_usable_gradient_stays_and_no_other_notices() {
        let (start, gradients) = batch();
        for kind in KINDS {
            for plain in [true, false] {
                let step = |ascent: &mut Ascent, images: &Tensor, gradients: &Tensor| match plain {
                    true => ascent.plain_step::<f32>(images, gradients).unwrap(),
                    false => ascent.tensor_step(images, gradients).unwrap(),
                };
                let mut together = ascent(kind, &start);
                let first = step(&mut together, &start, &gradients);
                let second = step(&mut together, &first, &gradients);
                for i in 0..4 {
                    let one = |batch: &Tensor| batch.narrow(0, i, 1).unwrap();
                    let mut alone = ascent(kind, &one(&start));
                    let once = step(&mut alone, &one(&start), &one(&gradients));
                    let twice = step(&mut alone, &once, &one(&gradients));
                    assert_eq!(values(&twice), values(&one(&second)), "{kind:?}, image {i}");
                }
                assert_eq!(values(&second)[6..18], values(&start)[6..18], "{kind:?}");
            }
        }
    }

    #[test]
    fn a_step_of_l2_ascent_has_its_length_however_faint_the_gradient_is() {
        let (start, gradients) = batch();
        let next = ascent(OptimizerKind::L2Ascent, &start).step(&start, &gradients).unwrap();
        let lengths = (next - start).unwrap().sqr().unwrap().flatten_from(1).unwrap().sum(1).unwrap();
        for (length, expected) in values(&lengths.sqrt().unwrap()).into_iter().zip([0.05, 0.0, 0.0, 0.05]) {
            assert!((length - expected).abs() < 1e-6, "{length}, not {expected}");
        }
    }

    #[test]
    fn images_that_are_kept_keep_what_is_known_of_them() {
        let (start, gradients) = batch();
        for kind in KINDS {
            let mut all = ascent(kind, &start);
            let first = all.step(&start, &gradients).unwrap();
            let mut some = ascent(kind, &start);
            some.step(&start, &gradients).unwrap();
            let rows = Tensor::new(&[0u32, 3], &Device::Cpu).unwrap();
            let kept = |batch: &Tensor| batch.index_select(&rows, 0).unwrap();
            some.keep(&rows).unwrap();
            let second = all.step(&first, &gradients).unwrap();
            assert_eq!(values(&some.step(&kept(&first), &kept(&gradients)).unwrap()), values(&kept(&second)));
            assert_eq!(some.fates().unwrap(), [(true, false); 2]);
        }
    }
}
