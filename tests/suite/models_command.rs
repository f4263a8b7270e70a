//! `proxygrad models`, as its users see it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn run(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxygrad"));
    // Whoever runs the tests may use proxygrad, too.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PROXYGRAD_")) {
        command.env_remove(name);
    }
    command.arg("models").arg("--data-dir").arg(data).args(arguments).output().unwrap()
}

fn text(data: &Path, arguments: &[&str]) -> String {
    let output = run(data, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(data: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&text(data, arguments)).unwrap()
}

fn refusal(data: &Path, arguments: &[&str]) -> String {
    let output = run(data, arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn models_are_listed_with_their_state() {
    let data = tempfile::tempdir().unwrap();
    let listed = text(data.path(), &["list"]);
    let line = |id: &str| listed.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{listed}"));
    assert!(line("fashion-resnet8").contains("ready") && line("fashion-resnet8").contains("1x28x28"));
    assert!(line("efficientnet-lite2").contains("pullable") && line("squeezenet1.1").contains("3x227x227"));

    let models = json(data.path(), &["list", "--json"]);
    let ids: Vec<_> = models.as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(
        ids,
        ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "fashion-resnet8", "squeezenet1.1"]
    );
    assert_eq!(models[3]["state"], "ready");
    assert_eq!(models[4]["download_bytes"], 4_695_799);
}

#[test]
fn a_model_is_shown_with_what_its_images_need() {
    let data = tempfile::tempdir().unwrap();
    let shown = text(data.path(), &["show", "fashion-resnet8"]);
    assert!(shown.contains("grey, (pixel * 1 / 255 - [0.286]) / [0.353]") && shown.contains("licence"), "{shown}");
    let model = json(data.path(), &["show", "fashion-resnet8", "--json"]);
    assert_eq!(model["class_names"][9], "Ankle boot");
    assert_eq!(model["digest"].as_str().unwrap().len(), 64);
    // A model that is not here is shown without being fetched.
    assert_eq!(json(data.path(), &["show", "squeezenet1.1", "--json"])["state"], "pullable");
    assert!(refusal(data.path(), &["show", "nothing"]).contains("known models are efficientnet-lite0"));
}

#[test]
fn layers_are_listed_with_their_number_of_units() {
    let data = tempfile::tempdir().unwrap();
    let layers = json(data.path(), &["layers", "fashion-resnet8", "--json"]);
    let last = layers.as_array().unwrap().last().unwrap();
    let expected = serde_json::json!({"name": "logits", "op": "dense", "shape": [10], "units": 10, "modules": ["fc"]});
    assert_eq!(last, &expected);
    let table = text(data.path(), &["layers", "fashion-resnet8"]);
    assert!(
        table.lines().any(|line| line.split_whitespace().eq(["layer1/Relu_1", "relu", "16x14x14", "16", "layer1"])),
        "{table}"
    );
}

#[test]
fn a_network_is_added_used_and_removed() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("Net.onnx");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/crates/proxygrad/assets/fashion-resnet8/model.onnx"), &file)
        .unwrap();
    let file = file.to_str().unwrap();
    let added = text(data.path(), &["add", file, "--mean", "0.286", "--std", "0.353"]);
    assert!(added.contains("added net\n") && added.contains("assumed: range 1 ("), "{added}");
    assert!(!added.contains("assumed: mean"), "{added}");
    assert_eq!(json(data.path(), &["show", "net", "--json"])["preprocessing"]["mean"], serde_json::json!([0.286]));
    assert!(refusal(data.path(), &["add", file]).contains("expected an id that no model has"));
    assert!(refusal(data.path(), &["add", file, "--id", "x", "--size", "28"]).contains("expected HEIGHT,WIDTH"));
    text(data.path(), &["remove", "net"]);
    assert!(!text(data.path(), &["list"]).contains("net "));
}

#[test]
fn a_pull_that_cannot_work_says_why() {
    let data = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere = format!("http://127.0.0.1:{port}/simple");
    let why = refusal(data.path(), &["--package-index", &nowhere, "pull", "squeezenet1.1"]);
    assert!(why.contains("model squeezenet1.1 cannot be pulled: http://127.0.0.1"), "{why}");
    assert_eq!(text(data.path(), &["pull", "fashion-resnet8"]), "fashion-resnet8: already here\n");
}

#[test]
fn class_names_may_come_from_an_editor_that_writes_a_byte_order_mark() {
    let data = tempfile::tempdir().unwrap();
    let names = "\u{feff}Zero\r\nOne\r\nTwo\r\nThree\r\nFour\r\nFive\r\nSix\r\nSeven\r\nEight\r\nNine\r\n";
    let utf16: Vec<u8> = names.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let file = data.path().join("classes.txt");
    let network = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/proxygrad/assets/fashion-resnet8/model.onnx");
    for (id, bytes) in [("utf8", names.as_bytes()), ("utf16", &utf16)] {
        std::fs::write(&file, bytes).unwrap();
        // Alone, without the manifest beside it.
        let lonely = data.path().join(format!("{id}.onnx"));
        std::fs::copy(network, &lonely).unwrap();
        text(data.path(), &["add", lonely.to_str().unwrap(), "--id", id, "--classes", file.to_str().unwrap()]);
        let shown = json(data.path(), &["show", id, "--json"]);
        assert_eq!((&shown["class_names"][0], &shown["class_names"][9]), (&"Zero".into(), &"Nine".into()));
    }
}
