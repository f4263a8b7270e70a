//! The evaluation of every operation by its definition agrees with the reference engine.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Engine, Forward, Reference};
use proxygrad::network::{Network, NodeId, Values};

use crate::networks::{rng, uniform};
use crate::operations;
use crate::tensors::values;

/// The values of `target` for an image.
fn evaluate(network: &Network, image: Values, target: NodeId) -> Values {
    let mut known = vec![image];
    for node in &network.nodes()[1..=target.0] {
        let inputs: Vec<&Values> = node.inputs.iter().map(|input| &known[input.0]).collect();
        known.push(node.op.evaluate(&inputs).unwrap());
    }
    known.swap_remove(target.0)
}

#[test]
fn every_operation_is_evaluated_as_the_engine_computes_it() {
    for operations::Case { name, network } in operations::all() {
        let shape = network.input_shape().clone();
        let image: Vec<f64> = uniform(&mut rng(23), shape.elements()).into_iter().map(|v| 2.0 * f64::from(v)).collect();
        let tensor = Tensor::from_slice(&image, [&[1], &shape[..]].concat(), &Device::Cpu).unwrap();
        let target = network.find("target").unwrap();
        let found = evaluate(&network, Values::new(shape.clone(), image).unwrap(), target);
        let engine = Reference::new(Device::Cpu, DType::F64);
        let mut plan = engine.plan(&Arc::new(network), &[target.into()], &shape).unwrap();
        let expected = plan.forward(&tensor, Forward::Original).unwrap().remove(0);
        assert_eq!(found.shape()[..], expected.dims()[1..], "{name}");
        for (i, (found, expected)) in found.data().iter().zip(values(&expected)).enumerate() {
            // The engine keeps divisors and weights of interpolations in f32.
            let is_close = *found == expected || (found - expected).abs() <= 1e-6 * (1.0 + expected.abs());
            assert!(is_close, "{name}: value {i} is {found}, not {expected}");
        }
    }
}

#[test]
fn values_need_a_shape_of_their_number() {
    assert!(Values::new([2, 3].into(), vec![0.0; 5]).is_err());
    assert!(Values::new([2, 3].into(), vec![0.0; 6]).is_ok());
}
