//! ONNX files with external data.

use std::path::{Path, PathBuf};

use proxygrad::network::catalog::{AddOptions, ModelState, Models, ModelsConfig};

use super::weights::sha256;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/networks/external-data");
    std::fs::read(folder.join(name)).unwrap()
}

/// A folder with the network and its weights.
fn given() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, fixture("model.onnx")).unwrap();
    std::fs::write(folder.path().join("model.onnx.data"), fixture("model.onnx.data")).unwrap();
    (folder, file)
}

fn registry(data: &Path, folders: &[&Path]) -> Models {
    let folders = folders.iter().map(|folder| folder.to_path_buf()).collect();
    Models::new(ModelsConfig { folders, ..ModelsConfig::new(data) }).unwrap()
}

fn net() -> AddOptions {
    AddOptions { id: Some("net".into()), ..AddOptions::default() }
}

/// The model file with another text of the same length in it.
fn replaced(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = fixture("model.onnx");
    while let Some(at) = bytes.windows(from.len()).position(|window| window == from.as_bytes()) {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[test]
fn the_copy_has_all_files_and_the_digest_covers_them() {
    let data = tempfile::tempdir().unwrap();
    let (folder, file) = given();
    let added = registry(data.path(), &[]).add(&file, net()).unwrap();
    // What `{ sha256sum < model.onnx; sha256sum model.onnx.data; } | sha256sum` prints.
    let lines =
        format!("{}  -\n{}  model.onnx.data\n", sha256(&fixture("model.onnx")), sha256(&fixture("model.onnx.data")));
    assert_eq!(added.entry.digest, Some(sha256(lines.as_bytes())));

    drop(folder);
    let model = registry(data.path(), &[]).load("net").unwrap();
    assert_eq!(Some(&model.digest), added.entry.digest.as_ref());
    assert_eq!(model.network.layers().count(), 6);
    let mut names: Vec<_> =
        std::fs::read_dir(data.path().join("models/net")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["model.onnx.data", "model.toml", "weights.onnx"]);

    // Other weights are another model.
    let mut other = fixture("model.onnx.data");
    other[100] ^= 1;
    std::fs::write(data.path().join("models/net/model.onnx.data"), other).unwrap();
    let error = registry(data.path(), &[]).load("net").unwrap_err().to_string();
    assert!(error.contains("weights.onnx: SHA-256 is"), "{error}");
}

#[test]
fn a_second_file_that_is_missing_short_or_something_else_is_named() {
    let data = tempfile::tempdir().unwrap();
    let (folder, file) = given();
    let second = folder.path().join("model.onnx.data");
    let models = registry(data.path(), &[]);
    let error = || models.add(&file, net()).unwrap_err().to_string();

    std::fs::write(&second, &fixture("model.onnx.data")[..1000]).unwrap();
    let short = error();
    assert!(short.contains("a.weight needs 1728 bytes at offset 0 of model.onnx.data, which has only 1000"), "{short}");
    std::fs::write(&second, "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let pointer = error();
    assert!(pointer.contains("model.onnx.data, which has only 43 bytes: it is a Git LFS pointer"), "{pointer}");
    std::fs::remove_file(&second).unwrap();
    let missing = error();
    assert!(
        missing.contains("model.onnx.data, where the weights of the network are stored: No such file"),
        "{missing}"
    );
    std::fs::create_dir(&second).unwrap();
    assert!(error().contains("model.onnx.data, where the weights of the network are stored: is not a file"));
    assert!(models.entry("net").is_none(), "no files remain");
}

#[test]
fn nothing_outside_of_the_folder_is_read() {
    let data = tempfile::tempdir().unwrap();
    let (folder, file) = given();
    let models = registry(data.path(), &[]);
    for location in ["../odel.onnx.da", "/tmp/model.data", "x/../x.onnxdata", "..\\del.onnx.dat", ".odel.onnx.data"] {
        std::fs::write(&file, replaced("model.onnx.data", location)).unwrap();
        let error = models.add(&file, net()).unwrap_err().to_string();
        assert!(error.contains("expected the name of a file in the model's folder"), "{location}: {error}");
    }
    std::fs::write(&file, replaced("model.onnx.data", "./del.onnx.data")).unwrap();
    let error = models.add(&file, net()).unwrap_err().to_string();
    assert!(error.contains("del.onnx.data, where the weights"), "a file of the folder may be named so: {error}");

    // Neither by a link.
    std::fs::write(&file, fixture("model.onnx")).unwrap();
    let second = folder.path().join("model.onnx.data");
    let (elsewhere, outside) = (tempfile::tempdir().unwrap(), "outside");
    let outside = elsewhere.path().join(outside);
    std::fs::rename(&second, &outside).unwrap();
    std::os::unix::fs::symlink(&outside, &second).unwrap();
    let error = models.add(&file, net()).unwrap_err().to_string();
    assert!(error.contains("model.onnx.data, where the weights of the network are stored: is a link to"), "{error}");
    // A link within the folder leads to a file of the folder.
    std::fs::remove_file(&second).unwrap();
    std::fs::rename(&outside, folder.path().join("renamed")).unwrap();
    std::os::unix::fs::symlink("renamed", &second).unwrap();
    assert!(models.add(&file, net()).is_ok());
}

#[test]
fn external_data_cannot_have_a_reserved_name() {
    let data = tempfile::tempdir().unwrap();
    let (folder, file) = given();
    let models = registry(data.path(), &[]);
    std::fs::write(folder.path().join("classes.txt"), fixture("model.onnx.data")).unwrap();
    std::fs::write(&file, replaced("model.onnx.data", "././classes.txt")).unwrap();
    let error = models.add(&file, net()).unwrap_err().to_string();
    assert!(error.contains("classes.txt, where its weights are stored, is a reserved file name"), "{error}");
}

#[test]
fn weights_that_change_next_to_the_file_are_noticed() {
    let (data, more) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = more.path().join("mine");
    std::fs::create_dir(&folder).unwrap();
    let manifest = "file = \"model.onnx\"\ninput = [3, 16, 16]\n[preprocessing]\nchannels = \"rgb\"\nrange = 1\n\
                    mean = [0, 0, 0]\nstd = [1, 1, 1]\n";
    std::fs::write(folder.join("model.toml"), manifest).unwrap();
    std::fs::write(folder.join("model.onnx"), fixture("model.onnx")).unwrap();
    let models = registry(data.path(), &[more.path()]);
    assert!(models.load("mine").unwrap_err().to_string().contains("model.onnx.data"));
    std::fs::write(folder.join("model.onnx.data"), fixture("model.onnx.data")).unwrap();
    let first = models.load("mine").unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &models.load("mine").unwrap()));

    let mut other = fixture("model.onnx.data");
    other[100] ^= 1;
    other.push(0);
    std::fs::write(folder.join("model.onnx.data"), other).unwrap();
    assert_ne!(models.load("mine").unwrap().digest, first.digest);
    std::fs::remove_file(folder.join("model.onnx.data")).unwrap();
    assert!(models.load("mine").is_err());
    let entry = models.entry("mine").unwrap();
    assert_eq!(entry.state, ModelState::Broken);
    assert!(entry.problem.unwrap().contains("model.onnx.data, where the weights"));
    std::fs::write(folder.join("model.onnx.data"), fixture("model.onnx.data")).unwrap();
    assert_eq!(models.entry("mine").unwrap().state, ModelState::Ready, "it may come back");
    assert_eq!(models.load("mine").unwrap().digest, first.digest);
}
