//! Export: a network becomes an ONNX file (opset 18), with open batch size.
//!
//! Exported are the operations of trainable networks and their relatives; others are an error that names the layer.

use prost::Message;

use super::proto::{
    AttributeProto, Dimension, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TensorType, TypeProto,
    ValueInfoProto,
};
use crate::network::{Activation, Array, Axis, Binary, Network, NodeId, Op, QUICK_GELU_FACTOR, Reduce, Shape, Window};

/// Opset of exported files.
const OPSET: i64 = 18;
/// Version of the file format that introduced this opset.
const IR_VERSION: i64 = 8;
/// Element type f32.
const FLOAT: i32 = 1;

/// `ModelProto`, as far as it is written.
#[derive(Clone, PartialEq, prost::Message)]
struct WrittenModel {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<WrittenGraph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
}

/// `GraphProto`, as far as it is written.
#[derive(Clone, PartialEq, prost::Message)]
struct WrittenGraph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

/// A layer that cannot be exported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{layer} ({op}) cannot be exported to ONNX")]
pub struct ExportError {
    /// Its name.
    pub layer: String,
    /// Its operation.
    pub op: &'static str,
}

/// Writes a network as an ONNX file with the input `input` `[N,C,H,W]`. Nodes and their outputs have the names of the
/// layers.
///
/// # Examples
/// ```
/// use proxygrad::network::{onnx, trainable::{Initialization, TrainableArchitecture}};
///
/// let network = TrainableArchitecture::default().build([3, 32, 32], 10)?;
/// let network = network.freeze(&network.initialize(Initialization::He, 0))?;
/// let imported = onnx::import(&onnx::export(&network)?)?;
/// assert!(imported.network.find("layer1.0.conv1").is_some() && imported.unsupported.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When an operation cannot be exported.
pub fn export(network: &Network) -> Result<Vec<u8>, ExportError> {
    let mut writer = Writer { network, nodes: Vec::new(), initializers: Vec::new() };
    for id in network.below(network.outputs()) {
        writer.node(id)?;
    }
    let outputs = network.outputs().iter().map(|&id| value_info(&writer.name(id), &network.node(id).shape));
    let graph = WrittenGraph {
        name: "proxygrad".into(),
        input: vec![value_info("input", network.input_shape())],
        output: outputs.collect(),
        node: writer.nodes,
        initializer: writer.initializers,
    };
    let model = WrittenModel {
        ir_version: IR_VERSION,
        producer_name: "proxygrad".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
    };
    Ok(model.encode_to_vec())
}

/// A tensor of f32 with an open batch axis.
fn value_info(name: &str, shape: &Shape) -> ValueInfoProto {
    let batch = Dimension { dim_param: Some("N".into()), dim_value: None };
    let axis = |&length: &usize| Dimension { dim_value: Some(length as i64), dim_param: None };
    let dim = std::iter::once(batch).chain(shape.iter().map(axis)).collect();
    let tensor = TensorType { elem_type: FLOAT, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

struct Writer<'a> {
    network: &'a Network,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> AttributeProto {
    let ints = values.into_iter().map(|value| value as i64).collect();
    AttributeProto { name: name.into(), ints, r#type: AttributeProto::INTS, ..AttributeProto::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: Some(value), r#type: AttributeProto::INT, ..AttributeProto::default() }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: Some(value), r#type: AttributeProto::FLOAT, ..AttributeProto::default() }
}

/// Attributes of a sliding window.
fn window_attributes(window: &Window) -> Vec<AttributeProto> {
    let pads = window.before().into_iter().chain(window.after());
    let mut attributes = vec![
        ints("kernel_shape", window.kernel),
        ints("strides", window.stride),
        ints("dilations", window.dilation),
        ints("pads", pads),
    ];
    if window.ceil {
        attributes.push(int("ceil_mode", 1));
    }
    attributes
}

impl Writer<'_> {
    fn name(&self, id: NodeId) -> String {
        if id == Network::INPUT { "input".into() } else { self.network.node(id).name.clone() }
    }

    /// Adds a constant and returns its name.
    fn constant(&mut self, name: String, shape: &[usize], data: &[f32]) -> String {
        self.initializers.push(TensorProto {
            name: name.clone(),
            dims: shape.iter().map(|&length| length as i64).collect(),
            data_type: FLOAT,
            raw_data: data.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ..TensorProto::default()
        });
        name
    }

    fn array(&mut self, layer: &str, part: &str, array: &Array) -> String {
        self.constant(format!("{layer}.{part}"), array.shape(), array.data())
    }

    fn push(&mut self, op_type: &str, output: &str, input: Vec<String>, attribute: Vec<AttributeProto>) {
        let (op_type, name) = (op_type.to_owned(), output.to_owned());
        let output = vec![name.clone()];
        self.nodes.push(NodeProto { input, output, name, op_type, attribute, ..NodeProto::default() });
    }

    fn node(&mut self, id: NodeId) -> Result<(), ExportError> {
        let node = self.network.node(id);
        let name = self.name(id);
        let mut inputs: Vec<String> = node.inputs.iter().map(|&input| self.name(input)).collect();
        let unsupported = || ExportError { layer: node.name.clone(), op: node.op.name() };
        match &node.op {
            Op::Input => {}
            Op::Constant(array) => {
                let shape = [&[1], array.shape()].concat();
                self.constant(name, &shape, array.data());
            }
            Op::Conv(conv) => {
                inputs.push(self.array(&name, "weight", &conv.weight));
                if let Some(bias) = &conv.bias {
                    inputs.push(self.array(&name, "bias", bias));
                }
                let mut attributes = window_attributes(&conv.window);
                attributes.push(int("group", conv.groups as i64));
                self.push("Conv", &name, inputs, attributes);
            }
            Op::Dense { weight, bias } if node.shape.len() == 1 => {
                inputs.push(self.array(&name, "weight", weight));
                if let Some(bias) = bias {
                    inputs.push(self.array(&name, "bias", bias));
                }
                self.push("Gemm", &name, inputs, vec![int("transB", 1)]);
            }
            Op::Affine { scale, shift } => {
                let rank = node.shape.len();
                let shape: Vec<usize> = (0..rank).map(|axis| if axis == 0 { scale.len() } else { 1 }).collect();
                inputs.push(self.constant(format!("{name}.scale"), &shape, scale.data()));
                let product = format!("{name}/scaled");
                self.push("Mul", &product, inputs, Vec::new());
                let shift = self.constant(format!("{name}.shift"), &shape, shift.data());
                self.push("Add", &name, vec![product, shift], Vec::new());
            }
            Op::Activation(activation) => self.activation(&name, activation, inputs).ok_or_else(unsupported)?,
            Op::Binary(Binary::Add) => self.push("Add", &name, inputs, Vec::new()),
            Op::Binary(Binary::Sub) => self.push("Sub", &name, inputs, Vec::new()),
            Op::Binary(Binary::Mul) => self.push("Mul", &name, inputs, Vec::new()),
            Op::Binary(Binary::Div) => self.push("Div", &name, inputs, Vec::new()),
            Op::Concat { axis } => self.push("Concat", &name, inputs, vec![int("axis", *axis as i64 + 1)]),
            Op::MaxPool(window) => self.push("MaxPool", &name, inputs, window_attributes(window)),
            Op::AveragePool { window, count_padding } => {
                let mut attributes = window_attributes(window);
                attributes.push(int("count_include_pad", i64::from(*count_padding)));
                self.push("AveragePool", &name, inputs, attributes);
            }
            Op::Reduce { kind: Reduce::Mean, axes, keep } if axes[..] == [1, 2] => {
                if *keep {
                    self.push("GlobalAveragePool", &name, inputs, Vec::new());
                } else {
                    let pooled = format!("{name}/pooled");
                    self.push("GlobalAveragePool", &pooled, inputs, Vec::new());
                    self.push("Flatten", &name, vec![pooled], Vec::new());
                }
            }
            Op::Reshape(target) if node.shape.len() == 1 && matches!(target[..], [Axis::Infer | Axis::Exact(_)]) => {
                self.push("Flatten", &name, inputs, Vec::new());
            }
            Op::Softmax { axis } => self.push("Softmax", &name, inputs, vec![int("axis", *axis as i64 + 1)]),
            Op::LogSoftmax { axis } => self.push("LogSoftmax", &name, inputs, vec![int("axis", *axis as i64 + 1)]),
            _ => return Err(unsupported()),
        }
        Ok(())
    }

    /// `None` if the activation has no operator of its own.
    fn activation(&mut self, name: &str, activation: &Activation, mut inputs: Vec<String>) -> Option<()> {
        let (op_type, attributes) = match activation {
            Activation::Relu => ("Relu", Vec::new()),
            Activation::LeakyRelu { slope } => ("LeakyRelu", vec![float("alpha", *slope)]),
            Activation::PRelu { slopes } => {
                let shape = if slopes.len() == 1 { vec![1] } else { vec![slopes.len(), 1, 1] };
                inputs.push(self.constant(format!("{name}.slopes"), &shape, slopes.data()));
                ("PRelu", Vec::new())
            }
            Activation::Clip { min, max } => {
                inputs.push(self.constant(format!("{name}.min"), &[], &[*min]));
                inputs.push(self.constant(format!("{name}.max"), &[], &[*max]));
                ("Clip", Vec::new())
            }
            Activation::HardSigmoid { alpha, beta } => {
                ("HardSigmoid", vec![float("alpha", *alpha), float("beta", *beta)])
            }
            Activation::HardSwish => ("HardSwish", Vec::new()),
            Activation::Sigmoid => ("Sigmoid", Vec::new()),
            Activation::Tanh => ("Tanh", Vec::new()),
            Activation::Silu => {
                let gate = format!("{name}/sigmoid");
                self.push("Sigmoid", &gate, inputs.clone(), Vec::new());
                inputs.push(gate);
                ("Mul", Vec::new())
            }
            Activation::QuickGelu => {
                let (factor, scaled, gate) =
                    (format!("{name}.factor"), format!("{name}/scaled"), format!("{name}/sigmoid"));
                let factor = self.constant(factor, &[], &[QUICK_GELU_FACTOR as f32]);
                self.push("Mul", &scaled, vec![inputs[0].clone(), factor], Vec::new());
                self.push("Sigmoid", &gate, vec![scaled], Vec::new());
                inputs.push(gate);
                ("Mul", Vec::new())
            }
            Activation::Elu { alpha } => ("Elu", vec![float("alpha", *alpha)]),
            Activation::Selu => ("Selu", Vec::new()),
            Activation::Mish => ("Mish", Vec::new()),
            Activation::Softplus => ("Softplus", Vec::new()),
            _ => return None,
        };
        self.push(op_type, name, inputs, attributes);
        Some(())
    }
}
