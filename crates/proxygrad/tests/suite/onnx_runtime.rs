//! Imported networks compute what ONNX Runtime computes. The fixtures are made by `tests/fixtures/onnx/generate.py`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Reference, Target};
use proxygrad::network::onnx::{ExternalData, ImportOptions, Imported, import, import_with};
use proxygrad::network::{NodeId, Shape};

use crate::tensors::values;

/// Largest allowed difference, relative to the largest magnitude.
const TOLERANCE: f64 = 1e-4;

fn load(family: &str) -> HashMap<String, Tensor> {
    let path = format!("{}/tests/fixtures/onnx/{family}.safetensors", env!("CARGO_MANIFEST_DIR"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn engines() -> [(&'static str, Box<dyn Engine>); 2] {
    [
        ("reference", Box::new(Reference::new(Device::Cpu, DType::F32))),
        ("cpu", Box::new(Cpu::new(&CpuSettings::default()).unwrap())),
    ]
}

/// Why `found` is not `expected`.
fn difference(found: &Tensor, expected: &Tensor) -> Option<String> {
    if found.dims() != expected.dims() {
        return Some(format!("shape {:?} instead of {:?}", found.dims(), expected.dims()));
    }
    let (found, expected) = (values(found), values(expected));
    let scale = expected.iter().fold(1e-6f64, |m, v| m.max(v.abs()));
    let largest = found.iter().zip(&expected).fold(0f64, |m, (a, b)| m.max((a - b).abs())) / scale;
    (largest.is_nan() || largest > TOLERANCE).then(|| format!("values are {largest:.1e} apart"))
}

fn image_size(image: &Tensor) -> [usize; 3] {
    let (_, channels, height, width) = image.dims4().unwrap();
    [channels, height, width]
}

/// Compares the outputs of the layers `targets` with the expected ones.
fn compare(imported: &Imported, image: &Tensor, targets: &[(NodeId, &Tensor)]) -> Vec<String> {
    let network = Arc::new(imported.network.clone());
    let ids: Vec<NodeId> = targets.iter().map(|target| target.0).collect();
    let mut faults = Vec::new();
    for (name, engine) in engines() {
        let outputs = engine
            .plan(&network, &Target::whole(&ids), &Shape::from(image_size(image)))
            .and_then(|mut plan| plan.forward(image, Forward::Original));
        match outputs {
            Ok(outputs) => {
                let differences = outputs.iter().zip(targets).filter_map(|(found, (_, expected))| {
                    difference(found, expected).map(|why| format!("{name} engine: {why}"))
                });
                faults.extend(differences);
            }
            Err(why) => faults.push(format!("{name} engine: {why}")),
        }
    }
    faults
}

/// Checks one case of a family; `apart` if its outputs are those of each image alone, with the file's batch axis.
fn check(case: &str, tensors: &HashMap<String, Tensor>, apart: bool) -> Vec<String> {
    let bytes: Vec<u8> = tensors[&format!("{case}/model")].to_vec1().unwrap();
    let image = |place: &str| {
        let image = tensors.get(&format!("{case}/{place}input"))?;
        // The channel axis is the second of four, unless the case says otherwise.
        let turned = case.ends_with("channels_last").then(|| image.permute((0, 3, 1, 2)).unwrap());
        Some(turned.map_or_else(|| image.clone(), |image| image.contiguous().unwrap()))
    };
    let size = image_size(&image("").unwrap());
    let imported = match import_with(
        &bytes,
        &ExternalData::default(),
        &ImportOptions { input: Some(size), ..ImportOptions::default() },
    ) {
        Ok(imported) => imported,
        Err(why) => return vec![why.to_string()],
    };
    let mut faults = Vec::new();
    for place in ["", "elsewhere/"] {
        let Some(image) = image(place) else { continue };
        let outputs = imported.network.outputs().iter().zip(&imported.output_names);
        let targets: Vec<(NodeId, &Tensor)> =
            outputs.map(|(&id, name)| (id, &tensors[&format!("{case}/{place}output/{name}")])).collect();
        if place.is_empty() {
            for (id, expected) in &targets {
                let shape = &imported.network.node(*id).shape;
                let long = |dims: &[usize]| dims.iter().copied().filter(|&length| length != 1).collect::<Vec<_>>();
                let is_same = match apart {
                    true => long(shape) == long(&expected.dims()[1..]),
                    false => shape[..] == expected.dims()[1..],
                };
                if !is_same {
                    faults.push(format!("inferred {shape} for {:?}", expected.dims()));
                }
            }
        }
        let own_shape = |(id, expected): (NodeId, &Tensor)| {
            let dims = [&expected.dims()[..1], &imported.network.node(id).shape[..]].concat();
            let reshaped = if apart { expected.reshape(dims) } else { Ok(expected.clone()) };
            (id, reshaped.unwrap_or_else(|_| expected.clone()))
        };
        let targets: Vec<(NodeId, Tensor)> = targets.into_iter().map(own_shape).collect();
        let targets: Vec<(NodeId, &Tensor)> = targets.iter().map(|(id, expected)| (*id, expected)).collect();
        faults.extend(compare(&imported, &image, &targets));
    }
    faults
}

fn check_family(family: &str, at_least: usize) {
    let tensors = load(family);
    let cases: BTreeSet<&str> = tensors.keys().filter_map(|name| name.strip_suffix("/model")).collect();
    assert!(cases.len() >= at_least, "{family} has only {} cases", cases.len());
    let faults: Vec<String> = cases
        .iter()
        .flat_map(|case| {
            check(case, &tensors, family == "batches").into_iter().map(move |why| format!("{case}: {why}"))
        })
        .collect();
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

#[test]
fn convolutions() {
    check_family("convolutions", 20);
}

#[test]
fn functions_and_branches() {
    check_family("nested", 6);
}

#[test]
fn quantized_weights_and_activations() {
    check_family("quantized", 12);
}

#[test]
fn operators_of_onnx_runtime() {
    check_family("contributed", 5);
}

#[test]
fn dense_layers() {
    check_family("dense", 10);
}

#[test]
fn matrix_products() {
    check_family("products", 25);
}

#[test]
fn batch_normalizations_and_factors() {
    check_family("factors", 8);
}

#[test]
fn activations() {
    check_family("activations", 44);
}

#[test]
fn sums_and_products() {
    check_family("sums", 30);
}

#[test]
fn elementwise_functions() {
    check_family("functions", 30);
}

#[test]
fn comparisons_and_selections() {
    check_family("selections", 15);
}

#[test]
fn pools() {
    check_family("pools", 83);
}

#[test]
fn reductions() {
    check_family("reductions", 15);
}

#[test]
fn normalizations() {
    check_family("normalizations", 22);
}

#[test]
fn attention_and_rotary_embeddings() {
    check_family("attention", 18);
}

#[test]
fn pads() {
    check_family("pads", 12);
}

#[test]
fn shapes() {
    check_family("shapes", 30);
}

#[test]
fn reads_and_writes_by_index() {
    check_family("indices", 20);
}

#[test]
fn transposed_convolutions() {
    check_family("transposed", 18);
}

#[test]
fn one_dimensional_windows() {
    check_family("lines", 6);
}

#[test]
fn resizes() {
    check_family("resizes", 99);
}

#[test]
fn softmax() {
    check_family("softmax", 10);
}

/// The batch axis at every position, joined with other axes and removed.
#[test]
fn batches() {
    check_family("batches", 15);
}

#[test]
fn versions_of_the_operations() {
    check_family("versions", 12);
}

#[test]
fn arithmetic_on_constants() {
    check_family("constants", 10);
}

#[test]
fn whole_networks() {
    check_family("networks", 11);
}

/// The network that ships with the program: its logits and two inner layers.
#[test]
fn fashion_resnet8() {
    let imported = import(include_bytes!("../../assets/fashion-resnet8/model.onnx")).unwrap();
    let tensors = load("fashion-resnet8");
    for (tensor, expected) in tensors.iter().filter(|(name, _)| *name != "input") {
        let position = imported.tensor_names.iter().position(|name| name.as_deref() == Some(tensor)).unwrap();
        let network = Arc::new(imported.network.clone());
        for (name, engine) in engines() {
            let mut plan = engine.plan(&network, &[NodeId(position).into()], network.input_shape()).unwrap();
            let found = plan.forward(&tensors["input"], Forward::Original).unwrap().remove(0);
            // Of the inner layers only every 16th channel is stored.
            let step = if tensor == "logits" { 1 } else { 16 };
            let channels: Vec<u32> = (0..found.dims()[1] as u32).step_by(step).collect();
            let channels = Tensor::new(channels, &Device::Cpu).unwrap();
            let found = found.contiguous().unwrap().index_select(&channels, 1).unwrap();
            assert_eq!(difference(&found, expected), None, "{tensor}, {name} engine");
        }
    }
}
