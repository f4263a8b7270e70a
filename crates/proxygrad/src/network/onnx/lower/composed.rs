//! Operators that are composed of others: each is carried out as the nodes of ONNX that define it.

use super::super::constant_folding;
use super::super::graph_builder::GraphBuilder;
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand};
use super::super::proto::{AttributeProto, NodeProto};
use super::lookup;

/// The opset of the nodes that operators are composed of.
const OPSET: i64 = 21;

/// A node that is part of a composed operator.
pub(super) struct Part<'a> {
    op_type: &'a str,
    inputs: Vec<Option<Operand>>,
    attributes: Vec<AttributeProto>,
    opset: i64,
}

impl<'a> Part<'a> {
    /// A node with these inputs.
    pub fn new(op_type: &'a str, inputs: impl IntoIterator<Item = Option<Operand>>) -> Self {
        Self { op_type, inputs: inputs.into_iter().collect(), attributes: Vec::new(), opset: OPSET }
    }

    /// The same with more attributes.
    pub fn with(mut self, attributes: impl IntoIterator<Item = AttributeProto>) -> Self {
        self.attributes.extend(attributes);
        self
    }

    /// The same as another opset defines it.
    pub fn of_opset(self, opset: i64) -> Self {
        Self { opset, ..self }
    }

    /// The outputs of the node, as part of the node of `ctx`.
    ///
    /// # Errors
    /// When it cannot be computed.
    pub fn outputs(self, builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<Vec<Operand>, String> {
        let Self { op_type, inputs, attributes, opset } = self;
        let input = (0..inputs.len()).map(|i| format!("{op_type}[{i}]")).collect();
        let node = NodeProto { op_type: op_type.into(), input, attribute: attributes, ..NodeProto::default() };
        let is_dynamic = inputs.iter().flatten().any(|input| matches!(input, Operand::Dynamic(_)));
        let NodeContext { batch, most_elements, files, .. } = *ctx;
        let part = NodeContext { node: &node, opset, inputs, batch, most_elements, files };
        if !is_dynamic {
            let fold = constant_folding::lookup(op_type).ok_or_else(|| format!("{op_type} of constants"))?;
            return Ok(fold(&part)?.into_iter().map(Operand::Constant).collect());
        }
        lookup(op_type).ok_or_else(|| format!("{op_type} is not supported"))?.outputs(builder, &part)
    }

    /// The only output of the node, as part of the node of `ctx`.
    ///
    /// # Errors
    /// When it cannot be computed.
    pub fn output(self, builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<Operand, String> {
        self.outputs(builder, ctx)?.into_iter().next().ok_or_else(|| "a part has no output".into())
    }
}

/// An attribute that is an integer.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    let kind = AttributeProto::INT;
    AttributeProto { name: name.into(), i: Some(value), r#type: kind, ..AttributeProto::default() }
}

/// An attribute that is a number.
pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    let kind = AttributeProto::FLOAT;
    AttributeProto { name: name.into(), f: Some(value), r#type: kind, ..AttributeProto::default() }
}

/// An attribute that is a string.
pub(super) fn text(name: &str, value: &str) -> AttributeProto {
    let kind = AttributeProto::STRING;
    AttributeProto { name: name.into(), s: Some(value.into()), r#type: kind, ..AttributeProto::default() }
}

/// An attribute that is a list of integers.
pub(super) fn ints(name: &str, values: Vec<i64>) -> AttributeProto {
    let kind = AttributeProto::INTS;
    AttributeProto { name: name.into(), ints: values, r#type: kind, ..AttributeProto::default() }
}

/// The tensor that a composed operator computes.
///
/// # Errors
/// When it does not depend on the image.
pub(super) fn tensor(operand: &Operand) -> Result<ImageTensor, String> {
    operand.dynamic().ok_or_else(|| "no input depends on the image".into())
}
