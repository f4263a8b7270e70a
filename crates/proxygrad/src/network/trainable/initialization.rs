//! Initial values of parameters.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Parameters, TensorRole, TensorSpec, TrainableNetwork, TrainableOp};
use crate::random::normal;

/// How weights are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Initialization {
    /// Normal with variance `2 / fan-in` for layers before a ReLU and `1 / fan-in` for the last layer; biases 0 (He et
    /// al., "Delving Deep into Rectifiers", arXiv:1502.01852, equation 10).
    #[default]
    He,
    /// PyTorch's default of `Conv2d` and `Linear`: weights and biases uniform within `1 / sqrt(fan-in)`.
    Torch,
}

impl TrainableNetwork {
    /// Draws initial values: the same for the same seed on every platform. Every tensor has its own random stream.
    pub fn initialize(&self, how: Initialization, seed: u64) -> Parameters {
        let mut values: Vec<Vec<f32>> =
            self.tensors().iter().map(|spec| vec![default_value(spec); spec.len()]).collect();
        let last = self.head();
        for (index, node) in self.nodes().iter().enumerate() {
            let (TrainableOp::Conv { weight, bias, .. } | TrainableOp::Dense { weight, bias }) = &node.op else {
                continue;
            };
            let fan_in = (self.tensors()[*weight].shape[1..].iter().product::<usize>() as f64).max(1.0);
            for id in std::iter::once(weight).chain(bias) {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(*id as u64);
                let is_weight = self.tensors()[*id].role == TensorRole::Weight;
                for value in &mut values[*id] {
                    *value = match how {
                        Initialization::He if is_weight => {
                            let gain: f64 = if Some(index) == last { 1.0 } else { 2.0 };
                            (normal(&mut rng) * (gain / fan_in).sqrt()) as f32
                        }
                        Initialization::He => 0.0,
                        Initialization::Torch => ((rng.random::<f64>() * 2.0 - 1.0) / fan_in.sqrt()) as f32,
                    };
                }
            }
        }
        Parameters::new(values)
    }
}

fn default_value(spec: &TensorSpec) -> f32 {
    match spec.role {
        TensorRole::Scale | TensorRole::RunningVariance => 1.0,
        TensorRole::Weight | TensorRole::Bias | TensorRole::Shift | TensorRole::RunningMean => 0.0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::network::trainable::TrainableArchitecture;

    fn spread(values: &[f32]) -> f64 {
        let squares: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
        (squares / values.len() as f64).sqrt()
    }

    #[test]
    fn weights_have_the_variance_of_their_scheme() {
        let network = "vgg8".parse::<TrainableArchitecture>().unwrap().build([1, 28, 28], 10).unwrap();
        let he = network.initialize(Initialization::He, 3);
        let torch = network.initialize(Initialization::Torch, 3);
        for (id, spec) in network.tensors().iter().enumerate().filter(|(_, spec)| spec.role == TensorRole::Weight) {
            let fan_in: usize = spec.shape[1..].iter().product();
            let gain = if spec.name.starts_with("logits") { 1.0 } else { 2.0 };
            let expected = (gain / fan_in as f64).sqrt();
            // The standard error of a root mean square of n values is about 0.7 / sqrt(n), at most 1 / sqrt(n).
            let tolerance = 4.0 / (spec.len() as f64).sqrt();
            assert!((spread(he.get(id)) / expected - 1.0).abs() < tolerance, "{}: {}", spec.name, spread(he.get(id)));
            let bound = 1.0 / (fan_in as f64).sqrt();
            assert!(torch.get(id).iter().all(|&v| f64::from(v).abs() <= bound), "{}", spec.name);
            assert!((spread(torch.get(id)) / (bound / 3f64.sqrt()) - 1.0).abs() < tolerance, "{}", spec.name);
        }
        for (id, spec) in network.tensors().iter().enumerate().filter(|(_, spec)| spec.role == TensorRole::Bias) {
            assert!(he.get(id).iter().all(|&v| v == 0.0), "{}", spec.name);
            assert!(torch.get(id).iter().any(|&v| v != 0.0), "{}", spec.name);
        }
    }

    #[test]
    fn a_seed_decides_all_values() {
        let network = "resnet8".parse::<TrainableArchitecture>().unwrap().build([3, 32, 32], 10).unwrap();
        let draw = |seed| network.initialize(Initialization::He, seed);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
