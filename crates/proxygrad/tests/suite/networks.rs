//! Small networks with seeded weights.

use proxygrad::network::{Activation, Array, Conv, Network, NodeId, Op, Padding, Window};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Values evenly drawn from [-1, 1).
pub fn uniform(rng: &mut impl Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect()
}

pub fn array(rng: &mut impl Rng, shape: &[usize]) -> Array {
    Array::new(shape, uniform(rng, shape.iter().product())).unwrap()
}

pub fn conv(rng: &mut impl Rng, from: usize, to: usize, kernel: [usize; 2], groups: usize, window: Window) -> Op {
    let weight = array(rng, &[to, from / groups, kernel[0], kernel[1]]);
    let bias = Some(array(rng, &[to]));
    Op::Conv(Conv { weight, bias, window: Window { kernel, ..window }, groups })
}

/// `kernel` with stride 1 and as much padding on each side.
pub fn same(kernel: usize) -> Window {
    let pad = kernel / 2;
    let padding = Padding { top: pad, left: pad, bottom: pad, right: pad };
    Window { padding, ..Window::new([kernel, kernel]) }
}

/// conv - relu - strided conv - relu - mean - dense: a small classifier with layers `relu1`, `relu2`, `logits`.
pub fn classifier(seed: u64, activation: &Activation) -> Network {
    let mut rng = rng(seed);
    let mut network = Network::new(2, 9, 8);
    let conv1 = conv(&mut rng, 2, 6, [3, 3], 1, same(3));
    let conv1 = network.push("conv1", conv1, &[Network::INPUT]).unwrap();
    let relu1 = network.push("relu1", Op::Activation(activation.clone()), &[conv1]).unwrap();
    let conv2 = conv(&mut rng, 6, 5, [3, 3], 1, Window { stride: [2, 2], ..same(3) });
    let conv2 = network.push("conv2", conv2, &[relu1]).unwrap();
    let relu2 = network.push("relu2", Op::Activation(activation.clone()), &[conv2]).unwrap();
    let pooled = Op::Reduce { kind: proxygrad::network::Reduce::Mean, axes: vec![1, 2], keep: false };
    let pool = network.push("pool", pooled, &[relu2]).unwrap();
    let dense = Op::Dense { weight: array(&mut rng, &[4, 5]), bias: Some(array(&mut rng, &[4])) };
    let logits: NodeId = network.push("logits", dense, &[pool]).unwrap();
    network.set_outputs(vec![logits]);
    network
}
