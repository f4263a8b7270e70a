//! Channels-last tensors at the input of TensorFlow networks.

use std::collections::BTreeSet;

use super::graph::{Network, NodeId};
use super::op::Op;

impl Network {
    /// The nodes between the transposition of the image to `[H,W,C]`, as in TensorFlow files, and the one back to
    /// `[C,H,W]`. Their first axis is the rows of the image, so they have no units.
    pub(super) fn channels_last(&self) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::new();
        for (id, node) in self.nodes().iter().enumerate() {
            let is_last = match &node.op {
                Op::Transpose(order) => order[..] == [1, 2, 0] && node.inputs == [Self::INPUT],
                Op::Activation(_)
                | Op::Affine { .. }
                | Op::Binary(_)
                | Op::Concat { .. }
                | Op::Pad { .. }
                | Op::Slice { .. }
                | Op::Normalize(_) => node.inputs.iter().any(|input| found.contains(input)),
                Op::Input
                | Op::Constant(_)
                | Op::Conv(_)
                | Op::Dense { .. }
                | Op::MaxPool(_)
                | Op::AveragePool { .. }
                | Op::Reduce { .. }
                | Op::Reshape(_)
                | Op::Resize(_)
                | Op::Softmax { .. }
                | Op::LogSoftmax { .. } => false,
            };
            if is_last && node.shape.len() == 3 {
                found.insert(NodeId(id));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::network::{Activation, Array, Binary};

    #[test]
    fn rows_of_an_image_are_not_units() {
        let mut network = Network::new(3, 8, 6);
        let mut push = |name: &str, op: Op, inputs: &[NodeId]| network.push(name, op, inputs).unwrap();
        let image = push("image", Op::Transpose(vec![1, 2, 0]), &[Network::INPUT]);
        let mean = push("mean", Op::Constant(Array::vector(vec![0.1, 0.2, 0.3])), &[]);
        let shift = push("shift", Op::Binary(Binary::Sub), &[image, mean]);
        let map = push("map", Op::Transpose(vec![2, 0, 1]), &[shift]);
        let relu = push("relu", Op::Activation(Activation::Relu), &[map]);
        // Deeper in a network, such as in a layer norm over channels, such a transposition is a layer.
        push("inner", Op::Transpose(vec![1, 2, 0]), &[relu]);
        let names: Vec<&str> = network.layers().map(|layer| layer.name).collect();
        assert_eq!(names, ["map", "relu", "inner"]);
        let error = network.layer("shift").unwrap_err();
        assert_eq!((error.field.as_str(), error.value.as_str()), ("layer", "shift"));
        assert!(network.layer("relu").is_ok());
    }
}
