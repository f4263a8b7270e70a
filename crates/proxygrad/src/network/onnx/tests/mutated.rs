//! Well-formed but nonsensical files: every fixture with a few random changes to its nodes, attributes and tensors is
//! imported or rejected, and never causes a panic.

use candle_core::{Device, safetensors};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::*;
use crate::network::Op;

const FAMILIES: [&str; 24] = [
    "activations",
    "attention",
    "constants",
    "convolutions",
    "dense",
    "factors",
    "functions",
    "indices",
    "lines",
    "nested",
    "networks",
    "normalizations",
    "pads",
    "pools",
    "products",
    "quantized",
    "reductions",
    "resizes",
    "selections",
    "shapes",
    "softmax",
    "sums",
    "transposed",
    "versions",
];

/// Numbers that are likely to cause errors.
const INTS: [i64; 14] =
    [i64::MIN, -(1 << 40), -7, -2, -1, 0, 1, 2, 3, 6, 1 << 24, i32::MAX as i64, (1 << 40) + 1, i64::MAX];
const FLOATS: [f32; 8] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 0.0, 0.3, 2.5, 1e30];

const SCOPES: [&str; 6] =
    ["['', 'a', 'a.b', 'x']", "['a', 'y']", "['image', 'input', 'z']", "['a.b', 'a:c', 'a/d', 'w']", "[", "['', ''"];

/// One change. Indices choose among what the file has.
#[derive(Debug, Clone)]
enum Change {
    /// A node becomes another operation, one that occurs somewhere in the fixtures.
    Operation(Index, Index),
    /// A node reads another tensor.
    Input(Index, Index, Index),
    /// A node reads one tensor fewer.
    FewerInputs(Index),
    /// An attribute gets another integer and float.
    Attribute(Index, Index, Index, Index),
    /// An attribute moves from one node to another.
    Move(Index, Index, Index),
    /// An integer of a tensor changes.
    Value(Index, Index, Index),
    /// The shape of a tensor changes; its number of values does not.
    Shape(Index, Vec<usize>),
    /// Tensor `a` gets the contents of tensor `b`.
    Swap(Index, Index),
    /// A tensor refers to external data.
    External(Index, Index, Index),
    /// A node gets a module path.
    Module(Index, Index),
    /// The file states a shape for an output of a node.
    Stated(Index, Vec<i64>),
    Opset(i64),
}

fn change() -> impl Strategy<Value = Change> {
    let i = any::<Index>;
    prop_oneof![
        (i(), i()).prop_map(|(a, b)| Change::Operation(a, b)),
        (i(), i(), i()).prop_map(|(a, b, c)| Change::Input(a, b, c)),
        i().prop_map(Change::FewerInputs),
        (i(), i(), i(), i()).prop_map(|(a, b, c, d)| Change::Attribute(a, b, c, d)),
        (i(), i(), i()).prop_map(|(a, b, c)| Change::Move(a, b, c)),
        (i(), i(), i()).prop_map(|(a, b, c)| Change::Value(a, b, c)),
        (i(), prop::collection::vec(0..5usize, 0..5)).prop_map(|(a, b)| Change::Shape(a, b)),
        (i(), i()).prop_map(|(a, b)| Change::Swap(a, b)),
        (i(), i(), i()).prop_map(|(a, b, c)| Change::External(a, b, c)),
        (i(), i()).prop_map(|(a, b)| Change::Module(a, b)),
        (i(), prop::collection::vec(prop_oneof![6 => -1..8i64, 1 => prop::sample::select(&INTS[..])], 0..6))
            .prop_map(|(a, b)| Change::Stated(a, b)),
        (5..31i64).prop_map(Change::Opset),
    ]
}

/// The fixtures with their input sizes, and all operations that occur in them.
struct Seeds {
    files: Vec<(ModelProto, ImportOptions)>,
    operations: Vec<String>,
}

fn seeds() -> Seeds {
    let mut files = Vec::new();
    for family in FAMILIES {
        let path = format!("{}/tests/fixtures/onnx/{family}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let tensors = safetensors::load(path, &Device::Cpu).unwrap();
        let mut cases: Vec<&str> = tensors.keys().filter_map(|name| name.strip_suffix("/model")).collect();
        cases.sort_unstable();
        for case in cases {
            let (_, mut channels, mut height, mut width) = tensors[&format!("{case}/input")].dims4().unwrap();
            if case.ends_with("channels_last") {
                (channels, height, width) = (width, channels, height);
            }
            let bytes: Vec<u8> = tensors[&format!("{case}/model")].to_vec1().unwrap();
            let model = ModelProto::decode(bytes.as_slice()).unwrap();
            files.push((model, ImportOptions { input: Some([channels, height, width]), ..ImportOptions::default() }));
        }
    }
    let nodes = files.iter().flat_map(|(model, _)| &model.graph.as_ref().unwrap().node);
    let mut operations: Vec<String> = nodes.map(|node| node.op_type.clone()).collect();
    operations.sort_unstable();
    operations.dedup();
    Seeds { files, operations }
}

/// Integers, however the tensor stores them.
fn stored_ints(tensor: &mut TensorProto) -> &mut Vec<i64> {
    if !tensor.raw_data.is_empty() {
        tensor.int64_data = tensor.raw_data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect();
        tensor.raw_data.clear();
    }
    &mut tensor.int64_data
}

fn apply(change: &Change, model: &mut ModelProto, operations: &[String]) {
    let graph = model.graph.as_mut().unwrap();
    let outputs = graph.node.iter().flat_map(|node| node.output.clone());
    let names: Vec<String> = outputs
        .chain(graph.initializer.iter().map(|t| t.name.clone()))
        .chain(["image".into(), String::new()])
        .collect();
    let (nodes, tensors) = (&mut graph.node, &mut graph.initializer);
    match change {
        Change::Operation(node, name) => node.get_mut(nodes).op_type.clone_from(name.get(operations)),
        Change::Input(node, input, name) => {
            let inputs = &mut node.get_mut(nodes).input;
            let at = input.index(inputs.len() + 1);
            inputs.resize(inputs.len().max(at + 1), String::new());
            inputs[at].clone_from(name.get(&names));
        }
        Change::FewerInputs(node) => drop(node.get_mut(nodes).input.pop()),
        Change::Attribute(node, attribute, value, place) => {
            let attributes = &mut node.get_mut(nodes).attribute;
            if !attributes.is_empty() {
                let attribute = attribute.get_mut(attributes);
                attribute.i = Some(*value.get(&INTS));
                attribute.f = Some(*value.get(&FLOATS));
                match place.index(attribute.ints.len() + 2) {
                    0 => attribute.ints.push(*value.get(&INTS)),
                    1 => drop(attribute.ints.pop()),
                    at => attribute.ints[at - 2] = *value.get(&INTS),
                }
            }
        }
        Change::Move(from, attribute, to) => {
            let attributes = &node_attributes(nodes, from);
            if !attributes.is_empty() {
                to.get_mut(nodes).attribute.insert(0, attribute.get(attributes).clone());
            }
        }
        Change::Value(tensor, place, value) if !tensors.is_empty() => {
            let tensor = tensor.get_mut(tensors);
            if tensor.data_type == data_type::INT64 && !stored_ints(tensor).is_empty() {
                *place.get_mut(stored_ints(tensor)) = *value.get(&INTS);
            }
        }
        Change::Shape(tensor, lengths) if !tensors.is_empty() => {
            let tensor = tensor.get_mut(tensors);
            let mut left: i64 = tensor.dims.iter().product();
            tensor.dims = Vec::new();
            for &length in lengths {
                let length = length as i64;
                let fits = length > 0 && left % length == 0;
                tensor.dims.push(if fits { length } else { 1 });
                left /= if fits { length } else { 1 };
            }
            tensor.dims.push(left);
        }
        Change::Swap(a, b) if !tensors.is_empty() => {
            let name = b.get(tensors).name.clone();
            let replaced = a.get(tensors).clone();
            *b.get_mut(tensors) = TensorProto { name, ..replaced };
        }
        Change::External(tensor, offset, length) if !tensors.is_empty() => {
            let tensor = tensor.get_mut(tensors);
            let count: i64 = tensor.dims.iter().product();
            let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
            let length = *length.get(&[count * 4, count * 8, count, 0, -1, i64::MAX]);
            tensor.external_data = vec![
                entry("location", "weights".into()),
                entry("offset", offset.get(&INTS).to_string()),
                entry("length", length.to_string()),
            ];
            tensor.data_location = 1;
        }
        Change::Module(node, path) => {
            let value = (*path.get(&SCOPES)).to_owned();
            let key = "pkg.torch.onnx.name_scopes".to_owned();
            node.get_mut(nodes).metadata_props.push(StringStringEntryProto { key, value });
        }
        Change::Stated(node, lengths) => {
            if let Some(name) = node.get(nodes).output.first() {
                let axes = lengths.iter().map(|&length| if length == 0 { open("batch") } else { dimension(length) });
                graph.value_info.push(value_info(name, data_type::FLOAT, axes.collect()));
            }
        }
        Change::Value(..) | Change::Shape(..) | Change::Swap(..) | Change::External(..) => {}
        Change::Opset(version) => model.opset_import[0].version = *version,
    }
}

fn node_attributes(nodes: &[NodeProto], node: &Index) -> Vec<AttributeProto> {
    node.get(nodes).attribute.clone()
}

fn try_mutated(cases: u32) {
    let Seeds { files, operations } = seeds();
    assert!(
        files
            .iter()
            .all(|(model, options)| import_with(&model.encode_to_vec(), &ExternalData::default(), options).is_ok())
    );
    let config = Config { cases, rng_seed: RngSeed::Fixed(31), failure_persistence: None, ..Config::default() };
    let changes = prop::collection::vec(change(), 1..4);
    let mut weights = ExternalData::default();
    weights.insert("weights", vec![0x3e; 4096]);
    TestRunner::new(config)
        .run(&(0..files.len(), changes), |(which, changes)| {
            let (mut model, options) = files[which].clone();
            changes.iter().for_each(|change| apply(change, &mut model, &operations));
            match import_with(&model.encode_to_vec(), &weights, &options) {
                Err(why) => prop_assert!(why.to_string().len() > 10),
                Ok(imported) => {
                    let network = &imported.network;
                    let constant = |id| matches!(network.node(id).op, Op::Constant(_));
                    let leads_astray = |name: &String| network.layer(name).is_ok_and(constant);
                    let nodes = &model.graph.as_ref().unwrap().node;
                    prop_assert!(!nodes.iter().any(|node| leads_astray(&node.name)));
                    prop_assert!(network.layers().all(|layer| network.find(layer.name).is_some()));
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn nonsensical_files_never_panic() {
    try_mutated(3000);
}
