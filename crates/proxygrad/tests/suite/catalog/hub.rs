//! Adding networks from repositories of the Hugging Face Hub.

use std::path::Path;

use proxygrad::network::ChannelOrder;
use proxygrad::network::catalog::{AddOptions, Added, Hub, ModelError, Models, ModelsConfig};

use super::hub_server::{COMMIT, Repository, Server};
use super::weights::{sha256, squeezenet};

const CONFIG: &str = r#"{"id2label": {"0": "cat", "1": "dog"}, "model_type": "x"}"#;
const PROCESSOR: &str = r#"{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5], "size": 16, "resample": 3}"#;

/// A file of the fixture with external data.
fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/networks/external-data");
    std::fs::read(folder.join(name)).unwrap()
}

/// Weights without a graph, and the configuration of timm.
fn squeezed() -> Repository {
    let config = r#"{"architecture": "squeezenet1_1", "num_classes": 2, "pretrained_cfg": {"mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.2, 0.2], "input_size": [3, 224, 224], "label_names": ["n1", "n2"],
        "label_descriptions": {"n1": "tench, fish", "n2": "goldfish"}}}"#;
    let files = [("model.safetensors", squeezenet(0.5)), ("config.json", config.into()), ("README.md", "hi".into())];
    Repository { files: files.map(|(name, content)| (name.to_owned(), content)).into(), ..Repository::default() }
}

/// An ONNX file in a folder with its external data, described at the top.
fn onnx() -> Repository {
    let files = [
        ("onnx/model.onnx", fixture("model.onnx")),
        ("onnx/model.onnx.data", fixture("model.onnx.data")),
        ("config.json", CONFIG.into()),
        ("preprocessor_config.json", PROCESSOR.into()),
    ];
    Repository { files: files.map(|(name, content)| (name.to_owned(), content)).into(), ..Repository::default() }
}

fn registry(data: &Path, hub: Hub) -> Models {
    Models::new(ModelsConfig { hub, ..ModelsConfig::new(data) }).unwrap()
}

fn add(models: &Models, address: &str) -> Result<Added, ModelError> {
    models.add_from_hub(&address.parse().unwrap(), AddOptions::default(), &mut |_, _| {})
}

#[test]
fn an_onnx_file_comes_with_its_data_and_its_configuration() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::serve(onnx());
    let models = registry(data.path(), server.hub(None));
    let added = add(&models, "hf://me/net").unwrap();
    assert_eq!((added.entry.id.as_str(), added.entry.licence.as_str()), ("net", "apache-2.0"));
    assert_eq!(added.entry.source, format!("hf://me/net@{COMMIT}/onnx/model.onnx"));
    let model = models.load("net").unwrap();
    assert_eq!((&model.preprocessing.mean[..], model.preprocessing.range), (&[0.1, 0.2, 0.3][..], 1.0));
    assert_eq!(model.preprocessing.channels, ChannelOrder::Rgb);
    let outputs = model.network.node(model.network.outputs()[0]).shape.elements();
    if outputs == 2 {
        assert_eq!(model.classes, ["cat", "dog"]);
    } else {
        assert!(model.classes.is_empty(), "names of another number of classes are not used");
        assert!(
            added.assumed.iter().any(|assumed| assumed.field == "classes" && assumed.why.contains("another number"))
        );
    }
    let lines =
        format!("{}  -\n{}  model.onnx.data\n", sha256(&fixture("model.onnx")), sha256(&fixture("model.onnx.data")));
    assert_eq!(model.digest, sha256(lines.as_bytes()));
    assert!(server.requests().iter().all(|(_, _, has_token)| !has_token));
    let twice = add(&models, "hf://me/net").unwrap_err().to_string();
    assert!(twice.contains("id: net is not valid; expected an id that no model has"), "{twice}");
    let left = std::fs::read_dir(data.path().join("models/.workbench")).unwrap().count();
    assert_eq!(left, 0, "downloads are removed");
}

#[test]
fn weights_of_a_named_architecture_come_with_the_configuration_of_timm() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::serve(squeezed());
    let models = registry(data.path(), server.hub(None));
    let added = add(&models, "hf://me/net@v1").unwrap();
    assert_eq!(added.entry.architecture.as_deref(), Some("squeezenet1.1"));
    assert_eq!(added.entry.digest, Some(sha256(&squeezenet(0.5))));
    let model = models.load("net").unwrap();
    assert_eq!(
        (&model.preprocessing.mean[..], &model.classes[..]),
        (&[0.4, 0.5, 0.6][..], &["tench".into(), "goldfish".into()][..])
    );

    let options = AddOptions { id: Some("mine".into()), mean: Some(vec![0.0]), ..AddOptions::default() };
    models.add_from_hub(&"hf://me/net/model.safetensors".parse().unwrap(), options, &mut |_, _| {}).unwrap();
    assert_eq!(models.load("mine").unwrap().preprocessing.mean, [0.0; 3], "options take precedence");
}

#[test]
fn a_token_is_sent_to_the_hub_but_not_to_its_storage() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::serve(Repository { token: Some("secret"), ..squeezed() });
    let without = add(&registry(data.path(), server.hub(None)), "hf://me/net").unwrap_err().to_string();
    assert!(without.contains("hf://me/net: the repository does not exist or is private"), "{without}");
    assert!(without.contains("it needs an access token (--hub-token, HF_TOKEN)"), "{without}");
    let wrong = add(&registry(data.path(), server.hub(Some("other"))), "hf://me/net").unwrap_err().to_string();
    assert!(wrong.contains("the token has no access") && !wrong.contains("other"), "{wrong}");
    add(&registry(data.path(), server.hub(Some("secret"))), "hf://me/net").unwrap();
    assert!(server.requests().iter().all(|(_, _, has_token)| !has_token), "{:?}", server.requests());
    assert!(!format!("{:?}", server.hub(Some("secret"))).contains("secret"));
}

#[test]
fn what_cannot_be_found_is_named_with_what_there_is() {
    let server = Server::serve(squeezed());
    for (address, expected) in [
        ("hf://me/net@v2", "hf://me/net@v2: the repository has no revision v2"),
        ("hf://me/other", "hf://me/other: not found"),
        ("hf://me/net/model.onnx", "has no file model.onnx; it has README.md, config.json, model.safetensors"),
    ] {
        let data = tempfile::tempdir().unwrap();
        let why = add(&registry(data.path(), server.hub(None)), address).unwrap_err();
        assert!(matches!(why, ModelError::Unavailable { .. }), "{why:?}");
        assert!(why.to_string().contains(expected), "{address}: {why}");
    }
    let changes: Vec<(fn(&mut Repository), &str)> = vec![
        (|r| r.gated = true, "the repository is gated: accept its terms on http://127.0.0.1"),
        (
            |r| drop(r.files.remove("model.safetensors")),
            "has no ONNX file, and no model.safetensors of a named architecture",
        ),
        (
            |r| {
                for name in ["a.onnx", "b/b.onnx"] {
                    r.files.insert(name.into(), vec![0; 9]);
                }
            },
            "has several ONNX files; add the name of one of them to the address: a.onnx, b/b.onnx",
        ),
        (|r| *r = Repository { commit: Some("fedc"), ..squeezed() }, "the Hub sent the commit fedc instead"),
        (|r| drop(r.files.insert("config.json".into(), b"{]".to_vec())), "config.json: "),
    ];
    for (change, expected) in changes {
        let data = tempfile::tempdir().unwrap();
        let mut repository = squeezed();
        change(&mut repository);
        let server = Server::serve(repository);
        let why = add(&registry(data.path(), server.hub(None)), "hf://me/net").unwrap_err().to_string();
        assert!(why.contains(expected), "{expected}: {why}");
    }
    let mut lacking = onnx();
    lacking.files.remove("onnx/model.onnx.data");
    let (data, server) = (tempfile::tempdir().unwrap(), Server::serve(lacking));
    let why = add(&registry(data.path(), server.hub(None)), "hf://me/net").unwrap_err().to_string();
    assert!(why.contains("onnx/model.onnx needs the file model.onnx.data, which is missing"), "{why}");
}

#[test]
fn an_interrupted_download_is_continued() {
    let length = squeezenet(0.5).len() as u64;
    // In one call, while every request brings something; and by the next call.
    for (hang_ups, calls) in [(vec![1000, 5000], 1), (vec![1000, 0], 2)] {
        let data = tempfile::tempdir().unwrap();
        let server = Server::serve(Repository { hang_ups, ..squeezed() });
        let models = registry(data.path(), server.hub(None));
        for call in 1..calls {
            assert!(add(&models, "hf://me/net").is_err(), "call {call}");
        }
        add(&models, "hf://me/net").unwrap();
        assert_eq!(models.entry("net").unwrap().digest, Some(sha256(&squeezenet(0.5))));
        let starts: Vec<u64> =
            server.requests().into_iter().filter(|(file, ..)| file == "model.safetensors").map(|r| r.1).collect();
        assert_eq!(starts[..2], [0, 1000], "{starts:?}");
        assert!(starts.iter().all(|&start| start < length));
    }
    let data = tempfile::tempdir().unwrap();
    let server = Server::serve(Repository { hang_ups: vec![1000], no_ranges: true, ..squeezed() });
    add(&registry(data.path(), server.hub(None)), "hf://me/net").unwrap();
}

#[test]
fn other_content_than_stated_is_refused_and_not_kept() {
    for terse in [false, true] {
        let data = tempfile::tempdir().unwrap();
        let server = Server::serve(Repository { terse, etag: Some(sha256(b"other")), ..squeezed() });
        let models = registry(data.path(), server.hub(None));
        let result = add(&models, "hf://me/net");
        if terse {
            let why = result.unwrap_err().to_string();
            assert!(why.contains("SHA-256 is") && why.contains("model.safetensors"), "{why}");
            server.repository().etag = None;
            add(&models, "hf://me/net").unwrap();
        } else {
            // The digest of the description counts; the small file has none.
            let why = result.unwrap_err().to_string();
            assert!(why.contains("config.json: SHA-256 is"), "{why}");
        }
    }
}
