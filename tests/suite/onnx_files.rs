//! ONNX files as people bring them, from the file to a score. `crates/proxygrad/tests/fixtures/networks` holds a folder for each, with the
//! scores that ONNX Runtime gives.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use candle_core::{DType, Device, safetensors};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Reference};
use proxygrad::network::NodeId;
use proxygrad::network::catalog::{AddOptions, Models, ModelsConfig};
use serde_json::Value;

use crate::tensors::values;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/proxygrad/tests/fixtures/networks").join(name)
}

fn run(arguments: &[&str], data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxygrad"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PROXYGRAD_")) {
        command.env_remove(name);
    }
    command.args(arguments).arg("--data-dir").arg(data).output().unwrap()
}

fn text(done: &Output) -> String {
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout.clone()).unwrap()
}

/// Adds the network of a folder.
fn add(name: &str, arguments: &[&str], data: &Path) -> Output {
    let file = folder(name).join("model.onnx");
    run(&[&["models", "add", file.to_str().unwrap(), "--id", "net"], arguments].concat(), data)
}

fn maximize(unit: &str, image: &Path, data: &Path) -> Output {
    let (image, output) = (image.to_str().unwrap(), data.join("out.png"));
    let output = output.to_str().unwrap();
    let start = ["--start", "image", "--start-image", image, "--steps", "1"];
    run(&[&["maximize", "--json", "--model", "net", "--unit", unit, "--output", output], &start[..]].concat(), data)
}

/// Adds the network of a folder and compares scores of its image.
#[track_caller]
fn check(name: &str) -> (tempfile::TempDir, String) {
    check_with(name, &[])
}

/// As [`check`], with more arguments of `models add`.
#[track_caller]
fn check_with(name: &str, arguments: &[&str]) -> (tempfile::TempDir, String) {
    let data = tempfile::tempdir().unwrap();
    let added = text(&add(name, arguments, data.path()));
    let expected: Value = serde_json::from_slice(&std::fs::read(folder(name).join("expected.json")).unwrap()).unwrap();
    for (unit, expected) in expected["units"].as_object().unwrap() {
        let done = maximize(unit, &folder(name).join("image.png"), data.path());
        let result: Value = serde_json::from_str(&text(&done)).unwrap();
        let found = result["stimuli"][0]["initial_score"].as_f64().unwrap();
        let expected = expected.as_f64().unwrap();
        assert!((found - expected).abs() <= 1e-3 * expected.abs(), "{name} {unit}: {found} instead of {expected}");
    }
    (data, added)
}

fn layers(data: &Path) -> Vec<String> {
    let listed: Value = serde_json::from_str(&text(&run(&["models", "layers", "net", "--json"], data))).unwrap();
    listed.as_array().unwrap().iter().map(|layer| layer["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn weights_may_lie_in_a_second_file() {
    let (data, _) = check("external-data");
    assert!(data.path().join("models/net/model.onnx.data").exists());
}

#[test]
fn old_and_new_versions_of_the_operations() {
    check("opset-8");
    check("opset-22");
}

#[test]
fn batch_normalization_in_training_mode_may_standardize_weights() {
    check("weight-standardization");
}

#[test]
fn a_pool_may_be_larger_than_its_map_in_ceil_mode() {
    check("ceil-window-larger");
}

#[test]
fn a_constant_takes_no_name_and_is_no_layer() {
    let (data, _) = check("constant-takes-the-name");
    assert_eq!(
        layers(data.path()),
        ["conv1", "relu4", "untied_bias", "conv7", "relu10", "gap", "flat", "logits"],
        "as in the file"
    );
    let image = folder("constant-takes-the-name").join("image.png");
    for name in ["untied_bias_2", "w6", "constant", "input", "image"] {
        let refused = maximize(&format!("{name}:0"), &image, data.path());
        let error = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{name}: {error}");
        assert!(error.contains("expected one of the model's 8 layers"), "{name}: {error}");
    }
}

#[test]
fn a_node_that_cannot_be_computed_refuses_only_what_depends_on_it() {
    let (data, added) = check("tail-argmax");
    assert!(added.contains("unavailable: ArgMax (label): the operation is not supported\n"), "{added}");
    let listed = text(&run(&["models", "layers", "net"], data.path()));
    assert!(listed.contains("\nunavailable: label (ArgMax) cannot be computed: the operation is not"), "{listed}");
    let refused = maximize("label:0", &folder("tail-argmax").join("image.png"), data.path());
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(error.contains("label (ArgMax) cannot be computed: the operation is not supported"), "{error}");
}

#[test]
fn the_logarithm_of_a_softmax_can_be_maximized_with_a_warning() {
    let (data, added) = check("tail-log-softmax");
    assert!(!added.contains("unavailable"), "{added}");
    let image = folder("tail-log-softmax").join("image.png");
    let warnings = |unit: &str| {
        let result: Value = serde_json::from_str(&text(&maximize(unit, &image, data.path()))).unwrap();
        result["stimuli"][0]["warnings"].to_string()
    };
    assert!(warnings("logprob:0").contains("softmax-target"));
    assert!(!warnings("logits:0").contains("softmax-target"));
}

#[test]
fn what_is_no_onnx_file_is_told_by_its_name() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("model.onnx");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:8eb7e6f344\nsize 48605698\n";
    for (content, expected) in [
        (pointer.as_bytes(), "is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`"),
        (
            b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0archive/data.pkl",
            "is a PyTorch checkpoint",
        ),
        (b"<!DOCTYPE html>\n<html lang=\"en\">", "is an HTML page"),
        (b"", "the file is empty"),
    ] {
        std::fs::write(&file, content).unwrap();
        let refused = run(&["models", "add", file.to_str().unwrap()], data.path());
        let error = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn files_with_parts_that_few_have() {
    for name in
        ["sparse-initializer", "unused-second-input", "bgr-gather", "local-function", "if-shape", "dequantized-weights"]
    {
        let (_, added) = check(name);
        assert!(!added.contains("unavailable"), "{name}: {added}");
    }
    let (_, added) = check("uint8-nhwc");
    assert!(added.contains("assumed: range 255 (the network reads bytes)"), "{added}");
}

#[test]
fn a_second_input_needs_a_constant_value_that_the_model_keeps() {
    let (data, _) = check_with("scalar-second-input", &["--constant", "keep_prob=1"]);
    let manifest = std::fs::read_to_string(data.path().join("models/net/model.toml")).unwrap();
    assert!(manifest.contains("[constants]\nkeep_prob = 1.0"), "{manifest}");
    for (arguments, expected) in [
        (
            &[][..],
            "found 2 inputs (input, keep_prob); give the other one a constant value, for example --constant keep",
        ),
        (&["--constant", "keep=1"], "keep cannot have a constant value; the network has keep_prob"),
        (&["--constant", "keep_prob=much"], "expected NAME=VALUE with a number, true or false"),
    ] {
        let refused = add("scalar-second-input", arguments, data.path());
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && error.contains(expected), "{error}");
    }
}

#[test]
fn networks_with_normalizations() {
    for name in ["group-norm", "lrn", "embedding-reduce-l2"] {
        let (_, added) = check(name);
        assert!(!added.contains("unavailable"), "{name}: {added}");
    }
}

/// A network with its weights in a second file, whose layers are found by the paths of their modules; values of some
/// layers by ONNX Runtime, every 4th channel.
#[test]
fn layers_are_found_by_the_modules_of_a_pytorch_network() {
    let data = tempfile::tempdir().unwrap();
    let models = Models::new(ModelsConfig::new(data.path())).unwrap();
    let options = AddOptions { id: Some("net".into()), ..AddOptions::default() };
    models.add(&folder("modules").join("net.onnx"), options).unwrap();
    let model = models.load("net").unwrap();
    let network = &model.network;
    let listed: Vec<&str> = network.layers().map(|layer| layer.name).collect();
    assert_eq!(
        listed,
        [
            "stem.0",
            "stem.2",
            "stages.0.0.0",
            "stages.0.0.2",
            "stages.0.0.3",
            "stages.0.0.5",
            "stages.0.1.0",
            "stages.0.1.2",
            "stages.0.1.3",
            "stages.0.1.5",
            "node_add",
            "node_mean",
            "linear"
        ]
    );
    let values_of = safetensors::load(folder("modules").join("values.safetensors"), &Device::Cpu).unwrap();
    let engines: [Box<dyn Engine>; 2] =
        [Box::new(Reference::new(Device::Cpu, DType::F32)), Box::new(Cpu::new(&CpuSettings::default()).unwrap())];
    for (names, tensor) in [
        (&["stem.0", "stem.1", "node_Conv_45", "getitem"][..], "getitem"),
        (&["stem.2", "stem", "node_relu", "relu"], "relu"),
        (&["stages.0.0.0", "stages.0.0.1", "node_Conv_46"], "getitem_3"),
        (&["stages.0.1.5", "stages.0.1", "stages.0", "node_relu_4"], "relu_4"),
        (&["linear", "fc", "node_linear", "/node_linear"], "linear"),
    ] {
        let ids: Vec<Option<NodeId>> = names.iter().map(|name| network.find(name)).collect();
        let id = ids[0].unwrap();
        assert!(ids.iter().all(|&found| found == Some(id)), "{names:?}: {ids:?}");
        for engine in &engines {
            let mut plan = engine.plan(network, &[id.into()], network.input_shape()).unwrap();
            let found = plan.forward(&values_of["input"], Forward::Original).unwrap().remove(0);
            let step = if tensor == "linear" { 1 } else { 4 };
            let channels: Vec<u32> = (0..found.dims()[1] as u32).step_by(step).collect();
            let channels = candle_core::Tensor::new(channels, &Device::Cpu).unwrap();
            let found = values(&found.contiguous().unwrap().index_select(&channels, 1).unwrap());
            let expected = values(&values_of[tensor]);
            let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(found.len() == expected.len() && apart < 5e-5, "{names:?}: {apart}");
        }
    }
    let error = network.layer("stages.0.1.33").unwrap_err().to_string();
    assert!(error.contains("such as") && error.contains("stages.0.1.3"), "{error}");
    assert!(Arc::ptr_eq(&model, &models.load("net").unwrap()));
}
