//! Small files built in code. Values are compared with ONNX Runtime's in `tests/suite/onnx_runtime.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batches;
mod broken;
mod constant_inputs;
mod external_data;
mod flatten;
mod layer_names;
mod lowering;
mod mutated;
mod normalizations;
mod obstacles;
mod partial;
mod quantization;
mod refused;
mod sizes;

use prost::Message;

use super::proto::*;
use super::stored_tensor::data_type;
use super::{ExternalData, ImportError, ImportOptions, Imported, import, import_with};
use crate::network::NodeId;

/// A file under construction.
#[derive(Clone)]
struct File {
    model: ModelProto,
}

fn dimension(length: i64) -> Dimension {
    Dimension { dim_value: Some(length), dim_param: None }
}

fn open(name: &str) -> Dimension {
    Dimension { dim_value: None, dim_param: Some(name.into()) }
}

fn value_info(name: &str, elem_type: i32, dim: Vec<Dimension>) -> ValueInfoProto {
    let tensor_type = Some(TensorType { elem_type, shape: Some(TensorShapeProto { dim }) });
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type }) }
}

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: data_type::FLOAT,
        dims: dims.to_vec(),
        float_data: values.to_vec(),
        ..TensorProto::default()
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeProto::INTS, ints: values.to_vec(), ..Default::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeProto::INT, i: Some(value), ..Default::default() }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeProto::FLOAT, f: Some(value), ..Default::default() }
}

fn text(name: &str, value: &str) -> AttributeProto {
    let s = Some(value.as_bytes().to_vec());
    AttributeProto { name: name.into(), r#type: AttributeProto::STRING, s, ..Default::default() }
}

impl File {
    /// An opset 13 file with the input `image` `[n,C,H,W]` and nothing else.
    fn new([channels, height, width]: [i64; 3]) -> Self {
        let axes = vec![open("n"), dimension(channels), dimension(height), dimension(width)];
        let graph = GraphProto { input: vec![value_info("image", data_type::FLOAT, axes)], ..Default::default() };
        let model = ModelProto { graph: Some(graph), ..Default::default() };
        Self { model }.opset(13)
    }

    fn opset(mut self, version: i64) -> Self {
        self.model.opset_import = vec![OperatorSetIdProto { domain: String::new(), version }];
        self
    }

    fn graph(&mut self) -> &mut GraphProto {
        self.model.graph.as_mut().unwrap()
    }

    /// Adds a node; `io` is `input, input -> output, output`.
    fn node(mut self, op: &str, name: &str, io: &str, attribute: &[AttributeProto]) -> Self {
        let (input, output) = io.split_once("->").unwrap();
        let names = |list: &str| list.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
        self.graph().node.push(NodeProto {
            op_type: op.into(),
            name: name.into(),
            input: if input.trim().is_empty() { Vec::new() } else { names(input) },
            output: names(output),
            attribute: attribute.to_vec(),
            ..NodeProto::default()
        });
        self
    }

    /// Sets the module scopes of the last node.
    fn scopes(mut self, list: &str) -> Self {
        let key = "pkg.torch.onnx.name_scopes".to_owned();
        let node = self.graph().node.last_mut().unwrap();
        node.metadata_props.push(StringStringEntryProto { key, value: list.into() });
        self
    }

    fn constant(mut self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        self.graph().initializer.push(tensor(name, dims, values));
        self
    }

    fn int_constant(mut self, name: &str, values: &[i64]) -> Self {
        self.graph().initializer.push(TensorProto {
            name: name.into(),
            data_type: data_type::INT64,
            dims: vec![values.len() as i64],
            int64_data: values.to_vec(),
            ..TensorProto::default()
        });
        self
    }

    /// Weights `[O,C,k,k]`, all different.
    fn kernel(self, name: &str, out: i64, channels: i64, k: i64) -> Self {
        let values: Vec<f32> = (0..out * channels * k * k).map(|i| (i as f32 * 0.37).sin()).collect();
        self.constant(name, &[out, channels, k, k], &values)
    }

    /// States the type of a tensor.
    fn states(mut self, name: &str, elem_type: i32, axes: Vec<Dimension>) -> Self {
        self.graph().value_info.push(value_info(name, elem_type, axes));
        self
    }

    fn output(mut self, name: &str) -> Self {
        self.graph().output.push(ValueInfoProto { name: name.into(), r#type: None });
        self
    }

    fn bytes(&self) -> Vec<u8> {
        self.model.encode_to_vec()
    }

    fn import(&self) -> Result<Imported, ImportError> {
        import(&self.bytes())
    }
}

/// Names and operations of all layers: `conv1 conv, relu1 relu`.
fn layers(imported: &Imported) -> String {
    let layers: Vec<String> = imported.network.layers().map(|layer| format!("{} {}", layer.name, layer.op)).collect();
    layers.join(", ")
}

fn shape(imported: &Imported, name: &str) -> Vec<usize> {
    let id: NodeId = imported.network.find(name).unwrap();
    imported.network.node(id).shape.to_vec()
}
