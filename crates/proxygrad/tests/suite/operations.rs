//! One small network for every operation and every variant of it; the layer under test is `target`.

use proxygrad::network::{
    Activation, Array, Axis, Binary, Coordinates, Interpolation, LocalResponse, Network, Norm, Normalize, Op, PadMode,
    Padding, Reduce, Resize, ResizeTarget, Rounding, Unary, Window,
};

use crate::networks::{array, conv, rng, same};

/// A network and what it tries.
pub struct Case {
    pub name: String,
    pub network: Network,
}

fn case(name: impl Into<String>, shape: [usize; 3], op: Op) -> Case {
    let mut network = Network::new(shape[0], shape[1], shape[2]);
    network.push("target", op, &[Network::INPUT]).unwrap();
    Case { name: name.into(), network }
}

/// Every case, or those whose names contain the environment variable `CASE`, if it is set.
pub fn all() -> Vec<Case> {
    let groups = [
        convolutions(),
        pools(),
        reductions(),
        normalizations(),
        quantizations(),
        rearrangements(),
        binaries(),
        products(),
        functions(),
        branches(),
        activated(),
    ];
    let wanted = std::env::var("CASE").unwrap_or_default();
    groups.into_iter().flatten().filter(|case| case.name.contains(&wanted)).collect()
}

/// Their derivatives are passed straight through, so that numeric ones differ.
pub fn quantizations() -> Vec<Case> {
    let quantized = |shape| case(format!("dynamic quantization of {shape:?}"), shape, Op::DynamicQuantize);
    let mut network = Network::new(5, 3, 4);
    let tokens = network.push("tokens", Op::Reshape(vec![Axis::Exact(6), Axis::Infer]), &[Network::INPUT]).unwrap();
    network.push("target", Op::DynamicQuantize, &[tokens]).unwrap();
    vec![quantized([3, 5, 7]), quantized([17, 1, 1]), Case { name: "dynamic quantization of tokens".into(), network }]
}

pub fn convolutions() -> Vec<Case> {
    let mut rng = rng(1);
    let uneven = Padding { top: 0, left: 2, bottom: 1, right: 0 };
    let plain = Window::new([1, 1]);
    let forms = [
        ("pointwise", [4, 5, 6], [1, 1], 1, plain),
        ("pointwise grouped", [4, 5, 6], [1, 1], 2, plain),
        ("pointwise strided", [4, 5, 6], [1, 1], 1, Window { stride: [2, 3], ..plain }),
        ("pointwise padded", [4, 5, 6], [1, 1], 1, Window { padding: uneven, ..plain }),
        ("3x3", [4, 5, 6], [3, 3], 1, same(3)),
        ("3x3 valid", [4, 5, 6], [3, 3], 1, plain),
        ("strided, uneven padding", [4, 7, 8], [3, 3], 1, Window { stride: [2, 2], padding: uneven, ..plain }),
        ("strides differ", [4, 7, 8], [3, 2], 1, Window { stride: [3, 1], padding: uneven, ..plain }),
        ("stride larger than kernel", [4, 8, 9], [2, 2], 1, Window { stride: [3, 4], ..plain }),
        ("dilated", [4, 8, 9], [3, 2], 1, Window { dilation: [2, 3], padding: uneven, ..plain }),
        ("dilated, strided", [4, 9, 9], [3, 3], 1, Window { dilation: [2, 2], stride: [2, 2], ..same(3) }),
        ("7x7 larger than the map", [4, 3, 4], [7, 7], 1, Window { stride: [2, 2], ..same(7) }),
        ("grouped", [4, 6, 5], [3, 3], 2, same(3)),
        ("grouped strided", [4, 7, 6], [3, 3], 2, Window { stride: [2, 2], padding: uneven, ..plain }),
        ("depthwise with multiplier", [4, 6, 5], [3, 3], 4, same(3)),
    ];
    let mut cases: Vec<Case> = forms
        .into_iter()
        .map(|(name, shape, kernel, groups, window)| {
            case(name, shape, conv(&mut rng, shape[0], 8, kernel, groups, window))
        })
        .collect();
    let depthwise = [
        ("depthwise", 3, same(3)),
        ("depthwise strided", 3, Window { stride: [2, 2], padding: uneven, ..plain }),
        ("depthwise 5x5", 5, same(5)),
        ("depthwise dilated", 3, Window { dilation: [2, 1], ..same(3) }),
    ];
    for (name, kernel, window) in depthwise {
        cases.push(case(name, [5, 7, 6], conv(&mut rng, 5, 5, [kernel, kernel], 5, window)));
    }
    cases
}

pub fn pools() -> Vec<Case> {
    let uneven = Padding { top: 1, left: 0, bottom: 0, right: 1 };
    let windows = [
        Window { stride: [2, 2], ..Window::new([2, 2]) },
        Window { stride: [2, 2], ..Window::new([3, 3]) },
        Window { stride: [1, 1], ..same(3) },
        Window { stride: [2, 3], ceil: true, padding: uneven, ..Window::new([3, 2]) },
        Window { dilation: [2, 1], stride: [1, 2], ..Window::new([2, 3]) },
        Window { stride: [3, 3], ceil: true, ..Window::new([2, 2]) },
    ];
    let forms = windows.into_iter().enumerate().flat_map(|(i, window)| {
        let average = move |count_padding| Op::AveragePool { window, count_padding };
        [
            case(format!("max-pool {i}"), [3, 7, 8], Op::MaxPool(window)),
            case(format!("average-pool {i}"), [3, 7, 8], average(false)),
            case(format!("average-pool {i}, padding counts"), [3, 7, 8], average(true)),
        ]
    });
    forms.collect()
}

pub fn reductions() -> Vec<Case> {
    let mut cases = Vec::new();
    let kinds = [
        Reduce::Mean,
        Reduce::Sum,
        Reduce::Max,
        Reduce::Min,
        Reduce::Product,
        Reduce::L1,
        Reduce::L2,
        Reduce::LogSumExp,
    ];
    for kind in kinds {
        for (axes, keep) in
            [(vec![1, 2], false), (vec![1, 2], true), (vec![0], false), (vec![2], true), (vec![0, 2], true)]
        {
            cases.push(case(format!("{kind:?} {axes:?} {keep}"), [3, 4, 5], Op::Reduce { kind, axes, keep }));
        }
    }
    for (axis, shape) in [(0, [35, 2, 3]), (2, [2, 2, 5]), (1, [19, 4, 2])] {
        cases.push(case(format!("softmax of {shape:?} along {axis}"), shape, Op::Softmax { axis }));
        cases.push(case(format!("log-softmax of {shape:?} along {axis}"), shape, Op::LogSoftmax { axis }));
    }
    for (axis, target) in
        [(1, vec![Axis::Exact(5), Axis::Infer]), (0, vec![Axis::Infer]), (0, vec![Axis::Exact(4), Axis::Infer])]
    {
        let mut network = Network::new(5, 4, 9);
        let tokens = network.push("tokens", Op::Reshape(target), &[Network::INPUT]).unwrap();
        network.push("target", Op::Softmax { axis }, &[tokens]).unwrap();
        cases.push(Case { name: format!("softmax of tokens along {axis}"), network });
    }
    cases
}

/// Every kind of norm along all sets of axes, in maps and in tensors of other ranks.
pub fn normalizations() -> Vec<Case> {
    let mut rng = rng(3);
    let mut cases = Vec::new();
    let mut add = |name: &str, before: Option<Op>, normalize: Normalize| {
        let mut network = Network::new(18, 3, 5);
        let mut at = Network::INPUT;
        if let Some(before) = before {
            at = network.push("before", before, &[at]).unwrap();
        }
        network.push("target", Op::Normalize(normalize), &[at]).unwrap();
        cases.push(Case { name: name.into(), network });
    };
    let plain = |kind, axes: &[usize], groups| {
        let epsilon = if matches!(kind, Norm::L1 | Norm::L2) { 0.0 } else { 1e-3 };
        Normalize { axes: axes.to_vec(), groups, kind, epsilon, scale: None, shift: None }
    };
    for kind in [Norm::Deviation, Norm::RootMeanSquare, Norm::L1, Norm::L2] {
        for axes in [&[0][..], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]] {
            add(&format!("{kind:?} of a map along {axes:?}"), None, plain(kind, axes, 1));
        }
        add(&format!("{kind:?} of groups"), None, plain(kind, &[0, 1, 2], 2));
    }
    let mut with = |kind, axes: &[usize], groups, scale: &[usize], shift: &[usize]| {
        let (scale, shift) = (Some(array(&mut rng, scale)), Some(array(&mut rng, shift)));
        Normalize { scale, shift, ..plain(kind, axes, groups) }
    };
    add("layer norm of channels", None, with(Norm::Deviation, &[0], 1, &[18, 1, 1], &[18, 1, 1]));
    add("layer norm of a map", None, with(Norm::Deviation, &[0, 1, 2], 1, &[18, 3, 5], &[3, 5]));
    add("layer norm of columns", None, with(Norm::Deviation, &[2], 1, &[5], &[5]));
    add("group norm", None, with(Norm::Deviation, &[0, 1, 2], 3, &[18, 1, 1], &[18, 1, 1]));
    add("group norm of rows", None, with(Norm::RootMeanSquare, &[1, 2], 3, &[1], &[3, 1]));
    add("instance norm", None, with(Norm::Deviation, &[1, 2], 1, &[18, 1, 1], &[18, 1, 1]));
    let tokens = || Some(Op::Reshape(vec![Axis::Exact(15), Axis::Infer]));
    add("layer norm of tokens", tokens(), with(Norm::Deviation, &[1], 1, &[18], &[18]));
    add("norms of tokens", tokens(), plain(Norm::L2, &[1], 1));
    add("layer norm of all tokens", tokens(), with(Norm::Deviation, &[0, 1], 1, &[18], &[15, 1]));
    add("group norm of tokens", tokens(), with(Norm::Deviation, &[1], 2, &[18], &[18]));
    add("instance norm of a sequence", tokens(), with(Norm::Deviation, &[1], 1, &[15, 1], &[15, 1]));
    add("norm over tokens", tokens(), with(Norm::L1, &[0], 1, &[18], &[15, 1]));
    add("norm of groups over tokens", tokens(), with(Norm::L2, &[0], 3, &[15, 1], &[18]));
    let four = || Some(Op::Reshape(vec![Axis::Exact(2), Axis::Exact(3), Axis::Exact(5), Axis::Infer]));
    add("norm of inner axes", four(), with(Norm::Deviation, &[1, 2], 1, &[3, 1, 1], &[9]));
    add("norm of outer and last axes", four(), with(Norm::Deviation, &[0, 2, 3], 1, &[3, 1, 1], &[3, 1, 9]));
    add("norm of separate axes", four(), with(Norm::RootMeanSquare, &[0, 2], 1, &[3, 1, 1], &[2, 1, 1, 1]));
    add("norm of a vector", Some(Op::Reshape(vec![Axis::Infer])), with(Norm::RootMeanSquare, &[0], 1, &[270], &[1]));
    let small = Normalize { epsilon: 1e6, ..plain(Norm::L2, &[0], 1) };
    add("norms below epsilon", Some(Op::Activation(Activation::Tanh)), Normalize { epsilon: 2.0, ..small });
    for (channels, groups) in [(18, 3), (32, 2), (18, 1)] {
        let mut network = Network::new(channels, 3, 5);
        let norm = Op::Normalize(plain(Norm::Deviation, &[0, 1, 2], groups));
        let norm = network.push("norm", norm, &[Network::INPUT]).unwrap();
        network.push("target", Op::Activation(Activation::Relu), &[norm]).unwrap();
        cases.push(Case { name: format!("relu of {groups} groups of {channels}"), network });
    }
    for (size, beta) in [(1, 0.75), (4, 0.75), (5, 1.2), (99, 0.5)] {
        let norm = Op::LocalResponse(LocalResponse { size, alpha: 2.0, beta, bias: 0.8 });
        cases.push(case(format!("local response of {size}"), [7, 3, 5], norm));
    }
    cases
}

pub fn rearrangements() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [PadMode::Constant(0.0), PadMode::Constant(-1.5), PadMode::Reflect, PadMode::Edge] {
        let pad = Op::Pad { before: vec![0, 1, 3], after: vec![0, 2, 0], mode };
        cases.push(case(format!("pad {mode:?}"), [2, 4, 5], pad));
    }
    let fours = vec![Axis::Exact(2), Axis::Exact(2), Axis::Infer, Axis::Copy(2)];
    cases.push(case("reshape", [4, 3, 2], Op::Reshape(vec![Axis::Exact(2), Axis::Infer, Axis::Copy(2)])));
    cases.push(case("flatten", [4, 3, 2], Op::Reshape(vec![Axis::Infer])));
    cases.push(case("reshape to four axes", [4, 3, 2], Op::Reshape(fours)));
    cases.push(case("transpose", [4, 3, 2], Op::Transpose(vec![2, 0, 1])));
    cases.push(case("slice of channels", [6, 3, 2], Op::Slice { axis: 0, start: 1, end: 6, step: 2 }));
    for axis in [0, 1, 2] {
        let indices = vec![2, 0, 2, 1].into();
        cases.push(case(format!("gather along {axis}"), [3, 4, 5], Op::Gather { axis, indices }));
    }
    cases.push(case("slice of columns", [2, 3, 7], Op::Slice { axis: 2, start: 2, end: 99, step: 3 }));
    let coordinates = [
        Coordinates::HalfPixel,
        Coordinates::HalfPixelSymmetric,
        Coordinates::HalfPixelToInteger,
        Coordinates::PytorchHalfPixel,
        Coordinates::Asymmetric,
        Coordinates::AlignCorners,
        Coordinates::Crop { start: [0.1, -0.2], end: [0.9, 1.0] },
    ];
    let interpolations = [Interpolation::Linear, Interpolation::Nearest(Rounding::Floor), Interpolation::Cubic(-0.75)];
    for coordinates in coordinates {
        for interpolation in interpolations {
            for target in [ResizeTarget::Scales([2.0, 1.5]), ResizeTarget::Sizes([3, 9])] {
                let resize = Resize::new(target, interpolation, coordinates);
                cases.push(case(format!("{resize:?}"), [2, 4, 6], Op::Resize(resize)));
            }
        }
    }
    for interpolation in interpolations {
        for (antialias, exclude_outside) in [(true, false), (false, true), (true, true)] {
            let plain = Resize::new(ResizeTarget::Sizes([3, 2]), interpolation, Coordinates::HalfPixel);
            let resize = Resize { antialias, exclude_outside, ..plain };
            cases.push(case(format!("{resize:?}"), [2, 7, 9], Op::Resize(resize)));
        }
    }
    for axis in [0, 1, 2] {
        let mut network = Network::new(2, 3, 4);
        let scale = Op::Affine { scale: Array::vector(vec![2.0, -1.0]), shift: Array::vector(vec![0.5, 0.25]) };
        let other = network.push("other", scale, &[Network::INPUT]).unwrap();
        network.push("target", Op::Concat { axis }, &[other, Network::INPUT]).unwrap();
        cases.push(Case { name: format!("concat along {axis}"), network });
    }
    cases
}

pub fn binaries() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Min, Binary::Max, Binary::Pow] {
        let mut network = Network::new(3, 4, 2);
        let gate = Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: true };
        let gate = network.push("gate", gate, &[Network::INPUT]).unwrap();
        let gate = network.push("positive", Op::Activation(Activation::Softplus), &[gate]).unwrap();
        // A negative number has no power that depends smoothly on the exponent.
        let smooth = if kind == Binary::Pow { Op::Unary(Unary::Exp) } else { Op::Unary(Unary::Sin) };
        let map = network.push("map", smooth, &[Network::INPUT]).unwrap();
        network.push("target", Op::Binary(kind), &[map, gate]).unwrap();
        cases.push(Case { name: format!("{kind:?} map and channel"), network });

        let mut network = Network::new(3, 4, 2);
        let positive = network.push("positive", Op::Activation(Activation::Softplus), &[Network::INPUT]).unwrap();
        let second = if kind == Binary::Pow { 2.0 } else { -2.0 };
        let row = Op::Constant(Array::new([2], vec![0.5, second]).unwrap());
        let row = network.push("row", row, &[]).unwrap();
        network.push("target", Op::Binary(kind), &[row, positive]).unwrap();
        cases.push(Case { name: format!("{kind:?} constant and map"), network });

        let mut network = Network::new(3, 4, 2);
        let positive = network.push("positive", Op::Activation(Activation::Softplus), &[Network::INPUT]).unwrap();
        network.push("target", Op::Binary(kind), &[positive, Network::INPUT]).unwrap();
        cases.push(Case { name: format!("{kind:?} of maps"), network });

        // Wide enough for whole and partial vectors.
        let forms = [("rows and columns", vec![2], vec![1]), ("map and positions", vec![], vec![0])];
        for (name, left, right) in forms {
            let mut network = Network::new(21, 3, 4);
            let mut side = |name: &str, axes: Vec<usize>| {
                let mean = Op::Reduce { kind: Reduce::Mean, axes: axes.clone(), keep: true };
                let from = Network::INPUT;
                let from = if axes.is_empty() { from } else { network.push(name, mean, &[from]).unwrap() };
                // Far from 0, also in the proxy: it may be a divisor.
                let channels = if axes == [0] { 1 } else { 21 };
                let [scale, shift] = [0.5, 2.0].map(|value| Array::vector(vec![value; channels]));
                network.push(format!("{name} positive"), Op::Affine { scale, shift }, &[from]).unwrap()
            };
            let sides = [side("left", left), side("right", right)];
            network.push("target", Op::Binary(kind), &sides).unwrap();
            cases.push(Case { name: format!("{kind:?} {name}"), network });
        }
    }
    for kind in [Binary::Less, Binary::LessOrEqual, Binary::Equal] {
        for mixed in [false, true] {
            let mut network = Network::new(3, 4, 2);
            let channel = Op::Constant(Array::new([3, 1, 1], vec![0.2, -0.1, 0.4]).unwrap());
            let channel = network.push("channel", channel, &[]).unwrap();
            let abs = network.push("abs", Op::Unary(Unary::Abs), &[Network::INPUT]).unwrap();
            let other = if mixed { channel } else { abs };
            let condition = network.push("condition", Op::Binary(kind), &[other, Network::INPUT]).unwrap();
            network.push("target", Op::Select, &[condition, channel, Network::INPUT]).unwrap();
            cases.push(Case { name: format!("selection by {kind:?} {mixed}"), network });
        }
    }
    let mut network = Network::new(3, 4, 2);
    let mask = Op::Constant(Array::new([4, 1], vec![1.0, 0.0, 0.0, 2.0]).unwrap());
    let mask = network.push("mask", mask, &[]).unwrap();
    let far = network.push("far", Op::Constant(Array::new([], vec![f32::NEG_INFINITY]).unwrap()), &[]).unwrap();
    let masked = network.push("masked", Op::Select, &[mask, Network::INPUT, far]).unwrap();
    network.push("target", Op::Softmax { axis: 1 }, &[masked]).unwrap();
    cases.push(Case { name: "selection by a mask".into(), network });
    cases
}

/// Elementwise functions, each of values in its domain.
pub fn functions() -> Vec<Case> {
    let everywhere = [
        Unary::Exp,
        Unary::Abs,
        Unary::Erf,
        Unary::Sin,
        Unary::Cos,
        Unary::Tan,
        Unary::Atan,
        Unary::Sinh,
        Unary::Cosh,
        Unary::Asinh,
        Unary::Power(2.0),
        Unary::Power(3.0),
    ];
    let mut cases: Vec<Case> =
        everywhere.into_iter().map(|function| case(function.name(), [3, 4, 5], Op::Unary(function))).collect();
    // Positive numbers, numbers between -1 and 1, and numbers above 1; also where the proxy adds a line.
    let positive = [Unary::Log, Unary::Sqrt, Unary::Power(-1.0), Unary::Power(0.3), Unary::Power(2.5)];
    for (bound, shift, functions) in [
        (Activation::Softplus, 0.5, &positive[..]),
        (Activation::Tanh, 0.0, &[Unary::Asin, Unary::Acos, Unary::Atanh]),
        (Activation::Softplus, 1.5, &[Unary::Acosh, Unary::Log]),
    ] {
        for &function in functions {
            let mut network = Network::new(3, 4, 5);
            let bounded = network.push("bounded", Op::Activation(bound.clone()), &[Network::INPUT]).unwrap();
            let shift = Op::Affine { scale: Array::vector(vec![0.6; 3]), shift: Array::vector(vec![shift; 3]) };
            let shifted = network.push("shifted", shift, &[bounded]).unwrap();
            network.push("target", Op::Unary(function), &[shifted]).unwrap();
            cases.push(Case { name: format!("{} of {}", function.name(), bound.name()), network });
        }
    }
    // Steps have no gradient of their own.
    for function in [Unary::Sign, Unary::Floor, Unary::Ceil, Unary::Round, Unary::Power(0.0)] {
        let mut network = Network::new(3, 4, 5);
        let scale = Op::Affine { scale: Array::vector(vec![3.0; 3]), shift: Array::vector(vec![0.1; 3]) };
        let scaled = network.push("scaled", scale, &[Network::INPUT]).unwrap();
        let step = network.push("step", Op::Unary(function), &[scaled]).unwrap();
        network.push("target", Op::Binary(Binary::Mul), &[step, scaled]).unwrap();
        cases.push(Case { name: format!("{} times its input", function.name()), network });
    }
    cases
}

/// Matrix products with weights, and of two maps.
pub fn products() -> Vec<Case> {
    let mut rng = rng(4);
    let mut cases = Vec::new();
    // Shapes of 60 values.
    for shape in [&[60][..], &[5, 12], &[20, 3], &[3, 4, 5], &[2, 3, 2, 5], &[1, 1, 60]] {
        for out in [1, 19] {
            let mut network = Network::new(3, 4, 5);
            let exact = shape.iter().map(|&length| Axis::Exact(length)).collect();
            let x = network.push("x", Op::Reshape(exact), &[Network::INPUT]).unwrap();
            let weight = array(&mut rng, &[out, shape[shape.len() - 1]]);
            let dense = Op::Dense { weight, bias: (out > 1).then(|| array(&mut rng, &[out])) };
            network.push("target", dense, &[x]).unwrap();
            cases.push(Case { name: format!("dense of {shape:?} to {out}"), network });
        }
    }
    // Both factors depend on the image: they are reshaped and transposed parts of it.
    let pairs: [(&[usize], &[usize]); 8] = [
        (&[4, 15], &[15, 4]),
        (&[3, 4, 5], &[3, 5, 4]),
        (&[2, 5, 6], &[1, 6, 10]),
        (&[1, 5, 12], &[5, 12, 1]),
        (&[12, 5], &[2, 3, 5, 2]),
        (&[3, 1, 4, 5], &[4, 5, 3]),
        (&[1, 60], &[60, 1]),
        (&[60, 1], &[1, 60]),
    ];
    for (a, b) in pairs {
        let mut network = Network::new(3, 4, 5);
        let exact = |shape: &[usize]| Op::Reshape(shape.iter().map(|&length| Axis::Exact(length)).collect());
        let first = network.push("first", exact(a), &[Network::INPUT]).unwrap();
        let turned = network.push("turned", Op::Transpose(vec![2, 0, 1]), &[Network::INPUT]).unwrap();
        let second = network.push("second", exact(b), &[turned]).unwrap();
        network.push("target", Op::MatMul, &[first, second]).unwrap();
        cases.push(Case { name: format!("product of {a:?} and {b:?}"), network });
    }
    // A constant factor, on both sides, of a map and of all matrices.
    for (shape, first) in [(&[5, 7][..], false), (&[3, 5, 7], false), (&[7, 4], true), (&[3, 7, 4], true)] {
        let mut network = Network::new(3, 4, 5);
        let constant = network.push("constant", Op::Constant(array(&mut rng, shape)), &[]).unwrap();
        let inputs = if first { [constant, Network::INPUT] } else { [Network::INPUT, constant] };
        network.push("target", Op::MatMul, &inputs).unwrap();
        cases.push(Case { name: format!("product with a constant {shape:?}, first: {first}"), network });
    }
    cases.extend(attentions());
    cases.push(channels_last_block());
    cases.push(mixed_positions());
    cases
}

/// A block of ConvNeXt: dense layers of a map `[H,W,C]` between convolutions, with a residual.
fn channels_last_block() -> Case {
    let mut rng = rng(6);
    let mut network = Network::new(3, 5, 4);
    let stem = conv(&mut rng, 3, 6, [3, 3], 1, same(3));
    let stem = network.push("stem", stem, &[Network::INPUT]).unwrap();
    let depthwise = conv(&mut rng, 6, 6, [3, 3], 6, same(3));
    let depthwise = network.push("depthwise", depthwise, &[stem]).unwrap();
    let last = network.push("last", Op::Transpose(vec![1, 2, 0]), &[depthwise]).unwrap();
    let mut dense = |outputs: usize, inputs: usize| {
        let (weight, bias) = (array(&mut rng, &[outputs, inputs]), array(&mut rng, &[outputs]));
        Op::Dense { weight, bias: Some(bias) }
    };
    let wide = network.push("wide", dense(20, 6), &[last]).unwrap();
    let relu = network.push("relu", Op::Activation(Activation::LeakyRelu { slope: 0.1 }), &[wide]).unwrap();
    let gelu = network.push("gelu", Op::Activation(Activation::Gelu { tanh: false }), &[relu]).unwrap();
    let narrow = network.push("narrow", dense(6, 20), &[gelu]).unwrap();
    let sum = network.push("sum", Op::Binary(Binary::Add), &[narrow, last]).unwrap();
    let first = network.push("first", Op::Transpose(vec![2, 0, 1]), &[sum]).unwrap();
    let joined = network.push("joined", Op::Binary(Binary::Add), &[stem, first]).unwrap();
    let head = conv(&mut rng, 6, 2, [2, 3], 1, Window::new([2, 3]));
    network.push("target", head, &[joined]).unwrap();
    Case { name: "dense layers of a map with channels last".into(), network }
}

/// A dense layer over the columns of a map, and slopes for the positions of tokens.
fn mixed_positions() -> Case {
    let mut rng = rng(7);
    let mut network = Network::new(3, 4, 5);
    let columns = Op::Dense { weight: array(&mut rng, &[6, 5]), bias: Some(array(&mut rng, &[6])) };
    let columns = network.push("columns", columns, &[Network::INPUT]).unwrap();
    let pool = network.push("pool", Op::MaxPool(same(3)), &[columns]).unwrap();
    let tokens = Op::Reshape(vec![Axis::Exact(4), Axis::Exact(18)]);
    let tokens = network.push("tokens", tokens, &[pool]).unwrap();
    let slopes = Array::vector(vec![0.05, 0.4, -0.3, 0.7]);
    let sloped = network.push("sloped", Op::Activation(Activation::PRelu { slopes }), &[tokens]).unwrap();
    let dense = Op::Dense { weight: array(&mut rng, &[3, 18]), bias: None };
    network.push("target", dense, &[sloped]).unwrap();
    Case { name: "dense layers whose positions are mixed with channels".into(), network }
}

/// Attention as exporters write it: queries, keys and values of several heads from one matrix, scaled or masked scores.
fn attentions() -> Vec<Case> {
    let mut rng = rng(5);
    // Tokens, heads and width of a head.
    let forms = [("attention", [5, 2, 6], false), ("masked attention", [7, 3, 2], true)];
    let build = |(name, [tokens, heads, width], masked): (&str, [usize; 3], bool)| {
        let mut network = Network::new(1, tokens, heads * width);
        let mut push = |name: &str, op: Op, inputs: &[_]| network.push(name, op, inputs).unwrap();
        let exact = |shape: &[usize]| Op::Reshape(shape.iter().map(|&length| Axis::Exact(length)).collect());
        let x = push("x", exact(&[tokens, heads * width]), &[Network::INPUT]);
        let (weight, bias) =
            (array(&mut rng, &[3 * heads * width, heads * width]), array(&mut rng, &[3 * heads * width]));
        let qkv = push("qkv", Op::Dense { weight, bias: Some(bias) }, &[x]);
        let qkv = push("split", exact(&[tokens, 3, heads, width]), &[qkv]);
        let qkv = push("by-head", Op::Transpose(vec![1, 2, 0, 3]), &[qkv]);
        let [q, k, v] = ["q", "k", "v"].map(|name| {
            let start = ["q", "k", "v"].iter().position(|&part| part == name).unwrap();
            let part = push(&format!("{name}-part"), Op::Slice { axis: 0, start, end: start + 1, step: 1 }, &[qkv]);
            push(name, exact(&[heads, tokens, width]), &[part])
        });
        let scale = |factor: f32| Op::Affine {
            scale: Array::vector(vec![factor; heads]),
            shift: Array::vector(vec![0.0; heads]),
        };
        let q = push("scaled", scale(0.7), &[q]);
        let turned = push("turned", Op::Transpose(vec![0, 2, 1]), &[k]);
        let mut scores = push("scores", Op::MatMul, &[q, turned]);
        if masked {
            let mask = push("mask", Op::Constant(array(&mut rng, &[tokens, tokens])), &[]);
            scores = push("masked", Op::Binary(Binary::Add), &[scores, mask]);
        }
        let weights = push("softmax", Op::Softmax { axis: 2 }, &[scores]);
        let heads_out = push("weighed", Op::MatMul, &[weights, v]);
        let joined = push("by-token", Op::Transpose(vec![1, 0, 2]), &[heads_out]);
        let joined = push("joined", exact(&[tokens, heads * width]), &[joined]);
        let (weight, bias) = (array(&mut rng, &[4, heads * width]), array(&mut rng, &[4]));
        push("target", Op::Dense { weight, bias: Some(bias) }, &[joined]);
        Case { name: name.into(), network }
    };
    forms.map(build).into()
}

/// Branches that join, and one value read twice.
pub fn branches() -> Vec<Case> {
    let mut rng = rng(2);
    let mut network = Network::new(3, 5, 5);
    let left = conv(&mut rng, 3, 4, [3, 3], 1, same(3));
    let left = network.push("left", left, &[Network::INPUT]).unwrap();
    let scale = Op::Affine { scale: array(&mut rng, &[3]), shift: array(&mut rng, &[3]) };
    let right = network.push("right", scale, &[Network::INPUT]).unwrap();
    let constant = network.push("constant", Op::Constant(array(&mut rng, &[1, 5, 5])), &[]).unwrap();
    let joined = network.push("joined", Op::Concat { axis: 0 }, &[left, constant, right, left]).unwrap();
    network.push("target", Op::Binary(Binary::Mul), &[joined, joined]).unwrap();
    vec![Case { name: "branches".into(), network }]
}

pub fn activated() -> Vec<Case> {
    let case = |activation: Activation| case(activation.name(), [3, 4, 5], Op::Activation(activation));
    activations().into_iter().map(case).collect()
}

/// One of each kind, with parameters that are not the usual ones.
pub fn activations() -> Vec<Activation> {
    vec![
        Activation::Relu,
        Activation::LeakyRelu { slope: 0.15 },
        Activation::PRelu { slopes: Array::vector(vec![0.05, 0.4, -0.3]) },
        Activation::Clip { min: -0.5, max: 0.8 },
        Activation::Clip { min: f32::NEG_INFINITY, max: 0.8 },
        Activation::Clip { min: -0.2, max: f32::INFINITY },
        Activation::HardSigmoid { alpha: 0.4, beta: 0.6 },
        Activation::HardSwish,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Silu,
        Activation::QuickGelu,
        Activation::Gelu { tanh: true },
        Activation::Gelu { tanh: false },
        Activation::Elu { alpha: 0.7 },
        Activation::Selu,
        Activation::Mish,
        Activation::Softplus,
    ]
}
