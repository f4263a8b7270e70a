//! Writes the values of all layers of an ONNX file on an image, for comparison with other programs (`studies/zoo`).
//!
//! `cargo run --release --example onnx_values -- net.onnx image.safetensors values.safetensors [cpu|reference]`
//! `cargo run --release --example onnx_values -- --import net.onnx other.onnx`
//!
//! Reads the image from the tensor `image` `[N,C,H,W]`, f32. Writes the values of each layer under the name of the
//! file's tensor with the same values, and under `gradient` the gradient with respect to the image of the sum of channel
//! 0 of the first output. Prints a JSON document: the outputs, the layers by tensor, and the nodes that are not
//! supported. With `--import` it only imports files, and prints one document per line.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use candle_core::{DType, Device, Tensor, safetensors};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Gate, Reference, Target};
use proxygrad::network::onnx::{self, ExternalData, ImportError, ImportOptions, Imported};
use proxygrad::network::{NodeId, Shape};
use serde_json::{Value, json};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--import", ref files @ ..] => {
            for file in files {
                let document = match import(Path::new(file), None)? {
                    Ok(imported) => describe(&imported),
                    Err(why) => refused(&why),
                };
                println!("{}", json!({ "file": file, "import": document }));
            }
            Ok(())
        }
        [file, image, output] => run(file, image, output, &Reference::new(Device::Cpu, DType::F32)),
        [file, image, output, "reference"] => run(file, image, output, &Reference::new(Device::Cpu, DType::F32)),
        [file, image, output, "cpu"] => run(file, image, output, &Cpu::new(&CpuSettings::default())?),
        _ => anyhow::bail!("usage: onnx_values FILE IMAGE OUTPUT [cpu|reference], or onnx_values --import FILE..."),
    }
}

/// Writes the values of the layers of `file` on the image in the file `image` to `output`.
fn run(file: &str, image: &str, output: &str, engine: &dyn Engine) -> anyhow::Result<()> {
    let mut tensors = safetensors::load(image, &Device::Cpu)?;
    let image = tensors.remove("image").with_context(|| format!("{image} has no tensor `image`"))?;
    let (_, channels, height, width) = image.dims4()?;
    let document = match import(Path::new(file), Some([channels, height, width]))? {
        Ok(imported) => {
            safetensors::save(&values(&imported, engine, &image)?, output)?;
            describe(&imported)
        }
        Err(why) => refused(&why),
    };
    println!("{document}");
    Ok(())
}

/// Imports a file with the external data in its folder, for images of the size `input` `[C,H,W]`.
fn import(file: &Path, input: Option<[usize; 3]>) -> anyhow::Result<Result<Imported, ImportError>> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let names = match onnx::external_files(&bytes) {
        Ok(names) => names,
        Err(why) => return Ok(Err(why)),
    };
    let mut external = ExternalData::default();
    for name in names {
        let path = file.with_file_name(&name);
        external.insert(name, std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(onnx::import_with(&bytes, &external, &ImportOptions { input, ..ImportOptions::default() }))
}

/// Values of all layers that have a tensor in the file, and the gradient.
fn values(imported: &Imported, engine: &dyn Engine, image: &Tensor) -> anyhow::Result<HashMap<String, Tensor>> {
    let network = Arc::new(imported.network.clone());
    let (_, channels, height, width) = image.dims4()?;
    let input = Shape::from([channels, height, width]);
    let named: Vec<(NodeId, &String)> = layers(imported).collect();
    let ids: Vec<NodeId> = named.iter().map(|&(id, _)| id).collect();
    let outputs = engine.plan(&network, &Target::whole(&ids), &input)?.forward(image, Forward::Original)?;
    let mut values: HashMap<String, Tensor> = named.iter().map(|&(_, name)| name.clone()).zip(outputs).collect();
    if let Some(&first) = network.outputs().first() {
        let mut plan = engine.plan(&network, &[Target::from(first)], &input)?;
        let output = plan.forward(image, Forward::Original)?.remove(0);
        let seed = match output.rank() {
            1 => output.ones_like()?,
            _ => {
                let channel = output.narrow(1, 0, 1)?.ones_like()?;
                let rest = output.narrow(1, 1, output.dim(1)? - 1)?.zeros_like()?;
                Tensor::cat(&[channel, rest], 1)?
            }
        };
        values.insert("gradient".into(), plan.backward(&[seed], Gate::Plain)?);
    }
    Ok(values)
}

/// The layers with a tensor in the file, other than the input.
fn layers(imported: &Imported) -> impl Iterator<Item = (NodeId, &String)> {
    let names = imported.tensor_names.iter().enumerate();
    names
        .filter_map(|(id, name)| Some((NodeId(id), name.as_ref()?)))
        .filter(|(id, _)| *id != proxygrad::network::Network::INPUT)
}

fn describe(imported: &Imported) -> Value {
    let network = &imported.network;
    let layer = |id: NodeId| {
        let node = network.node(id);
        json!({ "name": node.name, "op": node.op.name(), "shape": node.shape.to_vec() })
    };
    let layers: serde_json::Map<String, Value> =
        layers(imported).map(|(id, tensor)| (tensor.clone(), layer(id))).collect();
    json!({
        "outputs": imported.output_names,
        "layers": layers,
        "layers_without_tensor": imported.tensor_names.iter().skip(1).filter(|name| name.is_none()).count(),
        "unsupported": unsupported(&imported.unsupported),
        "nodes": imported.total,
        "opset": imported.opset,
        "producer": imported.producer,
    })
}

/// A document without layers.
fn refused(why: &ImportError) -> Value {
    match why {
        ImportError::Unsupported { nodes, total } => {
            json!({ "outputs": [], "layers": {}, "unsupported": unsupported(nodes), "nodes": total })
        }
        why => json!({ "outputs": [], "layers": {}, "error": why.to_string() }),
    }
}

fn unsupported(nodes: &[onnx::UnsupportedNode]) -> Value {
    nodes.iter().map(|node| json!({ "name": node.name, "op": node.op, "reason": node.reason })).collect()
}
