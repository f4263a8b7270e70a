//! Lowering, activation fusion and batch norm folding.

use super::*;
use crate::network::onnx::graph_builder::GraphBuilder;
use crate::network::{Activation, Array, Network, Op};

fn op<'n>(imported: &'n Imported, name: &str) -> &'n Op {
    &imported.network.node(imported.network.stored(name).unwrap()).op
}

fn batch_norm(file: File) -> File {
    file.constant("gamma", &[2], &[2.0, 3.0])
        .constant("beta", &[2], &[0.5, -0.5])
        .constant("mean", &[2], &[0.25, 0.5])
        .constant("var", &[2], &[1.0, 4.0])
        .node("BatchNormalization", "bn", "a, gamma, beta, mean, var -> b", &[float("epsilon", 0.0)])
}

#[test]
fn a_batch_normalization_becomes_a_part_of_the_convolution_before_it() {
    let file = File::new([1, 2, 2]).constant("w", &[2, 1, 1, 1], &[1.0, 10.0]).constant("bias", &[2], &[1.0, 2.0]);
    let file = batch_norm(file.node("Conv", "conv", "image, w, bias -> a", &[])).output("b");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "b conv");
    let Op::Conv(conv) = op(&imported, "b") else { panic!() };
    assert_eq!(conv.weight.data(), [2.0, 15.0]);
    assert_eq!(conv.bias.as_ref().unwrap().data(), [1.0 * 2.0 + 0.5 - 0.5, 2.0 * 1.5 - 0.5 - 0.75]);
}

#[test]
fn a_batch_normalization_of_a_shared_convolution_stays() {
    let file = File::new([1, 2, 2]).constant("w", &[2, 1, 1, 1], &[1.0, 10.0]);
    let file = batch_norm(file.node("Conv", "conv", "image, w -> a", &[])).node("Add", "add", "a, b -> c", &[]);
    assert_eq!(layers(&file.clone().output("c").import().unwrap()), "conv conv, bn affine, c add");
    // An output counts as a reader.
    assert_eq!(layers(&file.output("a").output("b").import().unwrap()), "a conv, b affine");
}

#[test]
fn a_batch_normalization_of_the_image_is_an_affine_layer() {
    let file = File::new([2, 2, 2]).node("Relu", "relu", "image -> a", &[]);
    let imported = batch_norm(file).output("b").import().unwrap();
    let Op::Affine { scale, shift } = op(&imported, "b") else { panic!() };
    assert_eq!(scale.data(), [2.0, 1.5]);
    assert_eq!(shift.data(), [0.0, -1.25]);
}

#[test]
fn matrix_products_become_dense_layers() {
    let file = File::new([3, 1, 1])
        .constant("w", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .constant("bias", &[2], &[0.5, 0.25])
        .node("Flatten", "flat", "image -> a", &[])
        .node("MatMul", "fc", "a, w -> b", &[])
        .node("Add", "plus", "b, bias -> c", &[])
        .output("c");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "flat reshape, c dense");
    let Op::Dense { weight, bias } = op(&imported, "c") else { panic!() };
    assert_eq!((weight.shape(), weight.data()), (&[2, 3][..], &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0][..]));
    assert_eq!(bias.as_ref().unwrap().data(), [0.5, 0.25]);
}

#[test]
fn factors_and_summands_along_the_last_axis_become_a_part_of_the_matrix_product_before_them() {
    let file = File::new([3, 2, 2])
        .constant("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])
        .constant("bias", &[2], &[0.5, 0.25])
        .constant("gamma", &[1, 1, 2], &[2.0, -1.0])
        .constant("rows", &[3, 1, 1], &[1.0, 2.0, 3.0])
        .node("MatMul", "fc", "image, w -> a", &[])
        .node("Add", "plus", "bias, a -> b", &[])
        .node("Mul", "scale", "b, gamma -> c", &[])
        .node("Mul", "by_channel", "c, rows -> d", &[]);
    let imported = file.output("d").import().unwrap();
    assert_eq!(layers(&imported), "fc dense, d affine");
    let Op::Dense { weight, bias } = op(&imported, "fc") else { panic!() };
    assert_eq!(weight.data(), [2.0, 6.0, -2.0, -4.0]);
    assert_eq!(bias.as_ref().unwrap().data(), [1.0, -0.25]);
}

#[test]
fn relus_are_known_in_all_their_forms() {
    let infinite = File::new([1, 2, 2]).opset(9).node("Clip", "clip", "image -> y", &[float("min", 0.0)]).output("y");
    assert_eq!(layers(&infinite.import().unwrap()), "y relu");
    let largest = [float("min", 0.0), float("max", f32::MAX)];
    let largest = File::new([1, 2, 2]).opset(6 + 3).node("Clip", "clip", "image -> y", &largest).output("y");
    assert_eq!(layers(&largest.import().unwrap()), "y relu");
    let zero = File::new([1, 2, 2]).constant("zero", &[], &[0.0]);
    let maximum = zero.clone().node("Max", "max", "image, zero -> y", &[]).output("y");
    assert_eq!(layers(&maximum.import().unwrap()), "y relu");
    let six = zero.constant("six", &[], &[6.0]).node("Clip", "clip", "image, zero, six -> y", &[]).output("y");
    assert_eq!(layers(&six.import().unwrap()), "y relu6");
}

/// `0.5 * x * (1 + erf(x / sqrt(2)))`, whose last product is called `y`.
fn gelu(divisor: f32) -> File {
    File::new([1, 2, 2])
        .constant("divisor", &[], &[divisor])
        .constant("one", &[], &[1.0])
        .constant("half", &[], &[0.5])
        .node("Relu", "relu", "image -> x", &[])
        .node("Div", "div", "x, divisor -> a", &[])
        .node("Erf", "erf", "a -> b", &[])
        .node("Add", "add", "b, one -> c", &[])
        .node("Mul", "mul", "x, c -> d", &[])
        .node("Mul", "half", "d, half -> y", &[])
}

#[test]
fn a_gelu_in_pieces_is_one_activation() {
    let imported = gelu(std::f32::consts::SQRT_2).output("y").import().unwrap();
    assert_eq!(layers(&imported), "relu relu, y gelu");
    let Op::Activation(activation) = op(&imported, "y") else { panic!() };
    assert_eq!(*activation, Activation::Gelu { tanh: false });
}

#[test]
fn a_gelu_in_pieces_is_no_failure_beside_a_real_one() {
    let file = gelu(std::f32::consts::SQRT_2).node("LSTM", "rnn", "y -> z", &[]).output("z");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "relu relu, half gelu");
    let unsupported: Vec<String> = imported.unsupported.iter().map(ToString::to_string).collect();
    assert_eq!(unsupported, ["rnn (LSTM): the operation is not supported"]);
}

#[test]
fn what_only_looks_like_a_gelu_stays_in_pieces() {
    let near = gelu(1.5).output("y").import().unwrap();
    assert_eq!(layers(&near), "relu relu, div affine, erf erf, add affine, mul mul, y affine");
    // Inner values are read.
    let read = gelu(std::f32::consts::SQRT_2).output("y").output("c").import().unwrap();
    assert_eq!(layers(&read), "relu relu, div affine, erf erf, c affine, mul mul, y affine");
}

#[test]
fn the_pieces_of_an_activation_stay_when_they_are_read_elsewhere() {
    let file = File::new([1, 2, 2])
        .node("Relu", "relu", "image -> x", &[])
        .node("Sigmoid", "gate", "x -> s", &[])
        .node("Mul", "mul", "x, s -> y", &[]);
    assert_eq!(layers(&file.clone().output("y").import().unwrap()), "relu relu, y silu");
    assert_eq!(layers(&file.output("y").output("s").import().unwrap()), "relu relu, s sigmoid, y mul");
}

#[test]
fn a_hard_swish_is_known_in_all_its_forms() {
    let file = || File::new([1, 2, 2]).node("Tanh", "tanh", "image -> x", &[]);
    let sixth = [float("alpha", 1.0 / 6.0), float("beta", 0.5)];
    let by_gate = file().node("HardSigmoid", "gate", "x -> g", &sixth).node("Mul", "mul", "g, x -> y", &[]).output("y");
    assert_eq!(layers(&by_gate.import().unwrap()), "tanh tanh, y hard-swish");
    let by_clip = file()
        .constant("three", &[], &[3.0])
        .constant("zero", &[], &[0.0])
        .constant("six", &[], &[6.0])
        .node("Add", "add", "x, three -> a", &[])
        .node("Clip", "clip", "a, zero, six -> b", &[])
        .node("Mul", "mul", "x, b -> c", &[])
        .node("Div", "div", "c, six -> y", &[])
        .output("y");
    assert_eq!(layers(&by_clip.import().unwrap()), "tanh tanh, y hard-swish");
}

#[test]
fn an_expanded_gate_is_multiplied_unexpanded() {
    let file = File::new([2, 4, 4])
        .node("GlobalAveragePool", "pool", "image -> p", &[])
        .node("Shape", "shape", "image -> s", &[])
        .node("Expand", "expand", "p, s -> e", &[])
        .node("Mul", "mul", "image, e -> y", &[])
        .output("y");
    assert_eq!(layers(&file.import().unwrap()), "pool mean, y mul");
}

#[test]
fn a_file_that_reads_channels_last_costs_no_turning() {
    let to_front = [ints("perm", &[0, 3, 1, 2])];
    let to_back = [ints("perm", &[0, 2, 3, 1])];
    let mut file = File::new([1, 1, 1])
        .node("Transpose", "t1", "image -> a", &to_front)
        .node("Relu", "relu", "a -> b", &[])
        .node("Transpose", "t2", "b -> c", &to_back)
        .node("Transpose", "t3", "c -> d", &to_front)
        .node("Tanh", "tanh", "d -> y", &[])
        .output("y");
    file.graph().input[0] = value_info("image", data_type::FLOAT, [1, 5, 4, 3].map(dimension).to_vec());
    let imported = file.import().unwrap();
    assert_eq!((imported.input, imported.channels_last), ([3, 5, 4], true));
    assert_eq!(layers(&imported), "relu relu, y tanh");
    assert_eq!(shape(&imported, "y"), [3, 5, 4]);
}

#[test]
fn nodes_that_no_output_needs_are_left_out() {
    let file = File::new([1, 2, 2])
        .node("Relu", "relu", "image -> y", &[])
        .node("NonMaxSuppression", "unused", "y -> z", &[])
        .output("y");
    assert_eq!(layers(&file.import().unwrap()), "y relu");
}

#[test]
fn the_part_below_a_target_is_only_what_it_needs() {
    let file = File::new([2, 8, 8])
        .kernel("w1", 2, 2, 3)
        .kernel("w2", 2, 2, 1)
        .kernel("w3", 2, 2, 1)
        .node("Conv", "stem", "image, w1 -> a", &[])
        .node("Conv", "left", "a, w2 -> b", &[])
        .node("Conv", "right", "a, w3 -> c", &[])
        .node("Relu", "left_relu", "b -> d", &[])
        .node("Concat", "fire", "d, c -> e", &[int("axis", 1)])
        .node("GlobalAveragePool", "pool", "e -> f", &[])
        .output("f");
    let network = file.import().unwrap().network;
    let below = |target: &str| {
        let order = network.below(&[network.find(target).unwrap()]);
        order.iter().filter(|&&id| id != Network::INPUT).map(|&id| network.node(id).name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(below("left_relu"), ["stem", "left", "left_relu"]);
    assert_eq!(below("right"), ["stem", "right"]);
    assert_eq!(below("fire"), ["stem", "left", "right", "left_relu", "fire"]);
}

#[test]
fn stored_types_become_floats() {
    let half = TensorProto { name: "w".into(), data_type: data_type::FLOAT16, dims: vec![4], ..Default::default() };
    let read = |tensor: &TensorProto| {
        super::super::stored_tensor::read(tensor, &ExternalData::default()).unwrap().array().unwrap().data().to_vec()
    };
    let bits = [0x3c00u16, 0xc000, 0x0001, 0x7bff];
    let values = [1.0, -2.0, 2f32.powi(-24), 65504.0];
    let raw_data = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
    assert_eq!(read(&TensorProto { raw_data, ..half.clone() }), values);
    let int32_data = bits.iter().map(|&b| b.into()).collect();
    assert_eq!(read(&TensorProto { int32_data, ..half.clone() }), values);
    let brain = TensorProto { data_type: data_type::BFLOAT16, dims: vec![2], ..half.clone() };
    assert_eq!(read(&TensorProto { raw_data: vec![0x80, 0x3f, 0x20, 0xc1], ..brain }), [1.0, -10.0]);
    let double = TensorProto { data_type: data_type::DOUBLE, dims: vec![1], ..half };
    assert_eq!(read(&TensorProto { raw_data: 0.1f64.to_le_bytes().to_vec(), ..double.clone() }), [0.1]);
    assert_eq!(read(&TensorProto { double_data: vec![0.1], ..double }), [0.1]);
}

#[test]
fn slopes_of_a_prelu_are_parameters() {
    let mut builder = GraphBuilder::new([3, 2, 2]);
    let mut prelu = |slopes: [f32; 3]| {
        let slopes = Array::vector(slopes);
        builder.push(Op::Activation(Activation::PRelu { slopes }), &[GraphBuilder::INPUT]).unwrap()
    };
    let (finite, diverged) = (prelu([0.1, 0.2, 0.3]), prelu([0.1, f32::NAN, 0.3]));
    assert_eq!(builder.node(finite).parameter_count(), 3);
    assert!(builder.node(finite).is_finite());
    assert!(!builder.node(diverged).is_finite());
}
