//! A small stand-in for a published model: SqueezeNet 1.1 with all weights zero and two classes.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A safetensors file; `bias` is the logit of both classes for every image.
pub fn squeezenet(bias: f32) -> Vec<u8> {
    let path = format!("{}/tests/data/architectures/squeezenet1.1.tensors", env!("CARGO_MANIFEST_DIR"));
    let mut tensors = HashMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let mut shape: Vec<usize> = words.map(|word| word.parse().unwrap()).collect();
        if name.starts_with("conv10") {
            shape[0] = 2;
        }
        let tensor = if name == "conv10.bias" {
            Tensor::full(bias, shape, &Device::Cpu)
        } else {
            Tensor::zeros(shape, DType::F32, &Device::Cpu)
        };
        tensors.insert(name.to_owned(), tensor.unwrap());
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    candle_core::safetensors::save(&tensors, file.path()).unwrap();
    std::fs::read(file.path()).unwrap()
}
