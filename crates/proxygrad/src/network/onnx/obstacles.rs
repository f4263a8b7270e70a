//! Nodes behind one that cannot be computed: they are lowered for tensors of the shapes that the file states, so that all
//! obstacles are found at once. Nothing that is lowered this way becomes part of the network.

use super::graph_builder::BuilderNode;
use super::image_tensor::ImageTensor;
use super::lower;
use super::lower_graph::Lowering;
use super::node_context::{NodeContext, Operand};
use super::proto::NodeProto;

impl<'g> Lowering<'g> {
    /// Whether a node that reads tensors which cannot be computed could be lowered if it had them.
    ///
    /// # Errors
    /// The reason why not.
    pub(super) fn check_behind_failure(&mut self, index: usize, node: &'g NodeProto) -> Result<(), String> {
        let info = &self.flat.nodes[index];
        let lower = lower::of_node(node).filter(|_| info.guard.is_none());
        let Some(lower) = lower else {
            self.assume_outputs(node);
            return Ok(());
        };
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            inputs.push(match self.input(name)? {
                Some(Operand::Unavailable(_)) => match self.assumed.get(name.as_str()) {
                    Some(assumed) => Some(assumed.clone()),
                    None => {
                        self.assume_outputs(node);
                        return Ok(());
                    }
                },
                known => known,
            });
        }
        if !inputs.iter().flatten().any(|input| matches!(input, Operand::Dynamic(_))) {
            self.assume_outputs(node);
            return Ok(());
        }
        let (opset, batch, files) = (info.opset, self.batch, self.files);
        let ctx = NodeContext { node, opset, inputs, batch, most_elements: self.element_budget, files };
        let first = self.builder.nodes().len();
        let lowered = lower.outputs(&mut self.builder, &ctx);
        let added = self.builder.nodes()[first..].iter().map(BuilderNode::parameter_count).sum();
        let shapes = |tensor: ImageTensor| {
            let node = self.builder.node(tensor.id);
            (node.shape.clone(), node.other_shape.clone())
        };
        let outputs: Vec<_> =
            lowered.iter().flatten().map(|output| (output.clone(), output.dynamic().map(shapes))).collect();
        self.builder.truncate(first);
        self.charge_elements(added)?;
        for ((output, shapes), name) in outputs.into_iter().zip(&node.output) {
            let output = match (output, shapes) {
                (Operand::Dynamic(tensor), Some((shape, other_shape))) => {
                    let id = self.builder.push_placeholder(shape, other_shape);
                    Operand::Dynamic(ImageTensor { id, ..tensor })
                }
                (output, _) => output,
            };
            self.assumed.insert(name, output);
        }
        lowered.map(|_| ())
    }

    /// Lets placeholders stand for the outputs of a node that cannot be computed, if their shapes are known.
    pub(super) fn assume_outputs(&mut self, node: &'g NodeProto) {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if let Some((shape, batch)) = self.stated_shapes.of(name) {
                let id = self.builder.push_placeholder(shape, None);
                self.assumed.insert(name, Operand::Dynamic(ImageTensor { id, batch }));
            }
        }
        let (Some(input), [output]) = (node.input.first(), node.output.as_slice()) else { return };
        if self.assumed.contains_key(output.as_str()) || !node.is_standard() || !lower::keeps_shape(&node.op_type) {
            return;
        }
        let input = [self.tensors.get(input.as_str()), self.assumed.get(input.as_str())];
        let tensor = input.into_iter().flatten().find_map(Operand::dynamic);
        if let Some(tensor) = tensor {
            let (shape, other) =
                (self.builder.node(tensor.id).shape.clone(), self.builder.node(tensor.id).other_shape.clone());
            let id = self.builder.push_placeholder(shape, other);
            self.assumed.insert(output, Operand::Dynamic(ImageTensor { id, ..tensor }));
        }
    }
}
