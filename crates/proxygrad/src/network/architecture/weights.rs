//! Weights of one layer: the tensors that it needs, and what is folded into them.

use crate::network::{Array, ArrayError};

/// A tensor that an architecture needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    /// Name in the state dict.
    pub(super) name: String,
    /// Its shape.
    pub(super) shape: Vec<usize>,
}

/// Why the values of tensors cannot be used.
pub(super) enum Misfit {
    /// The values of this tensor, or a layer with this batch normalization folded in, are not finite.
    NotFinite(String),
    /// An array cannot be built.
    Array(ArrayError),
}

impl From<ArrayError> for Misfit {
    fn from(error: ArrayError) -> Self {
        Self::Array(error)
    }
}

/// Weights and bias of a convolution or dense layer.
pub(super) struct Weights {
    weight: Tensor,
    bias: Option<Tensor>,
    fold: Fold,
}

/// What follows the layer and is folded into its weights.
enum Fold {
    Nothing,
    /// A batch normalization of this name: `weight * (x - running_mean) / sqrt(running_var + epsilon) + bias`.
    BatchNorm {
        name: String,
        epsilon: f64,
    },
    /// A factor per channel.
    Scale {
        tensor: Tensor,
        module: Option<String>,
    },
}

impl Tensor {
    pub(super) fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into() }
    }

    /// Whether a stored shape is that of the tensor, or that in which Keras stores it.
    pub(super) fn fits(&self, stored: &[usize]) -> bool {
        self.shape == stored || self.keras().is_some_and(|keras| keras == stored)
    }

    /// The shape `[h,w,I,O]` in which TensorFlow and Keras store the weights `[O,I,h,w]` of a convolution.
    pub(super) fn keras(&self) -> Option<[usize; 4]> {
        <[usize; 4]>::try_from(self.shape.as_slice()).ok().map(|[o, i, h, w]| [h, w, i, o])
    }

    /// The stored values in the shape of the tensor, which the stored one fits.
    pub(super) fn read(&self, stored: &Array) -> Result<Array, Misfit> {
        if !stored.data().iter().all(|value| value.is_finite()) {
            return Err(Misfit::NotFinite(self.name.clone()));
        }
        let Some([height, width, inputs, outputs]) = self.keras().filter(|_| stored.shape() != self.shape) else {
            return Ok(stored.clone());
        };
        let mut data = Vec::with_capacity(stored.len());
        for o in 0..outputs {
            for i in 0..inputs {
                data.extend((0..height * width).map(|tap| stored.data()[(tap * inputs + i) * outputs + o]));
            }
        }
        Ok(Array::new(self.shape.clone(), data)?)
    }
}

impl Weights {
    /// The tensors `{name}.weight` of this shape, whose first axis counts the outputs, and `{name}.bias`.
    pub(super) fn new(name: &str, shape: impl Into<Vec<usize>>) -> Self {
        let weight = Tensor::new(format!("{name}.weight"), shape);
        Self::of(weight, format!("{name}.bias"))
    }

    /// A weight tensor, whose first axis counts the outputs, and the name of its bias.
    pub(super) fn of(weight: Tensor, bias: String) -> Self {
        let bias = Tensor::new(bias, [weight.shape[0]]);
        Self { weight, bias: Some(bias), fold: Fold::Nothing }
    }

    /// The same without a bias.
    pub(super) fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }

    /// The same, followed by a batch normalization.
    pub(super) fn batch_norm(self, name: impl Into<String>, epsilon: f64) -> Self {
        Self { fold: Fold::BatchNorm { name: name.into(), epsilon }, ..self }
    }

    /// The same, followed by a factor per output, which may be a module of its own.
    pub(super) fn scaled(self, tensor: Tensor, module: Option<String>) -> Self {
        Self { fold: Fold::Scale { tensor, module }, ..self }
    }

    /// The tensors in the order that [`Weights::fold`] takes them.
    pub(super) fn tensors(&self) -> Vec<Tensor> {
        let mut tensors = vec![self.weight.clone()];
        tensors.extend(self.bias.clone());
        match &self.fold {
            Fold::Nothing => {}
            Fold::BatchNorm { name, .. } => tensors.extend(batch_norm_tensors(name, self.weight.shape[0])),
            Fold::Scale { tensor, .. } => tensors.push(tensor.clone()),
        }
        tensors
    }

    /// Modules that are folded into the layer.
    pub(super) fn modules(&self) -> Option<String> {
        match &self.fold {
            Fold::Nothing => None,
            Fold::BatchNorm { name, .. } => Some(name.clone()),
            Fold::Scale { module, .. } => module.clone(),
        }
    }

    /// Weights and bias of the layer.
    pub(super) fn fold(&self, arrays: &[Array]) -> Result<(Array, Array), Misfit> {
        let outputs = self.weight.shape[0];
        let weight = &arrays[0];
        let bias = self.bias.as_ref().map(|_| arrays[1].clone());
        let after = &arrays[1 + usize::from(bias.is_some())..];
        let bias = bias.unwrap_or_else(|| Array::vector(vec![0.0; outputs]));
        let (name, scale, shift) = match &self.fold {
            Fold::Nothing => return Ok((weight.clone(), bias)),
            Fold::BatchNorm { name, epsilon } => {
                let (scale, shift) = batch_norm_factors(name, after, *epsilon)?;
                (name, scale, shift)
            }
            Fold::Scale { tensor, .. } => {
                (&tensor.name, after[0].data().iter().map(|&v| f64::from(v)).collect(), vec![0.0; outputs])
            }
        };
        let fan = weight.len() / outputs.max(1);
        let mut folded = weight.data().to_vec();
        for (values, scale) in folded.chunks_exact_mut(fan.max(1)).zip(&scale) {
            values.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
        }
        let bias = bias.data().iter().zip(scale.iter().zip(&shift));
        let bias: Vec<f32> = bias.map(|(&bias, (scale, shift))| (f64::from(bias) * scale + shift) as f32).collect();
        if !folded.iter().chain(&bias).all(|value| value.is_finite()) {
            return Err(Misfit::NotFinite(name.clone()));
        }
        Ok((Array::new(weight.shape(), folded)?, Array::vector(bias)))
    }
}

/// The tensors of a batch normalization.
pub(super) fn batch_norm_tensors(name: &str, channels: usize) -> [Tensor; 4] {
    ["weight", "bias", "running_mean", "running_var"].map(|part| Tensor::new(format!("{name}.{part}"), [channels]))
}

/// Factor and summand per channel of the batch normalization `name` with these tensors.
pub(super) fn batch_norm_factors(name: &str, arrays: &[Array], epsilon: f64) -> Result<(Vec<f64>, Vec<f64>), Misfit> {
    let at = |array: usize, channel: usize| f64::from(arrays[array].data()[channel]);
    let channels = arrays[0].len();
    let scale: Vec<f64> = (0..channels).map(|c| at(0, c) / (at(3, c) + epsilon).sqrt()).collect();
    let shift: Vec<f64> = scale.iter().enumerate().map(|(c, scale)| at(1, c) - at(2, c) * scale).collect();
    // Also as f32.
    match scale.iter().chain(&shift).all(|value| (*value as f32).is_finite()) {
        true => Ok((scale, shift)),
        false => Err(Misfit::NotFinite(name.into())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn arrays(weight: &[f32], vectors: &[&[f32]]) -> Vec<Array> {
        let weight = Array::new([2, weight.len() / 2], weight).unwrap();
        std::iter::once(weight).chain(vectors.iter().map(|values| Array::vector(values.to_vec()))).collect()
    }

    #[test]
    fn a_batch_normalization_is_folded_into_the_layer_before_it() {
        let weights = Weights::new("conv", [2, 3]).without_bias().batch_norm("norm", 1.0);
        let names: Vec<_> = weights.tensors().into_iter().map(|tensor| tensor.name).collect();
        assert_eq!(names, ["conv.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"]);
        let given = arrays(&[1.0, 2.0, 3.0, -1.0, 0.5, 0.0], &[&[4.0, 3.0], &[0.5, -0.5], &[10.0, 4.0], &[3.0, 8.0]]);
        let (weight, bias) = weights.fold(&given).ok().unwrap();
        // Scales are 4 / sqrt(3 + 1) = 2 and 3 / sqrt(8 + 1) = 1.
        assert_eq!(weight.data(), [2.0, 4.0, 6.0, -1.0, 0.5, 0.0]);
        assert_eq!(bias.data(), [0.5 - 20.0, -0.5 - 4.0]);
    }

    #[test]
    fn a_scale_applies_to_weights_and_bias() {
        let weights = Weights::new("fc", [2, 1]).scaled(Tensor::new("gamma", [2]), None);
        let (weight, bias) = weights.fold(&arrays(&[1.0, 2.0], &[&[3.0, 5.0], &[2.0, -1.0]])).ok().unwrap();
        assert_eq!((weight.data(), bias.data()), (&[2.0, -2.0][..], &[6.0, -5.0][..]));
    }
}
