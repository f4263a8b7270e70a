//! Diversity: several different stimuli of one objective, and the penalty on their similarity.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::maximize::ops::sum_dtype;

/// Several stimuli for every objective, with a penalty on their similarity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Diversity {
    /// Layer whose activations are compared.
    #[cfg_attr(feature = "openapi", schema(examples("layer2/Relu_1")))]
    pub layer: String,
    /// Number of stimuli per objective, each with its own random stream.
    #[cfg_attr(feature = "openapi", schema(minimum = 2))]
    pub copies: usize,
    /// Weight of the penalty, in units of the objective: a stimulus maximizes its score minus `weight` times its mean
    /// similarity, from 0 to 1, with the others of its objective. Reported scores exclude the penalty.
    #[serde(default = "one")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, default = 1.0))]
    pub weight: f32,
}

fn one() -> f32 {
    1.0
}

/// Diversity penalty at one target of a plan.
///
/// With `A_i` the target's values `[C,P]` (channels by positions) on stimulus `i` and `G_i = A_i A_i^T` their Gram
/// matrix, the similarity of two stimuli is `s_ij = <G_i, G_j> / (|G_i| |G_j|)`, 0 where a matrix is zero (Olah,
/// Mordvintsev, Schubert, "Feature Visualization", Distill 2017, <https://distill.pub/2017/feature-visualization/>, the
/// note on diversity). The penalty of stimulus `i` in a group of `k` is `weight * sum_(j != i) s_ij / (k - 1)`; the
/// others are constants.
#[derive(Debug, Clone, Copy)]
pub(super) struct DiversityPenalty {
    /// Position of the layer among the plan's targets.
    pub(super) target: usize,
    pub(super) weight: f64,
}

impl DiversityPenalty {
    /// The target's seed `[N,C,H,W]` or `[N,K]` minus the gradient of the penalty at the target's `output`. `groups`
    /// are the rows of each diversity group.
    pub(super) fn subtract_gradient(&self, seed: &Tensor, output: &Tensor, groups: &[Vec<usize>]) -> Result<Tensor> {
        let images = output.dim(0)?;
        let mut rows: Vec<Tensor> = (0..images).map(|n| seed.narrow(0, n, 1)).collect::<Result<_>>()?;
        for group in groups.iter().filter(|group| group.len() > 1) {
            let values = group.iter().map(|&row| {
                let values = output.get(row)?.contiguous()?;
                let channels = values.dims().first().copied().unwrap_or(1);
                values.reshape((channels, ()))?.to_dtype(sum_dtype(output.device()))
            });
            let values = values.collect::<Result<Vec<_>>>()?;
            let gradients = similarity_gradients(&values)?;
            for (&row, gradient) in group.iter().zip(gradients) {
                let gradient = gradient.affine(-self.weight, 0.0)?.to_dtype(seed.dtype())?;
                rows[row] = (&rows[row] + gradient.reshape(rows[row].shape())?)?;
            }
        }
        Tensor::cat(&rows, 0)
    }
}

/// Gram matrices `A A^T` `[C,C]`, or smaller products with the same information if there are fewer positions than
/// channels.
enum Products {
    Gram(Vec<Tensor>),
    /// `A_i^T A_j` `[P,P]`.
    Positions(Vec<Vec<Tensor>>),
}

impl Products {
    fn new(values: &[Tensor]) -> Result<Self> {
        let Some((channels, positions)) = values.first().map(Tensor::dims2).transpose()? else {
            return Ok(Self::Gram(Vec::new()));
        };
        let transposed = |a: &Tensor| a.t()?.contiguous();
        if channels <= positions {
            return Ok(Self::Gram(values.iter().map(|a| a.matmul(&transposed(a)?)).collect::<Result<_>>()?));
        }
        let row = |a: &Tensor| {
            let transposed = transposed(a)?;
            values.iter().map(|b| transposed.matmul(b)).collect::<Result<Vec<_>>>()
        };
        Ok(Self::Positions(values.iter().map(row).collect::<Result<_>>()?))
    }

    /// `<G_i, G_j>`, a scalar.
    fn inner(&self, i: usize, j: usize) -> Result<Tensor> {
        match self {
            Self::Gram(grams) => (&grams[i] * &grams[j])?.sum_all(),
            Self::Positions(products) => products[i][j].sqr()?.sum_all(),
        }
    }

    /// `G_j A_i`: `[C,P]`.
    fn gram_times_values(&self, values: &[Tensor], j: usize, i: usize) -> Result<Tensor> {
        match self {
            Self::Gram(grams) => grams[j].matmul(&values[i]),
            Self::Positions(products) => values[j].matmul(&products[j][i]),
        }
    }
}

/// The gradient `[C,P]` of every stimulus' mean similarity with the others, with respect to its values: the mean over
/// `j` of `2 G_j A_i / (|G_i| |G_j|) - 2 s_ij G_i A_i / |G_i|^2`.
fn similarity_gradients(values: &[Tensor]) -> Result<Vec<Tensor>> {
    let products = Products::new(values)?;
    let or_one = |x: &Tensor| x.eq(0.0)?.where_cond(&x.ones_like()?, x);
    let count = values.len();
    let norms = (0..count).map(|i| or_one(&products.inner(i, i)?.sqrt()?)).collect::<Result<Vec<_>>>()?;
    (0..count)
        .map(|i| {
            let mut gradient = values[i].zeros_like()?;
            let own = products.gram_times_values(values, i, i)?.broadcast_div(&norms[i].sqr()?)?;
            for j in (0..count).filter(|&j| j != i) {
                let both = (&norms[i] * &norms[j])?;
                let similarity = (products.inner(i, j)? / &both)?;
                let towards = products.gram_times_values(values, j, i)?.broadcast_div(&both)?;
                gradient = ((gradient + towards)? - own.broadcast_mul(&similarity)?)?;
            }
            gradient.affine(2.0 / (count - 1).max(1) as f64, 0.0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device};
    use proptest::prelude::*;

    use super::*;

    /// Mean similarity of stimulus `i` with the others, by definition.
    fn similarity(values: &[Vec<f64>], i: usize, [channels, positions]: [usize; 2]) -> f64 {
        let gram = |a: &[f64]| -> Vec<f64> {
            let at = |c: usize, d: usize| (0..positions).map(|p| a[c * positions + p] * a[d * positions + p]).sum();
            (0..channels * channels).map(|k| at(k / channels, k % channels)).collect()
        };
        let inner = |g: &[f64], h: &[f64]| g.iter().zip(h).map(|(g, h)| g * h).sum::<f64>();
        let grams: Vec<Vec<f64>> = values.iter().map(|a| gram(a)).collect();
        let cosine = |j: usize| {
            let lengths = (inner(&grams[i], &grams[i]) * inner(&grams[j], &grams[j])).sqrt();
            if lengths == 0.0 { 0.0 } else { inner(&grams[i], &grams[j]) / lengths }
        };
        (0..values.len()).filter(|&j| j != i).map(cosine).sum::<f64>() / (values.len() - 1) as f64
    }

    fn tensors(values: &[Vec<f64>], shape: [usize; 2]) -> Vec<Tensor> {
        values.iter().map(|a| Tensor::from_slice(a, &shape, &Device::Cpu).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn gradients_match_numeric_derivatives_of_the_similarity(values in prop::collection::vec(prop::collection::vec(-1.5..1.5f64, 12), 3)) {
            for shape in [[3, 4], [4, 3], [12, 1], [1, 12], [2, 6]] {
                for (i, gradient) in similarity_gradients(&tensors(&values, shape)).unwrap().into_iter().enumerate() {
                    let gradient: Vec<f64> = gradient.flatten_all().unwrap().to_vec1().unwrap();
                    for at in 0..12 {
                        let moved = |step: f64| {
                            let mut values = values.clone();
                            values[i][at] += step;
                            similarity(&values, i, shape)
                        };
                        let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                        prop_assert!((gradient[at] - expected).abs() < 1e-6, "{shape:?} {i}: {} {expected}", gradient[at]);
                    }
                }
            }
        }
    }

    #[test]
    fn groups_are_independent_and_a_zero_image_has_no_gradient() {
        let output = Tensor::arange(0.0, 60.0, &Device::Cpu).unwrap().reshape((5, 3, 2, 2)).unwrap().sin().unwrap();
        let output = Tensor::cat(&[output, Tensor::zeros((1, 3, 2, 2), DType::F64, &Device::Cpu).unwrap()], 0).unwrap();
        let seed = Tensor::ones((6, 3, 2, 2), DType::F64, &Device::Cpu).unwrap();
        let penalty = DiversityPenalty { target: 0, weight: 0.5 };
        let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let together = penalty.subtract_gradient(&seed, &output, &[vec![0, 2], vec![1, 3, 5], vec![4]]).unwrap();
        let of = |rows: &[u32]| {
            let rows = Tensor::new(rows, &Device::Cpu).unwrap();
            let (seed, output) = (seed.index_select(&rows, 0).unwrap(), output.index_select(&rows, 0).unwrap());
            values(penalty.subtract_gradient(&seed, &output, &[(0..rows.elem_count()).collect()]).unwrap())
        };
        let picked =
            |rows: &[u32]| values(together.index_select(&Tensor::new(rows, &Device::Cpu).unwrap(), 0).unwrap());
        assert_eq!(picked(&[0, 2]), of(&[0, 2]));
        assert_eq!(picked(&[1, 3, 5]), of(&[1, 3, 5]));
        assert_ne!(picked(&[0]), [1.0; 12]);
        assert_eq!(picked(&[4]), [1.0; 12], "alone");
        assert_eq!(picked(&[5]), [1.0; 12], "zero");
    }
}
