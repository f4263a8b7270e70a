//! Adding one's own networks.

use std::path::{Path, PathBuf};

use proxygrad::network::ChannelOrder;
use proxygrad::network::catalog::{AddOptions, Manifest, ModelError, ModelState, Models, ModelsConfig};

use super::folders::{MANIFEST, write_model};
use super::weights::{sha256, squeezenet};

fn registry(data: &Path) -> Models {
    Models::new(ModelsConfig::new(data)).unwrap()
}

fn onnx() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("assets/fashion-resnet8/model.onnx")
}

/// The ONNX file alone, without its manifest, under another name.
fn lonely(folder: &Path) -> PathBuf {
    let file = folder.join("My Net.onnx");
    std::fs::copy(onnx(), &file).unwrap();
    file
}

#[test]
fn an_onnx_file_alone_is_enough_and_what_was_assumed_is_told() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let models = registry(data.path());
    let added = models.add(&lonely(folder.path()), AddOptions::default()).unwrap();
    let assumed: Vec<_> = added.assumed.iter().map(|a| (a.field, a.value.as_str())).collect();
    let expected =
        [("id", "my-net"), ("classes", "none"), ("channels", "grey"), ("range", "1"), ("mean", "0"), ("std", "1")];
    assert_eq!(assumed, expected);
    assert_eq!((added.entry.id.as_str(), added.entry.state), ("my-net", ModelState::Ready));
    assert_eq!(added.entry.input, Some([1, 28, 28]));
    assert_eq!(added.entry.digest, Some(sha256(&std::fs::read(onnx()).unwrap())));

    std::fs::remove_dir_all(folder.path()).unwrap();
    let later = registry(data.path());
    let model = later.load("my-net").unwrap();
    assert_eq!((model.preprocessing.range, &model.preprocessing.std[..]), (1.0, &[1.0][..]));
    assert_eq!(model.network.outputs().len(), 1);
    let manifest = Manifest::read(&data.path().join("models/my-net")).unwrap();
    assert_eq!((manifest.file.as_str(), manifest.source.as_str()), ("weights.onnx", "added from My Net.onnx"));
}

#[test]
fn what_the_caller_knows_is_not_assumed() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names = folder.path().join("names.txt");
    std::fs::write(&names, (0..10).map(|i| format!("class {i}\n")).collect::<String>()).unwrap();
    let models = registry(data.path());
    let options = AddOptions {
        id: Some("fashion.2".into()),
        size: Some([28, 28]),
        channels: Some(ChannelOrder::Grey),
        range: Some(255.0),
        mean: Some(vec![72.0]),
        std: Some(vec![90.0]),
        classes: Some(names),
        licence: Some("MIT".into()),
        ..AddOptions::default()
    };
    let added = models.add(&lonely(folder.path()), options).unwrap();
    assert!(added.assumed.is_empty(), "{:?}", added.assumed);
    let model = models.load("fashion.2").unwrap();
    assert_eq!((model.preprocessing.range, model.preprocessing.mean[0]), (255.0, 72.0));
    assert_eq!(model.classes[9], "class 9");
    assert_eq!(models.entry("fashion.2").unwrap().licence, "MIT");
}

#[test]
fn an_input_that_no_node_reads_is_reported() {
    let data = tempfile::tempdir().unwrap();
    let fixture = |name: &str| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/networks/{name}/model.onnx"))
    };
    let models = registry(data.path());
    let options = |id: &str| AddOptions { id: Some(id.into()), ..AddOptions::default() };
    let added = models.add(&fixture("unused-second-input"), options("two")).unwrap();
    assert_eq!(added.ignored_inputs, ["is_training"]);
    assert_eq!(models.add(&fixture("opset-22"), options("one")).unwrap().ignored_inputs, [""; 0]);
    let constants = [("keep_prob".to_owned(), 1.0)].into();
    let given = AddOptions { constants, ..options("given") };
    assert_eq!(models.add(&fixture("scalar-second-input"), given).unwrap().ignored_inputs, [""; 0]);
}

#[test]
fn class_names_may_be_json_and_a_wrong_file_is_described() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (models, file) = (registry(data.path()), lonely(folder.path()));
    let names = folder.path().join("names.json");
    let add = |id: &str, text: &str| {
        std::fs::write(&names, text).unwrap();
        let (id, classes) = (Some(id.to_owned()), Some(names.clone()));
        models.add(&file, AddOptions { id, classes, ..AddOptions::default() })
    };
    let index: Vec<String> = (0..10).rev().map(|i| format!("\"{i}\": [\"n{i}\", \"class {i}\"]")).collect();
    add("index", &format!("{{{}}}", index.join(", "))).unwrap();
    assert_eq!(models.load("index").unwrap().classes[3], "class 3");
    for (text, part) in [
        ("", "names.json: has no names"),
        ("a\0b\0", "names.json: name 0 contains the character"),
        ("index,name\n0,a\n", "2 names for an output of 10 values; name 0 is \"index,name\""),
        ("a\n\nb", "3 names for an output of 10 values; name 1 is empty"),
    ] {
        let error = add("wrong", text).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_manifest_next_to_the_file_is_used_and_options_override_it() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_model(&folder.path().join("mine"), MANIFEST, &squeezenet(0.5));
    let models = registry(data.path());
    let options = AddOptions { range: Some(255.0), mean: Some(vec![7.0]), ..AddOptions::default() };
    let file = folder.path().join("mine/weights.safetensors");
    let added = models.add(&file, AddOptions { id: Some("by-file".into()), ..options }).unwrap();
    assert!(added.assumed.is_empty(), "{:?}", added.assumed);
    let model = models.load("by-file").unwrap();
    assert_eq!((model.preprocessing.range, &model.preprocessing.mean[..]), (255.0, &[7.0; 3][..]));
    assert_eq!(model.classes, ["cat", "dog"]);

    for (path, id) in
        [(folder.path().join("mine"), "by-folder"), (folder.path().join("mine/model.toml"), "by-manifest")]
    {
        models.add(&path, AddOptions { id: Some(id.into()), ..AddOptions::default() }).unwrap();
        assert_eq!(models.load(id).unwrap().preprocessing.range, 1.0);
    }
}

#[test]
fn weights_of_a_named_architecture_can_be_added_without_a_manifest() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = folder.path().join("squeeze.safetensors");
    std::fs::write(&file, squeezenet(0.5)).unwrap();
    let models = registry(data.path());
    let added = models.add(&file, AddOptions::default()).unwrap();
    assert_eq!((added.entry.id.as_str(), added.entry.input), ("squeeze", Some([3, 227, 227])));
    let assumed = |field: &str| added.assumed.iter().find(|a| a.field == field).map(|a| a.value.as_str());
    assert_eq!(assumed("architecture"), Some("squeezenet1.1"));
    assert_eq!((assumed("channels"), assumed("range"), assumed("std")), (Some("bgr"), Some("255"), Some("1")));
    assert_eq!(models.load("squeeze").unwrap().preprocessing.channels, ChannelOrder::Bgr);

    let named = |architecture: &str| AddOptions {
        id: Some("named".into()),
        architecture: Some(architecture.into()),
        ..AddOptions::default()
    };
    let wrong = models.add(&file, named("resnet18")).unwrap_err().to_string();
    assert!(wrong.contains("resnet18: the weight file has no tensor bn1.weight, "), "{wrong}");
    assert!(wrong.ends_with("these are the weights of squeezenet1.1"), "{wrong}");
    let added = models.add(&file, named("squeezenet1.1")).unwrap();
    assert!(added.assumed.iter().all(|a| a.field != "architecture"));
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_left_behind() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let models = registry(data.path());
    let file = lonely(folder.path());
    let three = folder.path().join("three.txt");
    std::fs::write(&three, "a\nb\nc\n").unwrap();
    let none = AddOptions::default();
    let cases = [
        (AddOptions { id: Some("../x".into()), ..none.clone() }, "id: ../x is not valid"),
        (AddOptions { id: Some("fashion-resnet8".into()), ..none.clone() }, "expected an id that no model has"),
        (AddOptions { id: Some("squeezenet1.1".into()), ..none.clone() }, "expected an id that no model has"),
        (AddOptions { channels: Some(ChannelOrder::Rgb), ..none.clone() }, "channels: rgb is not valid"),
        (AddOptions { mean: Some(vec![0.1, 0.2, 0.3]), ..none.clone() }, "mean: [0.1, 0.2, 0.3] is not valid"),
        (AddOptions { std: Some(vec![0.0]), ..none.clone() }, "std: [0.0] is not valid"),
        (AddOptions { range: Some(f32::NAN), ..none.clone() }, "range: NaN is not valid"),
        (AddOptions { size: Some([32, 32]), ..none.clone() }, "28"),
        (AddOptions { classes: Some(three), ..none.clone() }, "classes: 3 names for an output of 10 values"),
        (AddOptions { classes: Some(folder.path().join("no.txt")), ..none.clone() }, "no.txt: No such file"),
        (AddOptions { architecture: Some("vgg".into()), ..none.clone() }, "architecture: vgg is not valid"),
    ];
    for (options, expected) in cases {
        let error = models.add(&file, options).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let text = folder.path().join("text.onnx");
    std::fs::write(&text, "no network").unwrap();
    assert!(matches!(models.add(&text, none.clone()), Err(ModelError::Broken { .. })));
    assert!(matches!(models.add(&folder.path().join("no.onnx"), none.clone()), Err(ModelError::Folder { .. })));
    assert!(models.add(folder.path(), none.clone()).unwrap_err().to_string().contains("model.toml"));
    assert_eq!(models.list().iter().filter(|entry| entry.state == ModelState::Ready).count(), 1);

    models.add(&file, none.clone()).unwrap();
    let twice = models.add(&file, none).unwrap_err().to_string();
    assert!(twice.contains("id: my-net is not valid; expected an id that no model has"), "{twice}");
    models.remove("my-net").unwrap();
    assert!(models.entry("my-net").is_none());
}
