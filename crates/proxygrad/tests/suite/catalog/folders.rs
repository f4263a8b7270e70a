//! Folders of models.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proxygrad::network::catalog::{ModelError, ModelState, Models, ModelsConfig};

use super::weights::squeezenet;

pub const MANIFEST: &str = r#"
file = "weights.safetensors"
architecture = "squeezenet1.1"
input = [3, 227, 227]
classes = ["cat", "dog"]
licence = "MIT"

[preprocessing]
channels = "rgb"
range = 1
mean = [0, 0, 0]
std = [1, 1, 1]
"#;

pub fn write_model(folder: &Path, manifest: &str, weights: &[u8]) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("model.toml"), manifest).unwrap();
    std::fs::write(folder.join("weights.safetensors"), weights).unwrap();
}

fn registry(data: &Path, folders: &[&Path]) -> Models {
    let folders = folders.iter().map(|&folder| folder.into()).collect();
    Models::new(ModelsConfig { folders, catalog: Vec::new(), ..ModelsConfig::new(data) }).unwrap()
}

fn states(models: &Models) -> Vec<(String, ModelState)> {
    let own = models.list().into_iter().filter(|entry| entry.id != "fashion-resnet8");
    own.map(|entry| (entry.id, entry.state)).collect()
}

#[test]
fn a_folder_with_a_manifest_is_a_model() {
    let (data, more) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_model(&more.path().join("mine"), MANIFEST, &squeezenet(0.5));
    write_model(&more.path().join("Other Name"), &format!("id = \"named\"\n{MANIFEST}"), &squeezenet(1.0));
    std::fs::create_dir(more.path().join("empty")).unwrap();
    std::fs::write(more.path().join("note.txt"), "no model").unwrap();
    let models = registry(data.path(), &[more.path()]);
    assert_eq!(states(&models), [("mine".into(), ModelState::Ready), ("named".into(), ModelState::Ready)]);
    let model = models.load("mine").unwrap();
    assert_eq!(model.classes, ["cat", "dog"]);
    assert_ne!(model.digest, models.load("named").unwrap().digest);
    let refused = models.remove("mine").unwrap_err().to_string();
    assert!(refused.contains("expected a model in the data directory; this one is in "), "{refused}");

    let single = registry(data.path(), &[&more.path().join("mine")]);
    assert_eq!(states(&single), [("mine".into(), ModelState::Ready)], "one model's folder is a folder of models, too");
}

#[test]
fn broken_models_are_shown_as_broken_and_disturb_nobody() {
    let (data, more) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let good = squeezenet(0.5);
    let model = |name: &str, manifest: &str, weights: &[u8]| write_model(&more.path().join(name), manifest, weights);
    model("good", MANIFEST, &good);
    model("syntax", "file = ", &good);
    model("escape", &MANIFEST.replace("weights.safetensors", "../good/weights.safetensors"), &good);
    model("lost", &MANIFEST.replace("weights.", "gone."), &good);
    model("digest", &format!("digest = \"{}\"\n{MANIFEST}", "0".repeat(64)), &good);
    model("noise", MANIFEST, b"no weights at all");
    model("classes", &MANIFEST.replace("\"dog\"", "\"dog\", \"bird\""), &good);
    model("Bad Name", MANIFEST, &good);
    model("wrong-ending", &MANIFEST.replace("weights.safetensors", "model.toml"), &good);

    let models = registry(data.path(), &[more.path()]);
    models.check();
    for (id, expected) in [
        ("syntax", "model.toml: line 1"),
        ("escape", "model.toml: file: ../good/weights.safetensors is not valid"),
        ("lost", "gone.safetensors: No such file"),
        ("digest", "weights.safetensors: SHA-256 is"),
        ("noise", "weights.safetensors: "),
        ("classes", "classes: 3 names for an output of 2 values"),
        ("Bad Name", "id: Bad Name is not valid"),
        ("wrong-ending", "unknown weight file format"),
    ] {
        let entry = models.entry(id).unwrap_or_else(|| panic!("{id}"));
        assert_eq!(entry.state, ModelState::Broken, "{id}");
        let problem = entry.problem.unwrap();
        assert!(problem.contains(expected), "{id}: {problem}");
        let error = models.load(id).unwrap_err();
        assert!(matches!(&error, ModelError::Broken { why, .. } if *why == problem), "{id}: {error}");
        assert!(matches!(models.pull(id, &mut |_, _| {}), Err(ModelError::Broken { .. })), "{id}");
    }
    assert_eq!(models.entry("good").unwrap().state, ModelState::Ready);
    assert!(models.load("good").is_ok());
}

#[test]
fn models_that_appear_change_or_vanish_are_noticed() {
    let data = tempfile::tempdir().unwrap();
    let models = registry(data.path(), &[]);
    assert!(states(&models).is_empty());
    let folder = data.path().join("models/mine");
    write_model(&folder, MANIFEST, &squeezenet(0.5));
    let first = models.load("mine").unwrap();
    assert!(Arc::ptr_eq(&first, &models.load("mine").unwrap()));

    std::fs::write(folder.join("weights.safetensors"), b"broken, and of another size").unwrap();
    assert!(models.load("mine").is_err());
    assert_eq!(states(&models), [("mine".into(), ModelState::Broken)]);
    std::fs::write(folder.join("weights.safetensors"), squeezenet(1.0)).unwrap();
    assert_eq!(states(&models), [("mine".into(), ModelState::Ready)]);
    assert_ne!(models.load("mine").unwrap().digest, first.digest);

    std::fs::remove_dir_all(&folder).unwrap();
    assert!(matches!(models.load("mine"), Err(ModelError::Unknown { .. })));
}

#[test]
fn the_data_directory_comes_before_other_folders() {
    let (data, more) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_model(&more.path().join("mine"), &MANIFEST.replace("MIT", "second"), &squeezenet(0.5));
    write_model(&data.path().join("models/mine"), &MANIFEST.replace("MIT", "first"), &squeezenet(0.5));
    write_model(&more.path().join("fashion-resnet8"), MANIFEST, &squeezenet(0.5));
    let models = registry(data.path(), &[more.path()]);
    assert_eq!(models.entry("mine").unwrap().licence, "first");
    assert_eq!(models.entry("fashion-resnet8").unwrap().architecture, None, "the embedded model stays what it is");
    assert_eq!(models.list().len(), 2);
}

#[test]
fn unknown_ids_are_answered_with_the_known_ones_and_are_never_paths() {
    let data = tempfile::tempdir().unwrap();
    write_model(&data.path().join("secret"), MANIFEST, &squeezenet(0.5));
    let models = registry(data.path(), &[]);
    for id in ["nothing", "../secret", "..", ".", "", "/etc", "models/../../secret", "a\0b"] {
        let error = models.load(id).unwrap_err();
        assert!(matches!(&error, ModelError::Unknown { known, .. } if *known == ["fashion-resnet8"]), "{error}");
        assert!(models.entry(id).is_none());
        assert!(models.remove(id).is_err());
    }
}

#[test]
fn a_folder_that_does_not_exist_is_an_error_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    let missing = data.path().join("missing");
    let config = ModelsConfig { folders: vec![missing.clone()], ..ModelsConfig::new(data.path()) };
    let error = Models::new(config).unwrap_err().to_string();
    assert!(error.contains(&missing.display().to_string()), "{error}");
    // The data directory appears when it is needed.
    assert!(!Models::new(ModelsConfig::new(&missing)).unwrap().list().is_empty());
}

#[test]
fn models_are_evicted_when_they_are_removed_or_not_requested() {
    let (hour, data) = (Duration::from_secs(3600), tempfile::tempdir().unwrap());
    let models = registry(data.path(), &[]);
    let folder = data.path().join("models/mine");
    write_model(&folder, MANIFEST, &squeezenet(0.5));
    let held = models.load("mine").unwrap();
    let loaded = Arc::downgrade(&held);
    assert_eq!(models.release_unused(Duration::ZERO), 0, "it is in use");
    assert!(Arc::ptr_eq(&held, &models.load("mine").unwrap()), "there is only one copy");
    drop(held);
    assert_eq!(models.release_unused(hour), 0, "it was requested recently");
    assert!(loaded.upgrade().is_some());
    assert_eq!(models.release_unused(Duration::ZERO), 1);
    assert!(loaded.upgrade().is_none());
    assert_eq!(models.release_unused(Duration::ZERO), 0);

    // Removed from disk while it is still in use.
    let held = models.load("mine").unwrap();
    let loaded = Arc::downgrade(&held);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(models.release_unused(hour), 1);
    assert_eq!(held.classes, ["cat", "dog"]);
    drop(held);
    assert!(loaded.upgrade().is_none());
    assert!(models.load("mine").is_err());

    // Files that changed: the old model is of no use.
    write_model(&folder, MANIFEST, &squeezenet(0.5));
    let loaded = Arc::downgrade(&models.load("mine").unwrap());
    write_model(&folder, &MANIFEST.replace("dog", "horse"), &squeezenet(0.5));
    assert_eq!(models.release_unused(hour), 1);
    assert!(loaded.upgrade().is_none());
    assert_eq!(models.load("mine").unwrap().classes[1], "horse");

    // What is wrong with files that are still there stays known.
    std::fs::write(folder.join("weights.safetensors"), b"broken, and of another size").unwrap();
    assert!(models.load("mine").is_err());
    assert_eq!(models.release_unused(Duration::ZERO), 0);
    assert_eq!(states(&models), [("mine".into(), ModelState::Broken)]);
}
