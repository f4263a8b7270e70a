//! Gated backward passes agree with cases worked out by hand.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Engine, Forward, Gate, Reference};
use proxygrad::network::{Activation, Network, Op};

/// Gradients at pre-activations `z` (one row a sample) for incoming gradients `g`.
fn gated(activation: Activation, z: &[&[f32]], g: &[&[f32]], gate: Gate) -> Vec<Vec<f32>> {
    let (batch, width) = (z.len(), z[0].len());
    let mut network = Network::new(1, 1, width);
    let target = network.push("target", Op::Activation(activation), &[Network::INPUT]).unwrap();
    let shape = network.input_shape().clone();
    let engine = Reference::new(Device::Cpu, DType::F32);
    let mut plan = engine.plan(&Arc::new(network), &[target.into()], &shape).unwrap();
    let tensor = |rows: &[&[f32]]| Tensor::from_slice(&rows.concat(), (batch, 1, 1, width), &Device::Cpu).unwrap();
    plan.forward(&tensor(z), Forward::Original).unwrap();
    let gradient = plan.backward(&[tensor(g)], gate).unwrap();
    gradient.reshape((batch, width)).unwrap().to_vec2().unwrap()
}

const RELU6: Activation = Activation::Clip { min: 0.0, max: 6.0 };

#[test]
fn proxy_passes_the_slope_where_relu_is_flat() {
    let found = gated(Activation::Relu, &[&[-2.0, 0.0, 3.0]], &[&[1.0, 2.0, 4.0]], Gate::Proxy { slope: 0.5 });
    assert_eq!(found, [[0.5, 1.0, 4.0]]);
}

#[test]
fn proxy_passes_the_slope_on_both_flat_sides_of_relu6() {
    let found = gated(RELU6, &[&[-1.0, 3.0, 6.0, 7.0]], &[&[1.0; 4]], Gate::Proxy { slope: 0.25 });
    assert_eq!(found, [[0.25, 1.0, 0.25, 0.25]]);
}

#[test]
fn proxy_never_lowers_the_slope_of_a_leaky_relu() {
    let leaky = Activation::LeakyRelu { slope: 0.25 };
    let found = gated(leaky.clone(), &[&[-1.0, 1.0]], &[&[1.0; 2]], Gate::Proxy { slope: 0.5 });
    assert_eq!(found, [[0.5, 1.0]]);
    let found = gated(leaky, &[&[-1.0, 1.0]], &[&[1.0; 2]], Gate::Proxy { slope: 0.125 });
    assert_eq!(found, [[0.25, 1.0]]);
}

#[test]
fn plain_stops_gradients_where_relu_is_flat() {
    let found = gated(Activation::Relu, &[&[-2.0, 0.0, 3.0]], &[&[1.0, 2.0, 4.0]], Gate::Plain);
    assert_eq!(found, [[0.0, 0.0, 4.0]]);
}

#[test]
fn identity_passes_everything() {
    let found = gated(RELU6, &[&[-2.0, 1.0, 9.0]], &[&[1.0, -2.0, 4.0]], Gate::Identity);
    assert_eq!(found, [[1.0, -2.0, 4.0]]);
}

#[test]
fn redirect_passes_a_gradient_only_to_samples_that_get_none() {
    // The first sample has one live unit: plain. In the second all are flat: the gradient passes, but not the one that
    // would push a negative value further down.
    let z: [&[f32]; 2] = [&[-1.0, 2.0, -3.0], &[-1.0, -2.0, -3.0]];
    let g: [&[f32]; 2] = [&[1.0, 1.0, 1.0], &[5.0, -1.0, 2.0]];
    let found = gated(Activation::Relu, &z, &g, Gate::Redirect);
    assert_eq!(found, [[0.0, 1.0, 0.0], [5.0, 0.0, 2.0]]);
}

#[test]
fn redirect_does_not_push_relu6_further_up() {
    let found = gated(RELU6, &[&[7.0, 8.0, -1.0]], &[&[1.0, -1.0, 1.0]], Gate::Redirect);
    assert_eq!(found, [[0.0, -1.0, 1.0]]);
}

#[test]
fn soft_is_a_logistic_step() {
    let found = gated(Activation::Relu, &[&[0.0, 2.0, -2.0]], &[&[1.0; 3]], Gate::Soft { temperature: 2.0 });
    let expected = [0.5, 1.0 / (1.0 + (-1f32).exp()), 1.0 / (1.0 + 1f32.exp())];
    for (found, expected) in found[0].iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }
}

#[test]
fn true_proxy_is_the_plain_gradient_of_the_leaky_copy() {
    // Two layers: at z = -1 the copy's first layer outputs -0.5, so its second layer sees another pre-activation than
    // the original's, which sees 0 - 0.2.
    let mut network = Network::new(1, 1, 1);
    let relu = Op::Activation(Activation::Relu);
    let first = network.push("first", relu.clone(), &[Network::INPUT]).unwrap();
    let shift = proxygrad::network::Array::vector(vec![0.2]);
    let scale = proxygrad::network::Array::vector(vec![1.0]);
    let moved = network.push("moved", Op::Affine { scale, shift }, &[first]).unwrap();
    let second = network.push("second", relu, &[moved]).unwrap();
    let shape = network.input_shape().clone();
    let engine = Reference::new(Device::Cpu, DType::F64);
    let mut plan = engine.plan(&Arc::new(network), &[second.into()], &shape).unwrap();
    let image = Tensor::new(&[-1f64], &Device::Cpu).unwrap().reshape((1, 1, 1, 1)).unwrap();
    let one = image.ones_like().unwrap();
    let slope = 0.5;
    let mut gradient = |forward| {
        plan.forward(&image, forward).unwrap();
        let gradient = plan.backward(std::slice::from_ref(&one), Gate::Proxy { slope }).unwrap();
        gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap()[0]
    };
    assert_eq!(gradient(Forward::Proxy { slope }), 0.25, "the copy's second layer is flat: 0.5 * 0.5");
    assert_eq!(gradient(Forward::Original), 0.5, "the original's second layer is live at 0.2: 0.5 * 1");
}
