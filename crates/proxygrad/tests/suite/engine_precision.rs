//! Matrix products of less precision stay close to those in f32, and are not the same.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Engine, Forward, Gate, Precision, Reference};
use proxygrad::network::Activation;

use crate::networks::{classifier, rng, uniform};

/// Relative distance in the Euclidean norm.
fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let (found, expected) = (values(found), values(expected));
    let apart = norm(&mut found.iter().zip(&expected).map(|(a, b)| f64::from(a - b)));
    apart / norm(&mut expected.iter().map(|&v| f64::from(v)))
}

/// Logits of three images, and the gradient of their sum with gates of constant derivative.
fn run(precision: Precision) -> [Tensor; 2] {
    let network = Arc::new(classifier(5, &Activation::Relu));
    let shape = network.input_shape().clone();
    let values = uniform(&mut rng(17), 3 * shape.elements());
    let images = Tensor::from_vec(values, (3, shape[0], shape[1], shape[2]), &Device::Cpu).unwrap();
    let engine = Reference::new(Device::Cpu, DType::F32).with_precision(precision);
    let mut plan = engine.plan(&network, &[network.find("logits").unwrap().into()], &shape).unwrap();
    let logits = plan.forward(&images, Forward::Original).unwrap().remove(0);
    let gradient = plan.backward(&[logits.ones_like().unwrap()], Gate::Identity).unwrap();
    for tensor in [&logits, &gradient] {
        assert_eq!(tensor.dtype(), DType::F32);
    }
    [logits, gradient]
}

#[test]
fn reduced_products_are_as_close_as_their_mantissas_allow() {
    let exact = run(Precision::Full);
    // Half a unit in the last place is 2^-11 for TF32 and 2^-8 for bf16; a few layers add up.
    for (precision, unit) in [(Precision::Tf32, 2f64.powi(-11)), (Precision::Bf16, 2f64.powi(-8))] {
        for (found, expected) in run(precision).iter().zip(&exact) {
            let distance = distance(found, expected);
            assert!(distance > unit / 100.0, "{precision:?} rounds nothing: {distance:e}");
            assert!(distance < unit * 4.0, "{precision:?} is {distance:e} apart");
        }
    }
}
