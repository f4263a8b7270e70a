//! Optimizers: SGD with momentum and AdamW, and clipping of the gradient's norm.

use serde::{Deserialize, Serialize};

use crate::engine::Gradients;
use crate::network::trainable::{Parameters, TensorRole, TensorSpec};

/// An optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum, as `torch.optim.SGD`.
    #[default]
    Sgd,
    /// Adam with decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101), as `torch.optim.AdamW`.
    Adamw,
}

impl OptimizerKind {
    /// The default learning rate, which is a tenth if a run starts from the weights of a model.
    pub(crate) fn default_rate(self, from_model: bool) -> f64 {
        let rate = match self {
            Self::Sgd => 0.1,
            Self::Adamw => 1e-3,
        };
        if from_model { rate / 10.0 } else { rate }
    }
}

/// An optimizer and its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerSettings {
    /// The rule.
    pub kind: OptimizerKind,
    /// Momentum of SGD, and the decay of AdamW's first moment.
    pub momentum: f32,
    /// Decay of the weights of convolutions and dense layers; biases and normalizations do not decay.
    pub weight_decay: f32,
    /// Largest Euclidean norm of the whole gradient; larger ones are scaled down to it. `None` for no limit.
    pub clip: Option<f32>,
}

/// Decay of AdamW's second moment.
const SECOND_DECAY: f32 = 0.999;
/// Added to the root of AdamW's second moment.
const EPSILON: f32 = 1e-8;

/// An optimizer with its moments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Optimizer {
    settings: OptimizerSettings,
    /// Number of updates so far.
    pub(super) steps: u64,
    /// One or two per tensor, by [`Optimizer::moment_names`].
    pub(super) moments: Vec<Vec<Vec<f32>>>,
}

impl Optimizer {
    pub(super) fn new(settings: OptimizerSettings, tensors: &[TensorSpec]) -> Self {
        let zeros = || tensors.iter().map(|spec| vec![0.0; if spec.is_trained() { spec.len() } else { 0 }]);
        let moments = Self::moment_names(settings.kind).iter().map(|_| zeros().collect()).collect();
        Self { settings, steps: 0, moments }
    }

    /// What the moments are called in a checkpoint.
    pub(super) fn moment_names(kind: OptimizerKind) -> &'static [&'static str] {
        match kind {
            OptimizerKind::Sgd => &["momentum"],
            OptimizerKind::Adamw => &["first_moment", "second_moment"],
        }
    }

    /// One update.
    pub(super) fn update(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        tensors: &[TensorSpec],
        rate: f32,
    ) {
        self.steps += 1;
        let scale = self.settings.clip.map_or(1.0, |most| clip_factor(gradients, tensors, most));
        let momentum = self.settings.momentum;
        let corrections = [momentum, SECOND_DECAY].map(|decay| 1.0 - f64::from(decay).powf(self.steps as f64));
        for (id, spec) in tensors.iter().enumerate().filter(|(_, spec)| spec.is_trained()) {
            let decay = if spec.role == TensorRole::Weight { self.settings.weight_decay } else { 0.0 };
            let values = parameters.get_mut(id).iter_mut().zip(&gradients[id]);
            match (self.settings.kind, self.moments.as_mut_slice()) {
                (OptimizerKind::Sgd, [velocity]) => {
                    for ((value, gradient), velocity) in values.zip(&mut velocity[id]) {
                        *velocity = momentum * *velocity + (gradient * scale + decay * *value);
                        *value -= rate * *velocity;
                    }
                }
                (OptimizerKind::Adamw, [first, second]) => {
                    let (rate_corrected, root) =
                        ((f64::from(rate) / corrections[0]) as f32, corrections[1].sqrt() as f32);
                    for (((value, gradient), first), second) in values.zip(&mut first[id]).zip(&mut second[id]) {
                        let gradient = gradient * scale;
                        *value *= 1.0 - rate * decay;
                        *first = momentum * *first + (1.0 - momentum) * gradient;
                        *second = SECOND_DECAY * *second + (1.0 - SECOND_DECAY) * gradient * gradient;
                        *value -= rate_corrected * *first / (second.sqrt() / root + EPSILON);
                    }
                }
                _ => {}
            }
        }
    }
}

/// The factor that reduces the norm of the gradients of all trained tensors to at most `most`.
fn clip_factor(gradients: &Gradients, tensors: &[TensorSpec], most: f32) -> f32 {
    let trained = gradients.iter().zip(tensors).filter(|(_, spec)| spec.is_trained());
    let squares: f64 = trained.flat_map(|(gradient, _)| gradient).map(|&value| f64::from(value).powi(2)).sum();
    (f64::from(most) / (squares.sqrt() + 1e-6)).min(1.0) as f32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::network::trainable::{Initialization, TrainableNetwork};

    /// One dense layer with weight 1 and bias 1.
    fn start() -> (TrainableNetwork, Parameters) {
        let mut network = TrainableNetwork::new([1, 1, 1]);
        let flat = network.flatten("flat", TrainableNetwork::INPUT).unwrap();
        network.dense("fc", 1, flat).unwrap();
        let mut parameters = network.initialize(Initialization::He, 0);
        (0..2).for_each(|id| parameters.get_mut(id)[0] = 1.0);
        (network, parameters)
    }

    fn run(settings: OptimizerSettings, gradients: [[f32; 2]; 3]) -> Vec<[f32; 2]> {
        let (network, mut parameters) = start();
        let mut optimizer = Optimizer::new(settings, network.tensors());
        let mut steps = Vec::new();
        for [weight, bias] in gradients {
            optimizer.update(&mut parameters, &vec![vec![weight], vec![bias]], network.tensors(), 0.1);
            steps.push([parameters.get(0)[0], parameters.get(1)[0]]);
        }
        steps
    }

    fn assert_close(found: &[[f32; 2]], expected: &[[f32; 2]]) {
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 2e-6, "{found}, expected {expected}");
        }
    }

    /// By hand: v1 = 2 + 0.5 * 1 = 2.5, w1 = 0.75; v2 = 0.9 * 2.5 - 1 + 0.5 * 0.75 = 1.625, w2 = 0.5875; ...
    #[test]
    fn sgd_follows_its_definition() {
        let settings = OptimizerSettings { kind: OptimizerKind::Sgd, momentum: 0.9, weight_decay: 0.5, clip: None };
        let found = run(settings, [[2.0, 1.0], [-1.0, 1.0], [0.0, 1.0]]);
        let third = 0.9 * 1.625 + 0.5 * 0.5875;
        assert_close(&found, &[[0.75, 0.9], [0.5875, 0.71], [0.5875 - 0.1 * third, 0.439]]);
    }

    /// The values that `torch.optim.AdamW` gives for these gradients, with decay 0.5 on the weight only.
    #[test]
    fn adamw_follows_its_definition() {
        let settings = OptimizerSettings { kind: OptimizerKind::Adamw, momentum: 0.9, weight_decay: 0.5, clip: None };
        let found = run(settings, [[2.0, 1.0], [-1.0, 1.0], [0.0, 1.0]]);
        // The first step is the learning rate against the sign of the gradient.
        let first = 1.0 - 0.05 - 0.1;
        let m = (0.9 * 0.2 - 0.1) / (1.0 - 0.81);
        let v: f32 = (0.999 * 0.004 + 0.001) / (1.0 - 0.998_001);
        let second = first * 0.95 - 0.1 * m / v.sqrt();
        let m = 0.9 * 0.08 / (1.0 - 0.729);
        let v: f32 = 0.999 * (0.999 * 0.004 + 0.001) / (1.0 - 0.997_003);
        let third = second * 0.95 - 0.1 * m / v.sqrt();
        assert_close(&found, &[[first, 0.9], [second, 0.8], [third, 0.7]]);
    }

    #[test]
    fn a_gradient_above_the_limit_is_scaled_down_as_a_whole() {
        let settings =
            OptimizerSettings { kind: OptimizerKind::Sgd, momentum: 0.0, weight_decay: 0.0, clip: Some(1.0) };
        let found = run(settings, [[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]);
        assert_close(&found, &[[0.94, 0.92], [0.91, 0.88], [0.91, 0.88]]);
    }
}
