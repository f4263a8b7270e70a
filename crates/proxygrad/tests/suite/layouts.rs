//! Layers that are stored channels-last or as tokens are shown with their channels first.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Reference, Target};
use proxygrad::network::{Activation, Axis, Binary, Network, NodeId, Op, Reduce, Unit, Window};

use crate::networks::{array, conv, rng, uniform};

/// A network under test.
struct Build(Network);

impl Build {
    fn push(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> NodeId {
        self.0.push(name, op, inputs).unwrap()
    }

    /// An image `[3,6,8]` and its patches of 2 x 2: a map `[4,3,4]`.
    fn patches() -> (Self, NodeId) {
        let mut build = Self(Network::new(3, 6, 8));
        let window = Window { stride: [2, 2], ..Window::new([2, 2]) };
        let patches = build.push("patches", conv(&mut rng(1), 3, 4, [2, 2], 1, window), &[Network::INPUT]);
        (build, patches)
    }

    /// Patches as tokens `[T,C]` with `before` tokens in front of them.
    fn tokens(before: usize) -> (Self, NodeId) {
        let (mut build, patches) = Self::patches();
        let flat = build.push("flat", Op::Reshape(vec![Axis::Copy(0), Axis::Infer]), &[patches]);
        let mut tokens = build.push("tokens", Op::Transpose(vec![1, 0]), &[flat]);
        if before > 0 {
            let class = build.push("class", Op::Constant(array(&mut rng(2), &[before, 4])), &[]);
            tokens = build.push("joined", Op::Concat { axis: 0 }, &[class, tokens]);
        }
        (build, tokens)
    }

    fn finish(mut self) -> Arc<Network> {
        self.0.add_views();
        Arc::new(self.0)
    }
}

fn shape(network: &Network, layer: &str) -> Vec<usize> {
    network.node(network.find(layer).unwrap()).shape.to_vec()
}

/// The values of some nodes on an image, which both engines agree on.
fn values(network: &Arc<Network>, nodes: &[NodeId]) -> Vec<Vec<f32>> {
    let input = network.input_shape();
    let image = uniform(&mut rng(3), input.elements());
    let image = Tensor::from_vec(image, [&[1], &input[..]].concat(), &Device::Cpu).unwrap();
    let run = |engine: &dyn Engine| -> Vec<Vec<f32>> {
        let mut plan = engine.plan(network, &Target::whole(nodes), input).unwrap();
        let outputs = plan.forward(&image, Forward::Original).unwrap();
        outputs.iter().map(|output| output.flatten_all().unwrap().to_vec1().unwrap()).collect()
    };
    let [reference, cpu] =
        [run(&Reference::new(Device::Cpu, DType::F32)), run(&Cpu::new(&CpuSettings::default()).unwrap())];
    for (a, b) in reference.iter().flatten().zip(cpu.iter().flatten()) {
        assert!((a - b).abs() <= 1e-5, "{a} {b}");
    }
    assert_eq!(reference.iter().map(Vec::len).collect::<Vec<_>>(), cpu.iter().map(Vec::len).collect::<Vec<_>>());
    cpu
}

#[test]
fn channels_last_layers_list_their_channels() {
    let (mut build, patches) = Build::patches();
    let last = build.push("last", Op::Transpose(vec![1, 2, 0]), &[patches]);
    let relu = build.push("relu", Op::Activation(Activation::Relu), &[last]);
    let mean = build.push("mean", Op::Reduce { kind: Reduce::Mean, axes: vec![2], keep: false }, &[relu]);
    let kept = build.push("kept", Op::Reduce { kind: Reduce::Max, axes: vec![2], keep: true }, &[relu]);
    build.push("scaled", Op::Binary(Binary::Mul), &[relu, kept]);
    build.push("pooled", Op::Reduce { kind: Reduce::Mean, axes: vec![0, 1], keep: true }, &[relu]);
    let columns = build.push("columns", Op::Reduce { kind: Reduce::Mean, axes: vec![0], keep: false }, &[relu]);
    build.push("first", Op::Transpose(vec![2, 0, 1]), &[relu]);
    let network = build.finish();
    for layer in ["patches", "last", "relu", "scaled", "first"] {
        assert_eq!(shape(&network, layer), [4, 3, 4], "{layer}");
    }
    assert_eq!(network.find("first"), network.stored("first"), "a map needs no view");
    assert_eq!(shape(&network, "mean"), [1, 3, 4]);
    assert_eq!(shape(&network, "kept"), [1, 3, 4]);
    assert_eq!(shape(&network, "pooled"), [4, 1, 1]);
    assert_eq!(shape(&network, "columns"), [4, 4], "means over rows: channels by columns");
    let listed: Vec<String> =
        network.layers().map(|layer| format!("{} {} {}", layer.name, layer.op, layer.shape)).collect();
    assert_eq!(listed[1..3], ["last transpose [4,3,4]", "relu relu [4,3,4]"]);
    assert_eq!(listed.len(), 9, "views are not listed twice: {listed:?}");

    let found = values(&network, &[network.find("last").unwrap(), patches]);
    assert_eq!(found[0], found[1], "channel by channel");
    let found = values(&network, &[network.find("mean").unwrap(), mean, network.find("columns").unwrap(), columns]);
    assert_eq!(found[0], found[1]);
    let turned: Vec<f32> = (0..16).map(|i| found[3][i % 4 * 4 + i / 4]).collect();
    assert_eq!(found[2], turned);
    let field = network.receptive_field(network.find("relu").unwrap(), Some([2, 1])).unwrap();
    assert_eq!(field, [4..6, 2..4]);
}

#[test]
fn patches_of_tokens_are_a_map_and_other_tokens_are_vectors() {
    let (mut build, tokens) = Build::tokens(2);
    let position = build.push("position", Op::Constant(array(&mut rng(4), &[14, 4])), &[]);
    let block = build.push("block", Op::Binary(Binary::Add), &[tokens, position]);
    build.push("only", Op::Slice { axis: 0, start: 2, end: 14, step: 1 }, &[block]);
    let class = build.push("picked", Op::Slice { axis: 0, start: 0, end: 1, step: 1 }, &[block]);
    build.push("some", Op::Slice { axis: 0, start: 1, end: 9, step: 1 }, &[block]);
    let head = build.push("head", Op::Reshape(vec![Axis::Exact(4)]), &[class]);
    let network = build.finish();
    for layer in ["tokens", "joined", "block", "only"] {
        assert_eq!(shape(&network, layer), [4, 3, 4], "{layer}");
    }
    assert_eq!(network.tokens("block"), ["class", "token1"]);
    assert!(network.tokens("only").is_empty());
    assert_eq!(shape(&network, "picked"), [4]);
    assert_eq!(shape(&network, "some"), [4, 8], "part of the patches has no rows and columns");
    assert_eq!(network.find("block@token0"), network.find("block@class"));
    assert_eq!(network.find("/block@token1").map(|id| network.node(id).shape.to_vec()), Some(vec![4]));
    assert_eq!((network.find("block@token2"), network.find("only@class")), (None, None));

    let ids = ["block", "block@class", "block@token1", "picked"].map(|name| network.find(name).unwrap());
    let found = values(&network, &[&ids[..], &[block, head]].concat());
    let stored = &found[4];
    let map: Vec<f32> = (0..4).flat_map(|c| (2..14).map(move |t| stored[t * 4 + c])).collect();
    assert_eq!(found[0], map);
    assert_eq!((found[1].as_slice(), found[2].as_slice()), (&stored[..4], &stored[4..8]));
    assert_eq!(found[3], found[5]);
    // Token 2 + 4 * 2 + 1 is the patch at row 2, column 1.
    let field = network.receptive_field(network.find("block").unwrap(), Some([2, 1])).unwrap();
    assert_eq!(field, [4..6, 2..4]);
}

#[test]
fn heads_and_their_transposition_are_channels() {
    let (mut build, tokens) = Build::tokens(1);
    let split = build.push("split", Op::Reshape(vec![Axis::Copy(0), Axis::Exact(2), Axis::Exact(2)]), &[tokens]);
    let heads = build.push("heads", Op::Transpose(vec![1, 0, 2]), &[split]);
    build.push("keys", Op::Transpose(vec![0, 2, 1]), &[heads]);
    let back = build.push("back", Op::Transpose(vec![1, 0, 2]), &[heads]);
    let merged = build.push("merged", Op::Reshape(vec![Axis::Copy(0), Axis::Exact(4)]), &[back]);
    let network = build.finish();
    let ids = ["split", "heads", "keys", "back", "merged"].map(|name| network.find(name).unwrap());
    let found = values(&network, &ids);
    for (id, found_values) in ids.iter().zip(&found) {
        assert_eq!(network.node(*id).shape[..], [4, 3, 4], "{}", network.node(*id).name);
        assert_eq!(*found_values, found[4], "{}", network.node(*id).name);
    }
    assert_eq!(shape(&network, "keys@class"), [4]);
    assert_eq!(network.node(merged).shape[..], [13, 4]);
}

/// Attention of tokens with a class token, as exported: one projection to `[T,3*C]`, two heads.
#[test]
fn attention_is_followed_to_its_end() {
    let (mut build, tokens) = Build::tokens(1);
    let exact = |lengths: &[usize]| Op::Reshape(lengths.iter().map(|&length| Axis::Exact(length)).collect());
    let mut random = rng(5);
    let project = Op::Dense { weight: array(&mut random, &[24, 4]), bias: Some(array(&mut random, &[24])) };
    let qkv = build.push("qkv", project, &[tokens]);
    let split = build.push("split", exact(&[13, 3, 2, 4]), &[qkv]);
    let turned = build.push("turned", Op::Transpose(vec![1, 2, 0, 3]), &[split]);
    let [q, k, v] = [("q", 0), ("k", 1), ("v", 2)].map(|(name, i)| {
        let slice = Op::Slice { axis: 0, start: i, end: i + 1, step: 1 };
        let slice = build.push(&format!("slice_{name}"), slice, &[turned]);
        build.push(name, exact(&[2, 13, 4]), &[slice])
    });
    let keys = build.push("keys", Op::Transpose(vec![0, 2, 1]), &[k]);
    let scores = build.push("scores", Op::MatMul, &[q, keys]);
    let weights = build.push("weights", Op::Softmax { axis: 2 }, &[scores]);
    let mixed = build.push("mixed", Op::MatMul, &[weights, v]);
    let back = build.push("back", Op::Transpose(vec![1, 0, 2]), &[mixed]);
    let merged = build.push("merged", exact(&[13, 8]), &[back]);
    // Channels that attend to channels.
    let channels = build.push("channels", Op::MatMul, &[keys, v]);
    build.push("crossed", Op::MatMul, &[channels, keys]);
    let network = build.finish();
    assert_eq!(shape(&network, "qkv"), [24, 3, 4]);
    for layer in ["q", "k", "v", "keys", "mixed", "back", "merged", "crossed"] {
        assert_eq!(shape(&network, layer), [8, 3, 4], "{layer}");
        assert_eq!(network.tokens(layer), ["class"], "{layer}");
    }
    assert_eq!(shape(&network, "weights"), [2, 12 * 13], "heads by pairs of a patch and a token");
    assert_eq!(shape(&network, "weights@class"), [2, 13]);
    assert_eq!(shape(&network, "channels"), [8, 4]);
    let ids = ["mixed", "back", "merged"].map(|name| network.find(name).unwrap());
    let found = values(&network, &[&ids[..], &[merged]].concat());
    assert_eq!((&found[0], &found[1]), (&found[2], &found[2]));
    let map: Vec<f32> = (0..8).flat_map(|c| (1..13).map(move |t| (t, c))).map(|(t, c)| found[3][t * 8 + c]).collect();
    assert_eq!(found[2], map);
    let unit: Unit = "weights:1@center".parse().unwrap();
    let error = unit.check(&network.node(network.find("weights").unwrap()).shape).unwrap_err();
    assert_eq!(error.expected, "no center: weights is [2,156], which has no rows and columns");
}

#[test]
fn windows_keep_their_places() {
    let (mut build, patches) = Build::patches();
    let slice = Op::Slice { axis: 1, start: 0, end: 2, step: 1 };
    let even = build.push("even", slice, &[patches]);
    let last = build.push("last", Op::Transpose(vec![1, 2, 0]), &[even]);
    let exact = |lengths: &[usize]| Op::Reshape(lengths.iter().map(|&length| Axis::Exact(length)).collect());
    let cut = build.push("cut", exact(&[1, 2, 2, 2, 4]), &[last]);
    let turned = build.push("turned", Op::Transpose(vec![0, 2, 1, 3, 4]), &[cut]);
    build.push("windows", exact(&[2, 4, 4]), &[turned]);
    let network = build.finish();
    let ids = ["even", "last", "cut", "turned", "windows"].map(|name| network.find(name).unwrap());
    let found = values(&network, &ids);
    for (id, found_values) in ids.iter().zip(&found) {
        assert_eq!(network.node(*id).shape[..], [4, 2, 4], "{}", network.node(*id).name);
        assert_eq!(*found_values, found[0], "{}", network.node(*id).name);
    }
}

#[test]
fn what_is_unknown_stays_as_it_is_stored() {
    let (mut build, patches) = Build::patches();
    let exact = |lengths: &[usize]| Op::Reshape(lengths.iter().map(|&length| Axis::Exact(length)).collect());
    // Channel groups keep their axes, and a shuffle renumbers the channels.
    let groups = build.push("groups", exact(&[2, 2, 3, 4]), &[patches]);
    let shuffled = build.push("shuffled", Op::Transpose(vec![1, 0, 2, 3]), &[groups]);
    let map = build.push("map", exact(&[4, 3, 4]), &[shuffled]);
    build.push("last", Op::Transpose(vec![1, 2, 0]), &[map]);
    // 48 values in sevens and sixes mix everything.
    build.push("mixed", exact(&[6, 8]), &[patches]);
    let network = build.finish();
    for layer in ["groups", "shuffled", "map"] {
        assert_eq!(network.find(layer), network.stored(layer), "{layer}");
    }
    let found = values(&network, &[network.find("last").unwrap(), map]);
    assert_eq!(found[0], found[1]);
    assert_eq!(network.find("mixed"), network.stored("mixed"));
}

#[test]
fn rows_and_columns_without_a_grid_are_positions() {
    let (mut build, tokens) = Build::tokens(0);
    let turned = build.push("turned", Op::Transpose(vec![1, 0]), &[tokens]);
    let pooled = build.push("pooled", Op::Reduce { kind: Reduce::Mean, axes: vec![1], keep: false }, &[turned]);
    // Two sets of patches, as at two scales.
    build.push("scales", Op::Concat { axis: 0 }, &[tokens, tokens]);
    let network = build.finish();
    assert_eq!(shape(&network, "turned"), [4, 3, 4]);
    assert_eq!(network.find("pooled"), Some(pooled));
    assert_eq!(shape(&network, "scales"), [4, 24]);
    assert!(network.tokens("scales").is_empty());
}
