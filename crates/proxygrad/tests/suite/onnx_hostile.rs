//! Damaged ONNX files are rejected or imported, and never cause a panic.

use candle_core::{Device, safetensors};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use proxygrad::network::onnx::{ExternalData, ImportOptions, external_files, import_with};

/// A file with the files next to it that hold its weights.
type Given = (Vec<u8>, ExternalData, ImportOptions);

/// Small files that together use most of the importer: shape arithmetic, constant folding, fusion, windows, resizes,
/// external data, modules, functions, branches, attention, quantization, constants that operations compute, unsupported
/// nodes.
fn files() -> Vec<Given> {
    let read = |family: &str, cases: &[&str]| {
        let path = format!("{}/tests/fixtures/onnx/{family}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let tensors = safetensors::load(path, &Device::Cpu).unwrap();
        let model = |case: &&str| {
            let (_, channels, height, width) = tensors[&format!("{case}/input")].dims4().unwrap();
            let bytes = tensors[&format!("{case}/model")].to_vec1::<u8>().unwrap();
            (
                bytes,
                ExternalData::default(),
                ImportOptions { input: Some([channels, height, width]), ..ImportOptions::default() },
            )
        };
        cases.iter().map(model).collect::<Vec<_>>()
    };
    let mut files = read("networks", &["net_channel_shuffle", "net_decoder_to_size", "net_convnext_like"]);
    files.extend(read("pads", &["pad_torch_style"]));
    files.extend(read("sums", &["expand_torch_style"]));
    files.extend(read("shapes", &["split_attribute", "slice_inputs", "squeeze_unsqueeze"]));
    files.extend(read(
        "constants",
        &["weights_in_batch_norm_14", "spectral_norm", "of_full_size", "attention_of_constants", "patterns"],
    ));
    files.extend(read("attention", &["attention_shared_keys", "rotary_tokens_interleaved"]));
    files.extend(read("products", &["einsum_three"]));
    files.extend(read("quantized", &["integer_operators", "integers_with_the_range_of_the_image"]));
    files.extend(read("quantized", &["integers_of_onnx_runtime", "products_of_onnx_runtime", "weights_in_blocks"]));
    files.extend(read("contributed", &["fused_attention", "fused_convolutions", "fused_normalizations"]));
    files.extend(read("nested", &["function_called_twice", "if_inside_if", "if_inside_function"]));
    let plain = ["external-data", "tail-argmax", "sparse-initializer", "uint8-nhwc", "bgr-gather", "if-shape"];
    for (folder, model) in plain.map(|folder| (folder, "model.onnx")).into_iter().chain([("modules", "net.onnx")]) {
        let folder = format!("{}/tests/fixtures/networks/{folder}", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(format!("{folder}/{model}")).unwrap();
        let mut external = ExternalData::default();
        for name in external_files(&bytes).unwrap() {
            external.insert(&name, std::fs::read(format!("{folder}/{name}")).unwrap());
        }
        files.push((bytes, external, ImportOptions::default()));
    }
    files
}

/// One change to a file.
#[derive(Debug, Clone)]
enum Damage {
    /// One byte gets another value.
    Replace(prop::sample::Index, u8),
    /// Some bytes are removed.
    Remove(prop::sample::Index, usize),
    /// Some bytes are duplicated.
    Repeat(prop::sample::Index, usize),
    /// A number becomes the longest varint.
    Inflate(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        6 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        1 => (any::<prop::sample::Index>(), 1..20usize).prop_map(|(at, count)| Damage::Remove(at, count)),
        1 => (any::<prop::sample::Index>(), 1..60usize).prop_map(|(at, count)| Damage::Repeat(at, count)),
        1 => any::<prop::sample::Index>().prop_map(Damage::Inflate),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    match damage {
        Damage::Replace(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Damage::Remove(at, count) => {
            let at = at.index(bytes.len());
            bytes.drain(at..(at + count).min(bytes.len() - 1).max(at));
        }
        Damage::Repeat(at, count) => {
            let at = at.index(bytes.len());
            let part = bytes[at..(at + count).min(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        Damage::Inflate(at) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at + 1, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        }
    }
}

fn try_damaged(cases: u32) {
    let files = files();
    assert!(files.iter().all(|(bytes, external, options)| import_with(bytes, external, options).is_ok()));
    let config = Config { cases, rng_seed: RngSeed::Fixed(20), failure_persistence: None, ..Config::default() };
    let damages = prop::collection::vec(damage(), 1..4);
    let strategy = (0..files.len(), damages);
    TestRunner::new(config)
        .run(&strategy, |(which, damages)| {
            let (mut bytes, external, options) = files[which].clone();
            damages.iter().for_each(|damage| apply(&mut bytes, damage));
            if let Ok(names) = external_files(&bytes) {
                let plain = |name: &String| !name.starts_with('.') && !name.contains(['/', '\\']);
                prop_assert!(names.iter().all(plain), "{names:?}");
            }
            // A file with a damaged weight is still a network; any other damage must be an error with a message.
            match import_with(&bytes, &external, &options) {
                Err(why) => prop_assert!(why.to_string().len() > 10),
                Ok(imported) => {
                    let network = &imported.network;
                    for layer in network.layers() {
                        let named =
                            |name: &str| network.layer(name).is_ok_and(|id| network.node(id).name == layer.name);
                        prop_assert!(named(layer.name) && layer.modules.iter().all(|path| named(path)), "{layer:?}");
                    }
                    prop_assert!(!network.outputs().is_empty());
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn damaged_files_never_panic() {
    try_damaged(3000);
}
