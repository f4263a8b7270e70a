//! Layers that compute only the channels that are looked at: of a classifier's last layer one row of weights may be all
//! that a unit needs.

use super::outline::Outlined;
use crate::network::{Activation, Axis, Conv, Network, Op, Shape};

/// Leaves out all channels of a target but `kept`, down to the layer that makes channels of channels. Nothing happens
/// where somebody else reads what is between, where channels are not told apart, or where most are kept anyway. Gives
/// whether they were left out.
///
/// `targets` are those of all the plan, this one among them.
pub(super) fn narrow(
    network: &Network,
    nodes: &mut [Outlined],
    target: usize,
    targets: &[usize],
    kept: &[usize],
) -> bool {
    if kept.is_empty() || 2 * kept.len() > nodes[target].shape.channels() {
        return false;
    }
    let mut path = vec![target];
    let mut at = target;
    loop {
        let readers = nodes.iter().flat_map(|node| &node.inputs).filter(|&&input| input == at).count();
        let aims = targets.iter().filter(|&&other| other == at).count();
        // The target is only looked at, once, and what is before it only read, by the one behind it.
        if (aims, readers) != (if at == target { (1, 0) } else { (0, 1) }) {
            return false;
        }
        let input = nodes[at].inputs.first().map(|&input| &nodes[input].shape);
        match Passage::of(nodes[at].op(network), input, &nodes[at].shape) {
            Passage::Closed => return false,
            Passage::Source => break,
            Passage::Open => at = nodes[at].inputs[0],
        }
        path.push(at);
    }
    for n in path {
        let mut shape = nodes[n].shape.to_vec();
        shape[0] = kept.len();
        let shape = Shape::from(shape);
        nodes[n].narrowed = Some(narrowed(nodes[n].op(network), kept, &shape));
        nodes[n].shape = shape;
    }
    true
}

/// What channels of an output are computed from.
enum Passage {
    /// All channels of the input, with weights of their own.
    Source,
    /// The same channels of the only input.
    Open,
    /// Anything else.
    Closed,
}

impl Passage {
    fn of(op: &Op, input: Option<&Shape>, output: &Shape) -> Self {
        let Some(input) = input else { return Self::Closed };
        let channelled = |shape: &Shape| matches!(shape.len(), 1 | 3);
        match op {
            Op::Conv(conv) if conv.groups == 1 => Self::Source,
            Op::Conv(conv) if conv.groups == conv.in_channels() && conv.groups == conv.out_channels() => Self::Open,
            Op::Dense { .. } => Self::Source,
            Op::Activation(_) | Op::Affine { .. } | Op::MaxPool(_) | Op::AveragePool { .. } if channelled(output) => {
                Self::Open
            }
            Op::Reduce { axes, .. } if channelled(input) && channelled(output) && !axes.contains(&0) => Self::Open,
            // A vector written as a map of one pixel, or back.
            Op::Reshape(_) if channelled(input) && channelled(output) => {
                let is_vector = |shape: &Shape| shape.elements() == shape.channels();
                if is_vector(input) && is_vector(output) { Self::Open } else { Self::Closed }
            }
            _ => Self::Closed,
        }
    }
}

/// An operation on some channels alone.
fn narrowed(op: &Op, kept: &[usize], output: &Shape) -> Op {
    match op {
        Op::Conv(conv) => Op::Conv(Conv {
            weight: conv.weight.rows(kept),
            bias: conv.bias.as_ref().map(|bias| bias.rows(kept)),
            window: conv.window,
            groups: if conv.groups == 1 { 1 } else { kept.len() },
        }),
        Op::Dense { weight, bias } => {
            Op::Dense { weight: weight.rows(kept), bias: bias.as_ref().map(|bias| bias.rows(kept)) }
        }
        Op::Affine { scale, shift } => Op::Affine { scale: scale.rows(kept), shift: shift.rows(kept) },
        Op::Activation(Activation::PRelu { slopes }) if slopes.len() > 1 => {
            Op::Activation(Activation::PRelu { slopes: slopes.rows(kept) })
        }
        Op::Reshape(_) => Op::Reshape(output.iter().map(|&length| Axis::Exact(length)).collect()),
        other => other.clone(),
    }
}
