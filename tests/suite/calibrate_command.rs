//! `proxygrad models calibrate` as a user runs it.

use std::process::Command;

use proxygrad::network::catalog::{Models, ModelsConfig};

use crate::calibration_fixture::pictures;

const MODEL: &str = "fashion-resnet8";

#[test]
fn the_command_calibrates_and_names_what_it_skips() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("pictures");
    pictures(&folder);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxygrad"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PROXYGRAD_")) {
            command.env_remove(name);
        }
        let output =
            command.arg("models").arg("--data-dir").arg(data.path()).arg("calibrate").args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let folder = folder.to_str().unwrap();
    let (done, out, err) = run(&[MODEL, "--images", folder, "--layers", "logits,layer1/Relu_1", "--top", "2"]);
    assert!(done, "{err}");
    assert!(out.starts_with("calibrated fashion-resnet8: 7 images (1 skipped, "), "{out}");
    assert!(out.trim_end().ends_with("2 layers, 26 units"), "{out}");
    assert!(err.contains("skipped broken.jpg: "), "{err}");
    let loaded = Models::new(ModelsConfig::new(data.path())).unwrap().load(MODEL).unwrap();
    assert_eq!(loaded.calibration.as_ref().unwrap().layers["logits"].units[0].top.len(), 2);

    let empty = tempfile::tempdir().unwrap();
    let (done, _, err) = run(&[MODEL, "--images", empty.path().to_str().unwrap()]);
    assert!(!done && err.contains("--images") && err.contains("a folder with PNG or JPEG files"), "{err}");
    let (done, _, err) = run(&[MODEL, "--images", folder, "--layers", "nothing"]);
    assert!(!done && err.contains("--layers: nothing"), "{err}");
    let (done, _, err) = run(&["nothing", "--images", folder]);
    assert!(!done && err.contains("known models are"), "{err}");
}
