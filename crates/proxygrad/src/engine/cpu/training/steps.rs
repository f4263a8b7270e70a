//! How the nodes of a trainable network are computed, and which of them together.

use std::ops::Range;
use std::sync::Arc;

use crate::engine::EngineError;
use crate::engine::cpu::kernel::{Direction, Kernel, KernelConfig, MICRO_BATCH};
use crate::engine::cpu::kernels::conv::ConvAlgorithm;
use crate::engine::cpu::layout::Layout;
use crate::engine::cpu::lower::lower;
use crate::engine::cpu::training::weight_gradient::WeightGradient;
use crate::engine::training::rectifier_leak;
use crate::network::trainable::{BatchNorm, TrainableNetwork, TrainableNode, TrainableOp};
use crate::network::{Binary, Op, Window};

/// How a node is computed.
pub(crate) enum Step {
    Input,
    /// A kernel without trained weights.
    Fixed(Arc<dyn Kernel>),
    /// A kernel that is built anew with the weights of each pass.
    Weighted {
        kernel: Option<Arc<dyn Kernel>>,
        gradient: Option<WeightGradient>,
        /// Whether the kernel takes the whole batch, which convolutions do, and not just a micro-batch.
        whole_batch: bool,
    },
    /// A rectifier, with its slope below 0.
    Rectifier(f32),
    /// A batch normalization, alone or as the last of nodes that are computed together.
    Norm(NormStep),
    /// Computed by the step of a later node, the only one that reads it; the node's own output is not kept.
    Fused,
}

/// A batch normalization, and what follows it: the sum with a residual, a rectifier.
pub(crate) struct NormStep {
    pub(crate) norm: BatchNorm,
    /// The node that is normalized.
    pub(crate) input: usize,
    /// The node that is added.
    pub(crate) residual: Option<usize>,
    /// Slope below 0 of the rectifier at the end.
    pub(crate) leak: Option<f32>,
}

impl Step {
    /// The images that the node's kernel takes at a time: most kernels are made for micro-batches.
    pub(crate) fn parts(&self, batch: usize) -> impl Iterator<Item = Range<usize>> {
        let most = if matches!(self, Self::Weighted { whole_batch: true, .. }) { batch } else { MICRO_BATCH };
        (0..batch).step_by(most).map(move |first| first..batch.min(first + most))
    }

    pub(crate) fn kernel(&self) -> Option<&dyn Kernel> {
        match self {
            Self::Fixed(kernel) => Some(&**kernel),
            Self::Weighted { kernel, .. } => kernel.as_deref(),
            Self::Input | Self::Rectifier(_) | Self::Norm(_) | Self::Fused => None,
        }
    }

    /// The nodes whose outputs the step reads.
    pub(crate) fn reads(&self, node: &TrainableNode) -> Vec<usize> {
        match self {
            Self::Norm(step) => [step.input].into_iter().chain(step.residual).collect(),
            Self::Fused => Vec::new(),
            _ => node.inputs.clone(),
        }
    }
}

/// The steps of a network whose nodes have the given layouts.
pub(crate) fn steps(
    network: &TrainableNetwork,
    layouts: &[Layout],
    config: KernelConfig,
) -> Result<Vec<Step>, EngineError> {
    let nodes = network.nodes();
    let mut steps = Vec::with_capacity(nodes.len());
    for (node, layout) in nodes.iter().zip(layouts) {
        let inputs: Vec<&Layout> = node.inputs.iter().map(|&input| &layouts[input]).collect();
        let weighted = |gradient, whole_batch| Step::Weighted { kernel: None, gradient, whole_batch };
        steps.push(match &node.op {
            TrainableOp::Fixed(Op::Input) => Step::Input,
            TrainableOp::Fixed(op) => match rectifier(node) {
                Some(leak) => Step::Rectifier(leak),
                None => lower_with(op, &inputs, layout, config)?.map_or(Step::Input, Step::Fixed),
            },
            TrainableOp::Conv { window, groups, .. } => {
                let channels = [inputs[0][0], node.shape[0]];
                weighted(Some(WeightGradient::new(window, channels, *groups, config.lanes)), true)
            }
            TrainableOp::Dense { .. } => {
                let channels = [inputs[0].elements(), node.shape.elements()];
                weighted(Some(WeightGradient::new(&Window::new([1, 1]), channels, 1, config.lanes)), false)
            }
            TrainableOp::Affine { .. } => weighted(None, false),
            TrainableOp::BatchNorm(norm) => {
                Step::Norm(NormStep { norm: *norm, input: node.inputs[0], residual: None, leak: None })
            }
        });
    }
    fuse(nodes, &mut steps);
    Ok(steps)
}

/// The kernel of an operation, with the estimated algorithms of a convolution.
pub(crate) fn lower_with(
    op: &Op,
    inputs: &[&Layout],
    output: &Layout,
    config: KernelConfig,
) -> Result<Option<Arc<dyn Kernel>>, EngineError> {
    let algorithms = match op {
        Op::Conv(conv) => [Direction::Forward, Direction::Backward]
            .map(|direction| ConvAlgorithm::estimate(conv, direction, [inputs[0].size(), output.size()])),
        _ => [ConvAlgorithm::Direct; 2],
    };
    lower(op, inputs, output, config, algorithms).map_err(EngineError::Mismatch)
}

/// The slope below 0 of a node that is a rectifier.
fn rectifier(node: &TrainableNode) -> Option<f32> {
    match &node.op {
        TrainableOp::Fixed(Op::Activation(activation)) => rectifier_leak(activation),
        _ => None,
    }
}

/// Computes batch normalizations together with the rectifier that alone reads them, directly or after the sum with a
/// residual.
fn fuse(nodes: &[TrainableNode], steps: &mut [Step]) {
    let mut reads = vec![0; nodes.len()];
    nodes.iter().flat_map(|node| &node.inputs).for_each(|&input| reads[input] += 1);
    let norm_of = |steps: &[Step], index: usize| match &steps[index] {
        Step::Norm(NormStep { norm, input, leak: None, .. }) if reads[index] == 1 => Some((*norm, *input)),
        _ => None,
    };
    for (last, node) in nodes.iter().enumerate() {
        let (Some(leak), &[before]) = (rectifier(node), &node.inputs[..]) else { continue };
        let leak = Some(leak);
        if let Some((norm, input)) = norm_of(steps, before) {
            steps[last] = Step::Norm(NormStep { norm, input, residual: None, leak });
            steps[before] = Step::Fused;
            continue;
        }
        let (TrainableOp::Fixed(Op::Binary(Binary::Add)), &[a, b]) = (&nodes[before].op, &nodes[before].inputs[..])
        else {
            continue;
        };
        if reads[before] > 1 || nodes[a].shape != nodes[b].shape {
            continue;
        }
        let found = [(a, b), (b, a)].into_iter().find_map(|(of, other)| Some((norm_of(steps, of)?, of, other)));
        if let Some(((norm, input), of, other)) = found {
            steps[last] = Step::Norm(NormStep { norm, input, residual: Some(other), leak });
            steps[before] = Step::Fused;
            steps[of] = Step::Fused;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn normalizations_of_a_residual_network_are_computed_with_their_rectifiers() {
        let network = "resnet8".parse::<crate::network::trainable::TrainableArchitecture>().unwrap();
        let network = network.build([1, 12, 12], 10).unwrap();
        let layouts: Vec<Layout> =
            network.nodes().iter().map(|node| Layout::channels_last(node.shape.clone())).collect();
        let config =
            KernelConfig { lanes: 8, threads: 1, on_the_fly_bytes: usize::MAX, weightless: false, bf16: false };
        let steps = steps(&network, &layouts, config).unwrap();
        let described: Vec<(&str, bool, bool)> = network
            .nodes()
            .iter()
            .zip(&steps)
            .filter_map(|(node, step)| match step {
                Step::Norm(NormStep { residual, leak, .. }) => Some((&*node.name, residual.is_some(), leak.is_some())),
                _ => None,
            })
            .collect();
        // The normalization of a shortcut is added, so it has no rectifier of its own.
        let alone: Vec<&str> =
            described.iter().filter(|(_, _, rectified)| !rectified).map(|(name, ..)| *name).collect();
        assert_eq!(alone, ["layer2.0.downsample.1", "layer3.0.downsample.1"]);
        assert_eq!(described.iter().filter(|(_, residual, _)| *residual).count(), 3);
        assert_eq!(steps.iter().filter(|step| matches!(step, Step::Fused)).count(), 4 + 2 * 3);
        assert!(!steps.iter().any(|step| matches!(step, Step::Rectifier(_))));
    }
}
