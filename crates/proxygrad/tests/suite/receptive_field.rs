//! Receptive fields against gradients: a value depends on exactly the pixels that its gradient reaches.

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Engine, Forward, Gate, Reference};
use proxygrad::network::{Activation, Binary, Network, Op, Window};

use crate::networks::{conv, rng, same};

#[test]
fn gradients_reach_the_receptive_field_and_nothing_else() {
    let mut rng = rng(3);
    let mut network = Network::new(2, 23, 26);
    let stem = conv(&mut rng, 2, 4, [3, 3], 1, Window { stride: [2, 2], ..same(3) });
    let stem = network.push("stem", stem, &[Network::INPUT]).unwrap();
    let relu = network.push("relu", Op::Activation(Activation::Relu), &[stem]).unwrap();
    let wide = conv(&mut rng, 4, 4, [3, 3], 2, Window { dilation: [1, 2], ..same(3) });
    let wide = network.push("wide", wide, &[relu]).unwrap();
    let pool =
        Op::AveragePool { window: Window { ceil: true, stride: [2, 2], ..Window::new([3, 3]) }, count_padding: false };
    let pool = network.push("pool", pool, &[wide]).unwrap();
    let side = conv(&mut rng, 4, 4, [1, 1], 1, Window { stride: [2, 2], ..Window::new([1, 1]) });
    let side = network.push("side", side, &[relu]).unwrap();
    let size = |id| network.node(id).shape.feature_map().unwrap();
    let (from, [_, height, width]) = (size(side), size(pool));
    assert!(from[1] >= height && from[2] >= width, "{from:?}");
    let cut = |axis: usize, end: usize| Op::Slice { axis, start: 0, end, step: 1 };
    let side = network.push("rows", cut(1, height), &[side]).unwrap();
    let side = network.push("columns", cut(2, width), &[side]).unwrap();
    let sum = network.push("sum", Op::Binary(Binary::Add), &[pool, side]).unwrap();
    let network = std::sync::Arc::new(network);
    let pixels: Vec<f64> = (0..2 * 23 * 26).map(|i| f64::from(i % 17) / 17.0 - 0.4).collect();
    let image = Tensor::from_vec(pixels, (1, 2, 23, 26), &Device::Cpu).unwrap();
    for target in [stem, wide, pool, sum] {
        let [channels, height, width] = network.node(target).shape.feature_map().unwrap();
        let mut plan =
            Reference::new(Device::Cpu, DType::F64).plan(&network, &[target.into()], network.input_shape()).unwrap();
        plan.forward(&image, Forward::Original).unwrap();
        for (y, x) in [(0, 0), (height / 2, width / 2), (height - 1, width - 1), (1, width - 2)] {
            let mut seed = vec![0f64; channels * height * width];
            (0..channels).for_each(|c| seed[(c * height + y) * width + x] = 1.0 + c as f64 / 7.0);
            let seed = Tensor::from_vec(seed, (1, channels, height, width), &Device::Cpu).unwrap();
            // The identity lets every path through.
            let gradient = plan.backward(&[seed], Gate::Identity).unwrap().flatten_all().unwrap();
            let gradient: Vec<f64> = gradient.to_vec1().unwrap();
            let reached: Vec<(usize, usize)> =
                (0..2 * 23 * 26).filter(|&i| gradient[i] != 0.0).map(|i| (i / 26 % 23, i % 26)).collect();
            let span = |of: &dyn Fn(&(usize, usize)) -> usize| {
                reached.iter().map(of).min().unwrap()..reached.iter().map(of).max().unwrap() + 1
            };
            let found = network.receptive_field(target, Some([y, x])).unwrap();
            assert_eq!(found, [span(&|p| p.0), span(&|p| p.1)], "{} at {y}, {x}", network.node(target).name);
        }
    }
}
