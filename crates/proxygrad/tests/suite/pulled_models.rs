//! Pulled models against ONNX Runtime; see `tests/verify/catalog.py`.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Engine, Forward, Reference, Target};
use proxygrad::network::catalog::{Models, ModelsConfig};

fn floats(path: &Path) -> Option<Vec<f32>> {
    let bytes = std::fs::read(path).ok()?;
    Some(bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect())
}

#[test]
#[ignore = "needs pulled weights, and logits of tests/verify/catalog.py"]
fn pulled_models_compute_what_another_runtime_computes() {
    let folder = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set")));
    let logits = folder("PROXYGRAD_VERIFY_LOGITS");
    let config = ModelsConfig { catalog: Vec::new(), ..ModelsConfig::new(folder("PROXYGRAD_VERIFY_DATA")) };
    let models = Models::new(config).unwrap();
    let mut compared = 0;
    for entry in models.list() {
        let Some(expected) = floats(&logits.join(format!("{}.logits", entry.id))) else { continue };
        let input = floats(&logits.join(format!("{}.input", entry.id))).unwrap();
        let model = models.load(&entry.id).unwrap();
        let shape = model.network.input_shape();
        let image = Tensor::from_vec(input, (1, shape[0], shape[1], shape[2]), &Device::Cpu).unwrap();
        let engine = Reference::new(Device::Cpu, DType::F32);
        let mut plan = engine.plan(&model.network, &Target::whole(model.network.outputs()), shape).unwrap();
        let found = plan.forward(&image, Forward::Original).unwrap().remove(0).flatten_all().unwrap();
        let found = found.to_vec1::<f32>().unwrap();
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let apart = found.iter().zip(&expected).fold(0.0f32, |apart, (a, b)| apart.max((a - b).abs()));
        println!("{}: largest difference {:.1e} of the largest logit {largest}", entry.id, apart / largest);
        assert!(apart < 1e-4 * largest, "{}: {apart} of {largest}", entry.id);
        compared += 1;
    }
    assert!(compared > 0, "no model has both weights and logits");
}
