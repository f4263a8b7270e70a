//! Similarity of a layer's activations to a reference at every position.
//!
//! With `a` the values `[C,P]` of a layer and `r` the reference `[C,P]`, both as channels by positions.

use candle_core::{DType, Device, Result, Tensor};

use crate::maximize::ops::host;
use crate::maximize::ops::host::{Real, for_type_of};
use crate::maximize::ops::{Arithmetic, sum_dtype};

/// Lower bound of cosines: activations that point away from the reference still have a gradient (Lucid).
const FLOOR: f64 = 0.1;

/// A measure of similarity to a reference.
#[derive(Debug)]
pub(super) struct Similarity {
    /// `[C,P]`.
    reference: Tensor,
    measure: Measure,
    arithmetic: Arithmetic,
}

#[derive(Debug)]
enum Measure {
    /// `dot max(cos, 0.1)^p` at every position, with `dot = <a, r>` and `cos = dot / (|a| |r|)`; the cosine with a zero
    /// vector is 0.
    Cosine {
        power: f64,
        /// `|r|` at every position: `[1,P]`, in the precision of sums.
        lengths: Tensor,
    },
    /// `-|a - r|^2 / s` at every position, with `s` the squared norm of the whole reference, or 1 where that is 0.
    Distance { scale: f64 },
}

impl Similarity {
    /// `dot max(cos, 0.1)^power` with the reference `[C,P]`.
    pub(super) fn cosine(reference: &Tensor, power: f32, arithmetic: Arithmetic) -> Result<Self> {
        let exact = reference.to_dtype(sum_dtype(reference.device()))?;
        let measure = Measure::Cosine { power: f64::from(power), lengths: exact.sqr()?.sum_keepdim(0)?.sqrt()? };
        Ok(Self { reference: reference.contiguous()?, measure, arithmetic })
    }

    /// The negative squared distance from the reference `[C,P]`, divided by its squared norm.
    pub(super) fn distance(reference: &Tensor, arithmetic: Arithmetic) -> Result<Self> {
        let exact = reference.to_dtype(sum_dtype(reference.device()))?;
        let square = exact.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let measure = Measure::Distance { scale: if square > 0.0 { square } else { 1.0 } };
        Ok(Self { reference: reference.contiguous()?, measure, arithmetic })
    }

    /// The similarity of `values` `[C,P]` at every position: `[1,P]`, in the precision of sums.
    pub(super) fn map(&self, values: &Tensor) -> Result<Tensor> {
        if self.arithmetic == Arithmetic::Host {
            return for_type_of!(values, T => self.host_map::<T>(values));
        }
        let (values, reference) = self.exact(values)?;
        match &self.measure {
            Measure::Cosine { power, lengths } => {
                let Angle { dot, cosine, .. } = Angle::new(&values, &reference, lengths)?;
                dot * cosine.maximum(FLOOR)?.powf(*power)?
            }
            Measure::Distance { scale } => (values - reference)?.sqr()?.sum_keepdim(0)?.affine(-1.0 / scale, 0.0),
        }
    }

    /// Vector-Jacobian product: the derivative `[C,P]` with respect to the values, in their element type, given
    /// derivatives `slopes` `[1,P]` with respect to [`Similarity::map`].
    pub(super) fn vjp(&self, values: &Tensor, slopes: &Tensor) -> Result<Tensor> {
        if self.arithmetic == Arithmetic::Host {
            return for_type_of!(values, T => self.host_spread::<T>(values, slopes));
        }
        let dtype = values.dtype();
        let (values, reference) = self.exact(values)?;
        let vjp = match &self.measure {
            // Above the floor: (p + 1) cos^p r - p cos^p (dot / |a|^2) a.
            Measure::Cosine { power, lengths } => {
                let Angle { dot, cosine, square } = Angle::new(&values, &reference, lengths)?;
                let factor = cosine.maximum(FLOOR)?.powf(*power)?;
                let above = cosine.gt(FLOOR)?.to_dtype(values.dtype())?;
                let along = (&factor * above.affine(*power, 1.0)?)?;
                let back = ((factor * above)? * (dot / square)?)?.affine(*power, 0.0)?;
                (reference.broadcast_mul(&(along * slopes)?)? - values.broadcast_mul(&(back * slopes)?)?)?
            }
            Measure::Distance { scale } => (values - reference)?.broadcast_mul(slopes)?.affine(-2.0 / scale, 0.0)?,
        };
        vjp.to_dtype(dtype)
    }

    fn exact(&self, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let dtype = sum_dtype(values.device());
        Ok((values.to_dtype(dtype)?, self.reference.to_dtype(dtype)?))
    }
}

/// Products of values and reference at every position, each `[1,P]`.
struct Angle {
    dot: Tensor,
    cosine: Tensor,
    /// `|a|^2`, or 1 where that is 0.
    square: Tensor,
}

impl Angle {
    fn new(values: &Tensor, reference: &Tensor, lengths: &Tensor) -> Result<Self> {
        let or_one = |x: Tensor| x.eq(0.0)?.where_cond(&x.ones_like()?, &x);
        let dot = (values * reference)?.sum_keepdim(0)?;
        let square = or_one(values.sqr()?.sum_keepdim(0)?)?;
        let cosine = (&dot / or_one((square.sqrt()? * lengths)?)?)?;
        Ok(Self { dot, cosine, square })
    }
}

/// Host loops.
impl Similarity {
    fn host_map<T: Real>(&self, values: &Tensor) -> Result<Tensor> {
        let positions = values.dim(1)?;
        let map = self.read_both(values, |values: &[T], reference: &[T]| match &self.measure {
            Measure::Cosine { power, lengths } => {
                let lengths = numbers(lengths)?;
                let (dots, squares) = products(values, reference, positions);
                let value = |((dot, square), length): ((f64, f64), f64)| {
                    dot * cosine(dot, square, length).max(FLOOR).powf(*power)
                };
                Ok(dots.into_iter().zip(squares).zip(lengths).map(value).collect())
            }
            Measure::Distance { scale } => {
                let mut map = vec![0.0; positions];
                let rows = values.chunks_exact(positions).zip(reference.chunks_exact(positions));
                for (values, reference) in rows {
                    for ((sum, &a), &r) in map.iter_mut().zip(values).zip(reference) {
                        let difference = a.to_f64() - r.to_f64();
                        *sum -= difference * difference / scale;
                    }
                }
                Ok(map)
            }
        })?;
        Tensor::from_vec(map, (1, positions), &Device::Cpu)
    }

    fn host_spread<T: Real>(&self, values: &Tensor, slopes: &Tensor) -> Result<Tensor> {
        let positions = values.dim(1)?;
        let slopes = numbers(slopes)?;
        let vjp = self.read_both(values, |values: &[T], reference: &[T]| {
            // The derivative is along * r + back * a, position by position.
            let (along, back): (Vec<f64>, Vec<f64>) = match &self.measure {
                Measure::Cosine { power, lengths } => {
                    let (dots, squares) = products(values, reference, positions);
                    let factors = |(((dot, square), length), slope): (((f64, f64), f64), f64)| {
                        let cosine = cosine(dot, square, length);
                        let factor = slope * cosine.max(FLOOR).powf(*power);
                        match cosine > FLOOR {
                            true => (factor * (power + 1.0), -factor * power * dot / square),
                            false => (factor, 0.0),
                        }
                    };
                    dots.into_iter().zip(squares).zip(numbers(lengths)?).zip(slopes).map(factors).unzip()
                }
                Measure::Distance { scale } => {
                    slopes.into_iter().map(|slope| (2.0 * slope / scale, -2.0 * slope / scale)).unzip()
                }
            };
            let mut vjp = Vec::with_capacity(values.len());
            for (values, reference) in values.chunks_exact(positions).zip(reference.chunks_exact(positions)) {
                for (((a, r), along), back) in values.iter().zip(reference).zip(&along).zip(&back) {
                    vjp.push(T::from_f64(along * r.to_f64() + back * a.to_f64()));
                }
            }
            Ok(vjp)
        })?;
        Tensor::from_vec(vjp, values.shape(), &Device::Cpu)
    }

    fn read_both<T: Real, R>(&self, values: &Tensor, f: impl FnOnce(&[T], &[T]) -> Result<R>) -> Result<R> {
        host::read(values, |values: &[T]| host::read(&self.reference, |reference: &[T]| f(values, reference)))??
    }
}

fn numbers(row: &Tensor) -> Result<Vec<f64>> {
    row.flatten_all()?.to_dtype(DType::F64)?.to_vec1()
}

fn cosine(dot: f64, square: f64, length: f64) -> f64 {
    let lengths = square.sqrt() * length;
    if lengths == 0.0 { 0.0 } else { dot / lengths }
}

/// `<a, r>` and `|a|^2` at every position.
fn products<T: Real>(values: &[T], reference: &[T], positions: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut dots, mut squares) = (vec![0.0; positions], vec![0.0; positions]);
    for (values, reference) in values.chunks_exact(positions).zip(reference.chunks_exact(positions)) {
        for (((dot, square), &a), &r) in dots.iter_mut().zip(&mut squares).zip(values).zip(reference) {
            let (a, r) = (a.to_f64(), r.to_f64());
            *dot += a * r;
            *square += a * a;
        }
    }
    (dots, squares)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const SHAPE: (usize, usize) = (4, 3);

    fn tensor(values: &[f64]) -> Tensor {
        Tensor::from_slice(values, SHAPE, &Device::Cpu).unwrap()
    }

    /// Every measure with this reference, with host and device arithmetic.
    fn measures(reference: &[f64]) -> Vec<[Similarity; 2]> {
        let make = |which: usize, arithmetic| match which {
            0 => Similarity::distance(&tensor(reference), arithmetic).unwrap(),
            1 => Similarity::cosine(&tensor(reference), 0.0, arithmetic).unwrap(),
            2 => Similarity::cosine(&tensor(reference), 1.0, arithmetic).unwrap(),
            _ => Similarity::cosine(&tensor(reference), 2.5, arithmetic).unwrap(),
        };
        (0..4).map(|which| [Arithmetic::Host, Arithmetic::Device].map(|by| make(which, by))).collect()
    }

    fn close(a: &[f64], b: &[f64], tolerance: f64) {
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= tolerance * (1.0 + a.abs().max(b.abs())), "{a} and {b}");
        }
    }

    proptest! {
        #[test]
        fn spreads_are_the_slopes_of_the_map(
            a in prop::collection::vec(-2.0..2.0f64, 12), r in prop::collection::vec(-2.0..2.0f64, 12),
            slopes in prop::collection::vec(-1.0..1.0f64, 3),
        ) {
            let slope = Tensor::from_slice(&slopes, (1, 3), &Device::Cpu).unwrap();
            for [host, device] in measures(&r) {
                let sum = |similarity: &Similarity, a: &[f64]| -> f64 {
                    numbers(&similarity.map(&tensor(a)).unwrap()).unwrap().iter().zip(&slopes).map(|(m, s)| m * s).sum()
                };
                let vjp = numbers(&host.vjp(&tensor(&a), &slope).unwrap()).unwrap();
                close(&vjp, &numbers(&device.vjp(&tensor(&a), &slope).unwrap()).unwrap(), 1e-12);
                close(&[sum(&host, &a)], &[sum(&device, &a)], 1e-12);
                let cosines = numbers(&Angle::new(&tensor(&a), &tensor(&r), &tensor(&r).sqr().unwrap().sum_keepdim(0)
                    .unwrap().sqrt().unwrap()).unwrap().cosine).unwrap();
                for i in 0..12 {
                    // The floor has a kink, where the derivative is undefined.
                    prop_assume!((cosines[i % 3] - FLOOR).abs() > 1e-3);
                    let moved = |step: f64| { let mut a = a.clone(); a[i] += step; sum(&host, &a) };
                    close(&[vjp[i]], &[(moved(1e-5) - moved(-1e-5)) / 2e-5], 1e-6);
                }
            }
        }
    }

    #[test]
    fn values_are_what_the_formulas_say() {
        let (a, r) = ([3.0, 0.0, 1.0, 4.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [1.0; 12]);
        let cosine =
            numbers(&Similarity::cosine(&tensor(&r), 2.0, Arithmetic::Host).unwrap().map(&tensor(&a)).unwrap())
                .unwrap();
        // dot 7, |a| 5, |r| 2: the cosine is 0.7. Then a zero vector, and an orthogonal one.
        close(&cosine, &[7.0 * 0.49, 0.0, 0.0], 1e-12);
        let distance =
            numbers(&Similarity::distance(&tensor(&r), Arithmetic::Host).unwrap().map(&tensor(&a)).unwrap()).unwrap();
        close(&distance, &[-(4.0 + 9.0 + 2.0) / 12.0, -4.0 / 12.0, -(0.0 + 4.0 + 2.0) / 12.0], 1e-12);
        let nothing = Similarity::distance(&tensor(&[0.0; 12]), Arithmetic::Host).unwrap();
        close(&numbers(&nothing.map(&tensor(&a)).unwrap()).unwrap(), &[-25.0, 0.0, -2.0], 1e-12);
    }

    #[test]
    fn a_zero_vector_has_a_gradient_towards_the_reference() {
        for [host, device] in measures(&[0.5; 12]).into_iter().skip(1) {
            let slope = Tensor::ones((1, 3), DType::F64, &Device::Cpu).unwrap();
            for similarity in [host, device] {
                let vjp = numbers(&similarity.vjp(&tensor(&[0.0; 12]), &slope).unwrap()).unwrap();
                assert!(vjp.iter().all(|&s| s.is_finite() && s > 0.0), "{vjp:?}");
            }
        }
    }
}
