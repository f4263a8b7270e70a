//! The first steps of a run against those of PyTorch, from `tests/fixtures/training/generate.py`.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::engine::{Cpu, CpuSettings, Reference};
use crate::network::checkpoint::Format;
use crate::train::Dataset;
use crate::train::optimizer::OptimizerKind;

const FIXTURE: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/training/pytorch.safetensors"));
const SURROGATES: [&str; 5] = ["plain", "decoupled:0.1", "decoupled:1@0.4", "bsilu", "true-proxy:0.3"];
const BATCH: usize = 16;

struct Fixture {
    tensors: HashMap<String, Tensor>,
}

impl Fixture {
    fn read() -> Self {
        Self { tensors: candle_core::safetensors::load_buffer(FIXTURE, &Device::Cpu).unwrap() }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.tensors[name].flatten_all().unwrap().to_vec1().unwrap()
    }

    fn integers(&self, name: &str) -> Vec<usize> {
        let values: Vec<i64> = self.tensors[name].to_vec1().unwrap();
        values.into_iter().map(|value| value as usize).collect()
    }

    /// The order of the images in 20 batches.
    fn batches(&self) -> Vec<Vec<usize>> {
        self.integers("order").chunks(BATCH).map(<[usize]>::to_vec).collect()
    }

    fn training(&self, network: &str, surrogate: &str, engine: &dyn TrainingEngine) -> Training {
        let images: Vec<u8> = self.tensors["images"].flatten_all().unwrap().to_vec1().unwrap();
        let labels = self.integers("labels").into_iter().map(|label| label as u32).collect();
        let classes = (0..4).map(|class| class.to_string()).collect();
        let data = Dataset::new([1, 12, 12], images, labels, classes).unwrap();
        let mut recipe = Recipe {
            architecture: network.parse().unwrap(),
            surrogate: surrogate.parse().unwrap(),
            width: Some(3),
            epochs: 2,
            batch: BATCH,
            ..Recipe::default()
        };
        if network == "vgg8" {
            recipe.optimizer.kind = OptimizerKind::Adamw;
            recipe.learning_rate = 3e-3;
        }
        let splits = Splits { train: data.clone(), test: data };
        let mut training = Training::new(recipe, splits, engine).unwrap();
        let mut state = Format::Safetensors.read(FIXTURE).unwrap();
        for spec in training.network.tensors() {
            let start = state.get(&format!("{network}/start/{}", spec.name)).unwrap().clone();
            state.insert(spec.name.clone(), start);
        }
        training.parameters = Parameters::from_state_dict(&training.network, &state).unwrap();
        training
    }
}

fn engines() -> [(&'static str, Box<dyn TrainingEngine>); 2] {
    let cpu = Cpu::new(&CpuSettings::default()).unwrap();
    [("cpu", Box::new(cpu)), ("reference", Box::new(Reference::new(Device::Cpu, DType::F64)))]
}

#[test]
fn the_first_twenty_losses_are_those_of_pytorch() {
    let fixture = Fixture::read();
    for (engine_name, engine) in engines() {
        for network in ["resnet8", "vgg8"] {
            for surrogate in SURROGATES {
                let mut training = fixture.training(network, surrogate, &*engine);
                let expected = fixture.floats(&format!("{network}/{surrogate}/losses"));
                assert_eq!(expected.len(), 20);
                for (step, (batch, expected)) in fixture.batches().iter().zip(expected).enumerate() {
                    let loss = training.scheduled_step(1, batch, 20).unwrap().0;
                    let error = (loss.mean - f64::from(expected)).abs();
                    assert!(
                        error < 1e-3,
                        "{engine_name}, {network}, {surrogate}, step {step}: {}, PyTorch {expected}",
                        loss.mean
                    );
                }
            }
        }
    }
}

#[test]
fn the_gradients_of_a_step_are_those_of_pytorch() {
    let fixture = Fixture::read();
    for (engine_name, engine) in engines() {
        for network in ["resnet8", "vgg8"] {
            for surrogate in SURROGATES {
                let mut training = fixture.training(network, surrogate, &*engine);
                let batch = &fixture.batches()[0];
                let (_, gradients) = training.gradients(1, batch, training.recipe.surrogate.at(0, 20)).unwrap();
                for (id, spec) in training.network.tensors().iter().enumerate().filter(|(_, s)| s.is_trained()) {
                    let expected = fixture.floats(&format!("{network}/{surrogate}/gradient/{}", spec.name));
                    let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
                    assert_eq!(expected.len(), gradients[id].len());
                    for (found, expected) in gradients[id].iter().zip(&expected) {
                        let what = format!("{engine_name}, {network}, {surrogate}, {}", spec.name);
                        assert!((found - expected).abs() <= 1e-4 * largest, "{what}: {found}, PyTorch {expected}");
                    }
                }
            }
        }
    }
}
