//! Every way to select a unit, in layers of every number of axes.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use proxygrad::engine::{Engine, Reference};
use proxygrad::maximize::{Limits, NoCallback, Outcome, Request, Warning, maximize};
use proxygrad::network::catalog::{AddOptions, Models, ModelsConfig};
use proxygrad::network::{Activation, Array, Axis, Binary, Conv, Model, Network, Op, Reduce, Window};
use serde_json::{Value, json};

use crate::maximize::{engine, model, symmetric};
use crate::networks::{array, conv, rng, same};

/// Layers of every rank, named after it. Images are 6x8.
fn ranks() -> Model {
    let mut rng = rng(5);
    let mut network = Network::new(1, 6, 8);
    let conv = conv(&mut rng, 1, 4, [3, 3], 1, same(3));
    let conv = network.push("conv", conv, &[Network::INPUT]).unwrap();
    let map = network.push("map", Op::Activation(Activation::Silu), &[conv]).unwrap();
    let mut reshaped = |name: &str, shape: &[usize]| {
        let axes = shape.iter().map(|&length| Axis::Exact(length)).collect();
        network.push(name, Op::Reshape(axes), &[map]).unwrap()
    };
    reshaped("four", &[2, 2, 6, 8]);
    reshaped("five", &[2, 2, 3, 2, 8]);
    reshaped("tokens", &[4, 48]);
    reshaped("column", &[192, 1]);
    let mean = |axes: &[usize]| Op::Reduce { kind: Reduce::Mean, axes: axes.to_vec(), keep: false };
    let vector = network.push("vector", mean(&[1, 2]), &[map]).unwrap();
    network.push("scalar", mean(&[0, 1, 2]), &[map]).unwrap();
    let dense = Op::Dense { weight: array(&mut rng, &[1, 4]), bias: Some(Array::vector(vec![0.1])) };
    let one = network.push("one", dense, &[vector]).unwrap();
    let logit = network.push("logit", Op::Reshape(Vec::new()), &[one]).unwrap();
    let probability = network.push("probability", Op::Activation(Activation::Sigmoid), &[logit]).unwrap();
    network.set_outputs(vec![logit, probability]);
    model(network, symmetric())
}

const LAYERS: [&str; 9] = ["map", "four", "five", "tokens", "column", "vector", "scalar", "one", "probability"];

/// Layers that are stored channels-last or as tokens: shown as maps, vectors, and channels by positions.
fn stored() -> Model {
    let mut rng = rng(6);
    let mut network = Network::new(1, 6, 8);
    let conv = conv(&mut rng, 1, 4, [3, 3], 1, Window { stride: [2, 2], ..same(3) });
    let conv = network.push("conv", conv, &[Network::INPUT]).unwrap();
    let last = network.push("last", Op::Transpose(vec![1, 2, 0]), &[conv]).unwrap();
    let last = network.push("turned", Op::Activation(Activation::Silu), &[last]).unwrap();
    let tokens = vec![Axis::Infer, Axis::Copy(2)];
    let tokens = network.push("patches", Op::Reshape(tokens), &[last]).unwrap();
    let class = network.push("zero", Op::Constant(array(&mut rng, &[2, 4])), &[]).unwrap();
    let joined = network.push("joined", Op::Concat { axis: 0 }, &[class, tokens]).unwrap();
    let mean = Op::Reduce { kind: Reduce::Mean, axes: vec![0], keep: true };
    let mean = network.push("mean", mean, &[joined]).unwrap();
    let tokens = network.push("tokens", Op::Binary(Binary::Add), &[joined, mean]).unwrap();
    let scales = network.push("scales", Op::Concat { axis: 0 }, &[tokens, tokens]).unwrap();
    network.set_outputs(vec![scales]);
    network.add_views();
    model(network, symmetric())
}

const STORED: [&str; 6] = ["turned", "patches", "tokens", "tokens@class", "tokens@token1", "scales"];

/// Every kind of unit of a layer with this number of channels, and whether it reads one position of a map.
fn selections(layer: &str, channels: usize) -> Vec<(Value, Option<&'static str>)> {
    // Four pixels of different greys.
    let image = "data:image/png;base64,\
                 iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNgOMDw3wEABUQCAA/1fi8AAAAASUVORK5CYII=";
    let last = channels - 1;
    let mut units = vec![
        (json!(format!("{layer}:0@1,2")), Some("position")),
        (json!({"layer": layer, "channel": last, "position": [0, 0]}), Some("position")),
        (json!(format!("{layer}@energy")), None),
        (json!({"layer": layer, "caricature": {"image": image}}), None),
        (json!({"layer": layer, "caricature": {"image": image}, "cosine_power": 0}), None),
        (json!({"layer": layer, "inversion": {"image": image}}), None),
    ];
    let direction: Vec<f64> = (0..channels).map(|c| 0.5 + (c as f64).cos()).collect();
    for (reduce, needs) in [("mean", None), ("center", Some("reduce")), ("max", None)] {
        units.push((json!({"layer": layer, "channel": last, "reduce": reduce}), needs));
        for power in [0, 2] {
            let unit = json!({"layer": layer, "direction": direction, "cosine_power": power, "reduce": reduce});
            units.push((unit, needs));
        }
    }
    for share in ["0.01", "0.3", "1"] {
        units.push((json!(format!("{layer}:{last}@top{share}")), None));
        let fraction: f64 = share.parse().unwrap();
        units.push((
            json!({"layer": layer, "direction": direction, "reduce": "top-fraction", "fraction": fraction}),
            None,
        ));
    }
    units.push((json!({"sum": [format!("{layer}:0"), {"layer": layer, "reduce": "energy", "weight": 0.5}]}), None));
    units
}

fn outcomes(engine: &dyn Engine, model: &Model, request: &Value) -> Vec<Outcome> {
    let request: Request = serde_json::from_value(request.clone()).unwrap();
    let resolved = request.resolve(model, &Limits::default()).unwrap();
    let found = maximize(engine, model, &resolved.tasks(), &resolved.settings, &mut NoCallback).unwrap();
    found.into_iter().map(Option::unwrap).collect()
}

#[test]
fn every_selection_works_in_every_layer_or_is_refused_with_the_layers_shape() {
    check_selections(&ranks(), &LAYERS);
}

#[test]
fn every_selection_works_in_layers_of_any_layout() {
    let model = stored();
    let shapes = STORED.map(|layer| model.network.node(model.network.find(layer).unwrap()).shape.to_vec());
    assert_eq!(shapes, [vec![4, 3, 4], vec![4, 3, 4], vec![4, 3, 4], vec![4], vec![4], vec![4, 28]]);
    check_selections(&model, &STORED);
}

fn check_selections(model: &Model, layers: &[&str]) {
    let reference = Reference::new(Device::Cpu, DType::F32);
    for &layer in layers {
        let shape = &model.network.node(model.network.find(layer).unwrap()).shape;
        let mut accepted = Vec::new();
        for (unit, needs) in selections(layer, shape.channels()) {
            let request: Request = serde_json::from_value(json!({"model": "test", "objective": unit})).unwrap();
            let refused = match (needs, shape.len()) {
                (None, _) | (Some(_), 3) | (Some("reduce"), 0 | 1) => None,
                (Some(field), _) => Some(format!("objective.{field}")),
            };
            match (request.resolve(model, &Limits::default()), refused) {
                (Ok(_), None) => accepted.push(unit),
                (Err(error), Some(field)) => {
                    assert_eq!(error.field, field, "{unit}: {error}");
                    assert!(error.expected.contains(&format!("{layer} is {shape}")), "{unit}: {error}");
                }
                (found, refused) => panic!("{unit} of {shape}: {found:?}, not {refused:?}"),
            }
        }
        let request = json!({"model": "test", "objectives": accepted, "steps": 3});
        let (ours, theirs) = (outcomes(&engine(), model, &request), outcomes(&reference, model, &request));
        for ((unit, ours), theirs) in accepted.iter().zip(&ours).zip(&theirs) {
            let (ours, theirs) = (&ours.findings, &theirs.findings);
            for (a, b) in [(ours.initial_score, theirs.initial_score), (ours.final_score, theirs.final_score)] {
                assert!((a - b).abs() <= 1e-3 * (1e-3 + a.abs()), "{unit}: {a} and {b}");
            }
            assert!(ours.score > ours.initial_score, "{unit}: {} from {}", ours.score, ours.initial_score);
        }
    }
}

#[test]
fn groups_searches_and_diagnostics_work_in_every_layer() {
    let (ranks, stored) = (ranks(), stored());
    for (model, layer) in LAYERS.map(|layer| (&ranks, layer)).into_iter().chain(STORED.map(|layer| (&stored, layer))) {
        let unit = format!("{layer}:0");
        for extra in [
            json!({"diversity": {"layer": layer, "copies": 2}}),
            json!({"gate": "auto", "steps": 32}),
            json!({"gate": {"kind": "soft", "relative": true}, "diagnostics": true, "transforms": ["jitter:1"]}),
            json!({"objective": {"layer": layer, "reduce": "energy"}, "parameterization": "fourier", "alpha": true}),
        ] {
            let mut request = json!({"model": "test", "objective": unit, "steps": 3});
            request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            for outcome in outcomes(&engine(), model, &request) {
                assert!(outcome.findings.score.is_finite(), "{request}");
            }
        }
    }
}

#[test]
fn the_only_unit_of_one_number_per_image_is_0_and_its_score_is_the_number() {
    let model = ranks();
    let request =
        json!({"model": "test", "steps": 8, "objectives": ["logit:0", "one:0", "logit:0@max", "logit:0@center"]});
    let found = outcomes(&engine(), &model, &request);
    // Each has a start of its own; the same stimulus of a request has the same.
    let one = json!({"model": "test", "steps": 8, "objectives": ["one:0", "logit:0", "one:0", "one:0"]});
    for (found, one) in found.iter().zip(outcomes(&engine(), &model, &one)) {
        assert_eq!(found.findings.score, one.findings.score);
        assert_eq!(found.png, one.png);
    }
    let request: Request = serde_json::from_value(json!({"model": "test", "objective": "logit:1"})).unwrap();
    let error = request.resolve(&model, &Limits::default()).unwrap_err();
    assert_eq!((error.field.as_str(), error.value.as_str()), ("objective.channel", "1"));
}

/// A network of the folder `tests/data/onnx`.
fn file(name: &str) -> Arc<Model> {
    let folder = tempfile::tempdir().unwrap();
    let models = Models::new(ModelsConfig::new(folder.path())).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx").join(name).with_extension("onnx");
    models.add(&path, AddOptions { id: Some("test".into()), ..AddOptions::default() }).unwrap();
    models.load("test").unwrap()
}

fn warnings(model: &Model, request: Value) -> Vec<Warning> {
    let mut whole = json!({"model": "test", "steps": 8});
    whole.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
    outcomes(&engine(), model, &whole).remove(0).findings.warnings
}

#[test]
fn a_dead_unit_is_reported_under_every_gate_and_in_every_search() {
    let model = file("dead-unit");
    let gates = ["plain", "decoupled", "true-proxy", "redirect", "soft", "identity", "auto"];
    for unit in ["relu:0", "relu:0@center", "relu:0@max"] {
        for gate in gates {
            let found = warnings(&model, json!({"objective": unit, "gate": gate, "steps": 32}));
            assert_eq!(found, [Warning::DeadUnit], "{unit} under {gate}");
        }
    }
    for extra in [
        json!({"search": {"restarts": 4, "rungs": [2, 4]}, "steps": 32}),
        json!({"search": {"arms": ["plain", "decoupled"], "restarts": 2}, "steps": 32}),
        json!({"transforms": ["jitter:2", "rotate:5"], "score_every": 3}),
        json!({"regularizers": ["tv:0.5", "blur:0.5,2"]}),
        json!({"parameterization": "fourier"}),
        json!({"start": {"kind": "uniform"}}),
        json!({"steps": 1}),
        json!({"preset": "best", "steps": 64}),
    ] {
        let mut request = json!({"objective": "relu:0"});
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        assert!(warnings(&model, request.clone()).contains(&Warning::DeadUnit), "{request}");
    }
    let alive: Vec<Warning> = warnings(&model, json!({"objective": "relu:1", "steps": 32}));
    assert!(!alive.contains(&Warning::DeadUnit) && !alive.contains(&Warning::NoImprovement), "{alive:?}");
}

#[test]
fn a_run_that_never_rises_above_its_start_is_warned() {
    // -|x| where x is negative -2|x|: greatest at the start. The identity gate sees a slope of 1 there and leads away.
    let mut network = Network::new(1, 6, 6);
    let weight = Array::new([2, 1, 1, 1], vec![1.0, -1.0]).unwrap();
    let both = Op::Conv(Conv { weight, bias: None, window: Window::new([1, 1]), groups: 1 });
    let both = network.push("both", both, &[Network::INPUT]).unwrap();
    network.push("relu", Op::Activation(Activation::Relu), &[both]).unwrap();
    let model = model(network, symmetric());
    let objective =
        json!({"sum": [{"layer": "relu", "channel": 0, "weight": -1}, {"layer": "relu", "channel": 1, "weight": -2}]});
    let request = json!({"model": "test", "objective": objective, "gate": "identity", "steps": 8,
                         "start": {"kind": "grey", "noise": 0}});
    let found = outcomes(&engine(), &model, &request).remove(0).findings;
    assert!(found.final_score < found.initial_score, "{found:?}");
    assert_eq!((found.best_step, &found.warnings[..]), (0, &[Warning::NoImprovement][..]));
}

#[test]
fn only_a_softmax_itself_is_called_one() {
    let model = file("attention");
    let is_warned = |unit: &str| warnings(&model, json!({"objective": unit})).contains(&Warning::SoftmaxTarget);
    let layers: Vec<String> = model.network.layers().map(|layer| layer.name.to_owned()).collect();
    let warned = layers.iter().map(String::as_str).filter(|layer| is_warned(&format!("{layer}:1")));
    let warned: Vec<&str> = warned.collect();
    assert_eq!(warned, ["att_softmax", "reshape12", "prob"], "of {layers:?}");
}

#[test]
fn the_middle_of_a_layer_without_rows_and_columns_is_refused() {
    let model = file("channel-groups");
    let refused = |unit: &str| {
        let request: Request = serde_json::from_value(json!({"model": "test", "objective": unit})).unwrap();
        request.resolve(&model, &Limits::default()).map(|_| ()).map_err(|error| error.to_string())
    };
    for unit in ["groups:1@center", "groups:1@8,8"] {
        assert!(refused(unit).unwrap_err().contains("groups is [2,4,16,16]"), "{:?}", refused(unit));
    }
    for unit in ["groups:1", "groups:1@max", "groups:1@top0.25", "groups@energy", "relu4:1@center", "logits:1@center"] {
        assert_eq!(refused(unit), Ok(()), "{unit}");
    }
}

/// The value of a unit on the same noise.
fn start_score(model: &Model, unit: &str) -> f32 {
    let request = json!({"model": "test", "objective": unit, "steps": 1, "seed": 3});
    outcomes(&engine(), model, &request)[0].findings.initial_score
}

#[test]
fn units_of_a_transformer_are_channels_at_patches_and_at_the_class_token() {
    let model = file("transformer");
    let network = &model.network;
    let shape = |layer: &str| network.node(network.find(layer).unwrap()).shape.to_vec();
    for layer in ["patch_embed", "blocks.0.attn", "blocks.1", "norm"] {
        assert_eq!(shape(layer), [12, 4, 4], "{layer}");
    }
    assert_eq!((shape("blocks.0.mlp.0"), shape("blocks.0.mlp.0@class")), (vec![24, 4, 4], vec![24]));
    let patch = network.receptive_field(network.find("patch_embed").unwrap(), Some([1, 2])).unwrap();
    assert_eq!(network.receptive_field(network.find("node_transpose").unwrap(), Some([1, 2])), Some(patch));
    let [mean, class, same, near, middle, center] =
        ["blocks.1:3", "blocks.1:3@class", "blocks.1@class:3", "blocks.1:3@0,1", "blocks.1:3@2,2", "blocks.1:3@center"]
            .map(|unit| start_score(&model, unit));
    assert_eq!((class, center), (same, middle), "two ways to write the same unit");
    assert!(mean != class && near != center);
    // The unit climbs, at a patch and at the class token.
    for unit in ["blocks.1:3@class", "blocks.0.mlp.1:7@1,3", "blocks.0@class@energy"] {
        let request = json!({"model": "test", "objective": unit, "steps": 24, "gate": {"kind": "decoupled"}});
        let findings = outcomes(&engine(), &model, &request).remove(0).findings;
        assert!(findings.score > findings.initial_score, "{unit}: {findings:?}");
    }
    let refused = |unit: &str| {
        let request: Request = serde_json::from_value(json!({"model": "test", "objective": unit})).unwrap();
        request.resolve(&model, &Limits::default()).map(|_| ()).unwrap_err().to_string()
    };
    for (unit, expected) in [
        ("blocks.1:12", "a channel from 0 to 11"),
        ("blocks.1:3@4,0", "a row from 0 to 3"),
        ("blocks.1:3@token1", "expected blocks.1 or one of its tokens: @class"),
        ("patch_embed:3@class", "expected patch_embed, which has no tokens besides its positions"),
        ("blocks.1@class:3@0,0", "no position: blocks.1@class is [12]"),
        ("node_Softmax_61:0@center", "no center: node_Softmax_61 is [2,272]"),
        ("blok.1:3@class", "such as "),
    ] {
        assert!(refused(unit).contains(expected), "{unit}: {}", refused(unit));
    }
}

#[test]
fn a_channels_last_layer_lists_its_channels() {
    let model = file("channels-last");
    let listed: Vec<String> =
        model.network.layers().take(4).map(|layer| format!("{} {}", layer.name, layer.shape)).collect();
    assert_eq!(listed, ["layer [3,16,16]", "shift [3,16,16]", "tr [3,16,16]", "conv4 [6,16,16]"]);
    assert_eq!(start_score(&model, "shift:2"), start_score(&model, "tr:2"));
    assert_ne!(start_score(&model, "shift:2"), start_score(&model, "shift:1"));
}

#[test]
fn a_classifier_with_one_number_is_maximized() {
    let model = file("one-number");
    let found = outcomes(&engine(), &model, &json!({"model": "test", "objective": "logit:0", "steps": 32})).remove(0);
    assert!(found.findings.score > found.findings.initial_score, "{:?}", found.findings);
    let id = model.network.find("logit").unwrap();
    assert_eq!((model.network.node(id).shape.len(), model.network.node(id).shape.channels()), (0, 1));
}
