//! Fine-tuning: a trained network with a new last layer for other classes, and layers that keep their weights.

use super::{Initialization, Parameters, TensorRole, TrainableNetwork, TrainableOp};
use crate::Invalid;
use crate::network::error::GraphError;
use crate::network::op::Op;

impl TrainableNetwork {
    /// The last node with weights of a convolution or dense layer, which computes the logits.
    pub(super) fn head(&self) -> Option<usize> {
        let has_weights = |op: &TrainableOp| matches!(op, TrainableOp::Conv { .. } | TrainableOp::Dense { .. });
        self.nodes.iter().rposition(|node| has_weights(&node.op))
    }

    /// The network without softmax layers at its end: a loss wants logits.
    #[must_use]
    pub fn without_softmax(mut self) -> Self {
        while let Some(last) = self.nodes.last()
            && matches!(last.op, TrainableOp::Fixed(Op::Softmax { .. } | Op::LogSoftmax { .. }))
            && last.inputs == [self.nodes.len() - 2]
        {
            self.nodes.pop();
        }
        self
    }

    /// The network with a last layer of `classes` outputs, drawn as by [`TrainableNetwork::initialize`]; all other
    /// weights are those of `parameters`. The last layer is a dense layer or, as in SqueezeNet, a convolution before a
    /// pool.
    ///
    /// # Errors
    /// When there is no such layer, or what follows it does not accept another number of outputs.
    pub fn with_classes(
        &self,
        parameters: &Parameters,
        classes: usize,
        how: Initialization,
        seed: u64,
    ) -> Result<(Self, Parameters), GraphError> {
        let no_head = || GraphError::Trainable("the network has no last layer that could be replaced".into());
        let head = self.head().ok_or_else(no_head)?;
        let (TrainableOp::Conv { weight, bias, groups: 1, .. } | TrainableOp::Dense { weight, bias }) =
            &self.nodes[head].op
        else {
            return Err(no_head());
        };
        let replaced: Vec<usize> = std::iter::once(*weight).chain(*bias).collect();
        let mut network = Self { nodes: vec![self.nodes[Self::INPUT].clone()], tensors: self.tensors.clone() };
        for &id in &replaced {
            network.tensors[id].shape[0] = classes;
        }
        for node in &self.nodes[1..] {
            network.push(&node.name, node.op.clone(), &node.inputs)?;
        }
        let output = &network.nodes[network.nodes.len() - 1];
        if output.shape[..] != [classes] {
            let (layer, shape) = (&self.nodes[head].name, &output.shape);
            let why = format!("with {classes} outputs of its last layer {layer}, the network outputs {shape}");
            return Err(GraphError::Trainable(why));
        }
        let fresh = network.initialize(how, seed);
        let mut values = parameters.clone();
        for id in replaced {
            values.set(id, fresh.get(id).to_vec());
        }
        Ok((network, values))
    }

    /// Freezes the layers whose names match one of the patterns, in which `*` stands for any text: their weights keep
    /// their values in training.
    ///
    /// # Errors
    /// When a pattern matches no layer with weights, or nothing would be left to train; the error's field is `freeze`.
    pub fn freeze_layers(&mut self, patterns: &[String]) -> Result<(), Invalid> {
        for pattern in patterns {
            let found = self.nodes.iter().filter(|node| matches(pattern, &node.name));
            let ids: Vec<usize> = found.flat_map(|node| node.op.tensors()).collect();
            if ids.is_empty() {
                return Err(Invalid::new(
                    "freeze",
                    pattern,
                    format!("a pattern for layers with weights: {}", self.weighted()),
                ));
            }
            ids.into_iter().for_each(|id| self.tensors[id].frozen = true);
        }
        match self.tensors.iter().any(|spec| spec.role == TensorRole::Weight && spec.is_trained()) {
            true => Ok(()),
            false => Err(Invalid::new("freeze", patterns.join(", "), "patterns that leave a layer to be trained")),
        }
    }

    /// Names of the layers with weights, the first and last of many.
    fn weighted(&self) -> String {
        let names: Vec<&str> =
            self.nodes.iter().filter(|node| !node.op.tensors().is_empty()).map(|node| node.name.as_str()).collect();
        match names.as_slice() {
            [first, second, third, .., last] => format!("{first}, {second}, {third}, ... or {last}"),
            few => few.join(", "),
        }
    }
}

/// Whether a name matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((front, mut rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(front) else { return false };
    // Each part at its first place leaves the most text for those after it.
    while let Some((part, after)) = rest.split_once('*') {
        let Some(at) = name.find(part) else { return false };
        (name, rest) = (&name[at + part.len()..], after);
    }
    name.ends_with(rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::network::trainable::TrainableArchitecture;

    fn built(name: &str, classes: usize) -> TrainableNetwork {
        name.parse::<TrainableArchitecture>().unwrap().build([1, 16, 16], classes).unwrap()
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name) in [
            ("*", "a"),
            ("layer1*", "layer1.0.conv1"),
            ("*.conv*", "layer1.0.conv1"),
            ("a*c*e", "abcde"),
            ("a", "a"),
            ("a*", "a"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("", "a"), ("layer1", "layer1.0"), ("*conv", "conv1"), ("a*ca", "aca2"), ("ab*ba", "aba")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_new_head_has_fresh_weights_and_all_others_stay() {
        let network = built("resnet8", 10);
        let parameters = network.initialize(Initialization::He, 1);
        let (tuned, values) = network.with_classes(&parameters, 3, Initialization::He, 2).unwrap();
        assert_eq!(tuned.classes(), 3);
        for (id, (old, new)) in network.tensors().iter().zip(tuned.tensors()).enumerate() {
            match new.name.starts_with("logits") {
                true => assert_eq!((new.shape[0], values.get(id).len()), (3, new.len())),
                false => assert_eq!((old, parameters.get(id)), (new, values.get(id))),
            }
        }
        assert_eq!(tuned.freeze(&values).unwrap().outputs().len(), 1);
    }

    #[test]
    fn a_head_may_be_a_convolution_before_a_pool() {
        let mut network = TrainableNetwork::new([3, 8, 8]);
        let conv = network.conv("classifier", 5, crate::network::Window::new([1, 1]), true, 0).unwrap();
        let pool = network.global_average("pool", conv).unwrap();
        network.fixed("softmax", Op::Softmax { axis: 0 }, &[pool]).unwrap();
        let network = network.without_softmax();
        assert_eq!(network.nodes().last().unwrap().name, "pool");
        let parameters = network.initialize(Initialization::He, 0);
        assert_eq!(network.with_classes(&parameters, 7, Initialization::He, 0).unwrap().0.classes(), 7);
    }

    #[test]
    fn a_network_that_reshapes_its_logits_to_a_fixed_number_is_refused() {
        let mut network = TrainableNetwork::new([1, 2, 2]);
        let flat = network.flatten("flat", 0).unwrap();
        let dense = network.dense("fc", 6, flat).unwrap();
        network.fixed("fold", Op::Reshape(vec![crate::network::Axis::Exact(6)]), &[dense]).unwrap();
        let parameters = network.initialize(Initialization::He, 0);
        let refused = network.with_classes(&parameters, 4, Initialization::He, 0).unwrap_err().to_string();
        assert!(refused.contains("fold"), "{refused}");
    }

    #[test]
    fn frozen_layers_are_named_by_patterns_and_wrong_patterns_are_told_which_are_right() {
        let mut network = built("vgg8", 4);
        let all = network.parameter_count();
        network.freeze_layers(&["conv*".into()]).unwrap();
        assert!(network.parameter_count() < all);
        assert!(network.tensors().iter().all(|spec| spec.frozen == spec.name.starts_with("conv")));
        let wrong = network.freeze_layers(&["layer1*".into()]).unwrap_err();
        assert_eq!(wrong.field, "freeze");
        assert!(wrong.expected.contains("conv1") && wrong.expected.contains("logits"), "{wrong}");
        assert_eq!(network.freeze_layers(&["*".into()]).unwrap_err().value, "*");
    }
}
