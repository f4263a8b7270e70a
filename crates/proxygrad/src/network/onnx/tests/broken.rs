//! Files that cannot be imported, and the error messages for them.

use super::*;

fn classifier() -> File {
    File::new([2, 6, 6])
        .kernel("w", 3, 2, 3)
        .constant("fc", &[3, 2], &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
        .node("Conv", "conv", "image, w -> a", &[])
        .node("Relu", "relu", "a -> b", &[])
        .node("GlobalAveragePool", "pool", "b -> c", &[])
        .node("Flatten", "flat", "c -> d", &[])
        .node("Gemm", "gemm", "d, fc -> logits", &[])
        .output("logits")
}

fn error(file: &File) -> String {
    file.import().expect_err("should not import").to_string()
}

#[track_caller]
fn assert_says(file: &File, expected: &str) {
    let error = error(file);
    assert!(error.contains(expected), "{error}\n  should say\n{expected}");
}

#[test]
fn files_that_are_not_onnx() {
    assert!(classifier().import().is_ok());
    let says = |bytes: &[u8]| import(bytes).unwrap_err().to_string();
    assert_eq!(says(b""), "not an ONNX model: the file is empty");
    assert_eq!(says(b"\x89PNG\r\n\x1a\n"), "not an ONNX model: the file is a PNG image");
    assert_eq!(says(b"\x08\x07\x12\x7fpytorch"), "not an ONNX model: the file is truncated or damaged");
    assert_eq!(says(b"\x08\x07"), "not an ONNX model: the file contains no graph");
    let frozen = b"\x0a\x14\x0a\x05input\x12\x0bPlaceholder";
    assert_eq!(says(frozen), "not an ONNX model: the file is a TensorFlow graph; convert the network to ONNX");
    assert!(says(&[0xff; 100]).starts_with("not an ONNX model"));
    let bytes = classifier().bytes();
    for length in 0..bytes.len() {
        assert!(import(&bytes[..length]).is_err(), "cut after {length} of {} bytes", bytes.len());
    }
}

#[test]
fn files_that_would_take_absurd_amounts_of_memory() {
    // One million empty nodes in two megabytes.
    let mut graph = [0x0a, 0x00].repeat(1_000_001);
    let mut bytes = vec![0x3a];
    prost::encoding::encode_varint(graph.len() as u64, &mut bytes);
    bytes.append(&mut graph);
    let error = import(&bytes).unwrap_err().to_string();
    assert_eq!(error, "not an ONNX model: the file has more than 1000000 fields");

    let mut file = classifier();
    file.graph().initializer[0].dims = vec![i64::MAX, i64::MAX, 3, 3];
    assert_says(&file, "Conv (conv): input w has dimensions");

    // A constant of a terabyte.
    let file = File::new([1, 2, 2])
        .int_constant("huge", &[1 << 20, 1 << 20])
        .node("ConstantOfShape", "fill", "huge -> c", &[])
        .node("Add", "add", "image, c -> y", &[])
        .output("y");
    assert_says(
        &file,
        "ConstantOfShape (fill): it computes a constant of shape [1048576, 1048576], which is too large",
    );

    // One matrix that is transposed again and again.
    let mut file = File::new([1, 1, 1]).constant("w", &[1024, 1], &[0.5; 1024]).int_constant("shape", &[1024, 1024]);
    file = file.node("Expand", "", "w, shape -> big", &[]).node("Flatten", "", "image -> x0", &[]);
    for i in 0..40 {
        let io = format!("x{i}, big -> x{}", i + 1);
        file = file.node("MatMul", "", &io, &[]);
    }
    file.graph().input[0] = value_info("image", data_type::FLOAT, [1, 1024, 1, 1].map(dimension).to_vec());
    assert_says(&file.output("x40"), "it needs more memory than the weights of a file of this size should");
}

#[test]
fn layers_of_absurd_sizes() {
    let pads = |n: i64| {
        File::new([1, 4, 4])
            .node("Pad", "pad", "image, pads -> y", &[])
            .output("y")
            .int_constant("pads", &[0, 0, n, n, 0, 0, n, n])
    };
    assert_says(&pads(1 << 23), "Pad (pad): outputs [1,16777220,16777220], more than 1073741824 values");
    assert_says(&pads(i64::MAX), "pads contains 9223372036854775807; expected a number from 0 to 16777216");
    assert_says(&pads(-2), "Pad (pad): negative pads remove all 4 values of an axis");
    assert_says(&pads(i64::MIN), "pads contains 9223372036854775807");
    let strides = [ints("strides", &[0, 1]), ints("kernel_shape", &[2, 2])];
    let zero = File::new([1, 4, 4]).node("MaxPool", "pool", "image -> y", &strides).output("y");
    assert_says(&zero, "MaxPool (pool): a kernel, stride or dilation is zero");
    let kernel = [ints("kernel_shape", &[5, 2])];
    let large = File::new([1, 4, 4]).node("MaxPool", "pool", "image -> y", &kernel).output("y");
    assert_says(&large, "MaxPool (pool): has a window of [5, 2], larger than its input of [4, 4]");
}

#[test]
fn opsets_outside_of_the_range() {
    assert_eq!(
        error(&classifier().opset(6)),
        "opset 6 is not supported; export the network with an opset from 7 to 28"
    );
    assert_says(&classifier().opset(29), "opset 29 is not supported");
    let mut file = classifier();
    file.model.opset_import.clear();
    assert_says(&file, "the file does not declare an ONNX opset; export the network with an opset from 7 to 28");
}

#[test]
fn inputs_that_are_not_images() {
    let mut two = classifier();
    two.graph().input.push(value_info("mask", data_type::FLOAT, [1, 1].map(dimension).to_vec()));
    assert!(two.import().is_ok(), "what nothing reads cannot matter");
    two = two.node("Mul", "masked", "logits, mask -> y", &[]).output("y");
    assert_says(&two, "unsupported network input: expected one image [N,C,H,W], found 2 inputs (image, mask)");
    let mut none = classifier();
    none.graph().input.clear();
    assert_says(&none, "unsupported network input: expected one image [N,C,H,W], found no input");
    let mut vector = classifier();
    vector.graph().input[0] = value_info("image", data_type::FLOAT, [1, 5].map(dimension).to_vec());
    assert_says(&vector, "image has 2 axes; expected an image [N,C,H,W]");
    let mut bytes = classifier();
    bytes.graph().input[0] = value_info("image", data_type::INT8, [1, 2, 6, 6].map(dimension).to_vec());
    assert_says(&bytes, "image has element type INT8; expected FLOAT or UINT8");
    let mut unknown = classifier();
    unknown.graph().input[0] = ValueInfoProto { name: "image".into(), r#type: None };
    assert_says(&unknown, "image is not a tensor");
    let mut huge = classifier();
    huge.graph().input[0] = value_info("image", data_type::FLOAT, [1, 2, 6, 1 << 40].map(dimension).to_vec());
    assert_says(&huge, "image has width 1099511627776; expected 1 to 65536");
}

#[test]
fn invalid_graphs() {
    let missing = File::new([1, 4, 4]).node("Conv", "conv", "image, w, b -> y", &[]).output("y");
    assert_eq!(error(&missing), "invalid graph: no node computes b (read by conv), w (read by conv)");
    assert_says(&classifier().output("prob"), "no node computes prob (read by an output)");
    let cycle = File::new([1, 4, 4])
        .node("Relu", "start", "image -> x", &[])
        .node("Add", "add", "x, c -> a", &[])
        .node("Relu", "relu", "a -> c", &[])
        .output("c");
    assert_says(&cycle, "invalid graph: it has a cycle: add depends on its own output");
    let twice = classifier().node("Relu", "again", "a -> b", &[]);
    assert_says(&twice, "tensor b is defined more than once, the last time by again");
    let mut silent = classifier();
    silent.graph().output.clear();
    assert_says(&silent, "invalid graph: it has no outputs");
    let through = File::new([1, 4, 4]).node("Identity", "id", "image -> y", &[]).output("y");
    assert_says(&through, "no output is computed from the image (outputs: y)");
    let constant = File::new([1, 4, 4]).constant("c", &[1], &[1.0]).node("Neg", "neg", "c -> y", &[]).output("y");
    assert_says(&constant, "no output is computed from the image (outputs: y)");
}

#[test]
fn nodes_out_of_order_are_fine() {
    let mut file = classifier();
    file.graph().node.reverse();
    assert_eq!(layers(&file.import().unwrap()), layers(&classifier().import().unwrap()));
}

#[test]
fn every_node_that_cannot_be_lowered_is_named() {
    let file = File::new([1, 8, 8])
        .constant("w", &[4, 1, 3], &[0.0; 12])
        .node("LSTM", "/rnn/LSTM", "image -> b", &[])
        .node("Relu", "after", "b -> c", &[])
        .node("Conv", "/flat/Conv", "image, w -> d", &[])
        .node("Transpose", "", "image -> turned", &[ints("perm", &[1, 0])])
        .node("BiasSplitGelu", "fused", "c -> f", &[])
        .node("Concat", "all", "d, turned, f -> y", &[int("axis", 1)])
        .output("y");
    let mut file = file;
    file.graph().node[4].domain = "com.microsoft".into();
    assert_eq!(
        error(&file),
        "4 of the network's 6 nodes are not supported:\
         \n  Conv (/flat/Conv): a 1-dimensional kernel does not fit an input of shape [1,8,8]\
         \n  LSTM (/rnn/LSTM): the operation is not supported\
         \n  Transpose (turned): perm is [1, 0] for a tensor of 4 axes\
         \n  com.microsoft.BiasSplitGelu (fused): the operation is not supported"
    );
}

#[test]
fn tensors_that_cannot_be_read() {
    let broken = |change: fn(&mut TensorProto)| {
        let mut file = classifier();
        change(&mut file.graph().initializer[0]);
        file
    };
    assert_says(&broken(|t| t.dims[0] = 5), "Conv (conv): input w has dimensions [5, 2, 3, 3] but holds 54 values");
    assert_says(&broken(|t| t.dims[0] = -5), "input w has dimensions [-5, 2, 3, 3]");
    assert_says(&broken(|t| t.dims = vec![1; 40]), "input w has 40 axes");
    assert_says(&broken(|t| t.data_type = 8), "input w has element type STRING, which is not supported");
    assert_says(&broken(|t| t.data_type = 77), "input w has element type number 77");
    assert_says(&broken(|t| t.data_location = 1), "input w is stored in another file, but its location is missing");
    assert_says(&broken(|t| t.data_location = 2), "input w has the unknown data_location 2");
    assert_says(&broken(|t| t.segment = Some(Segment {})), "input w is stored in segments");
    assert_says(&broken(|t| t.raw_data = vec![0; 215]), "input w has dimensions [3, 2, 3, 3] but holds 215 bytes");
    assert_says(&broken(|t| t.float_data[7] = f32::NAN), "Conv (conv): the weights contain infinite or NaN values");
    assert_says(&broken(|t| t.dims = vec![0, 2, 3, 3]), "but holds 54 values");
    assert_says(
        &broken(|t| (t.dims, t.float_data) = (vec![0, 2, 3, 3], vec![])),
        "Conv (conv): outputs an empty tensor",
    );
}

#[test]
fn invalid_attributes() {
    let node = |op: &str, attributes: &[AttributeProto]| {
        File::new([2, 4, 4]).node(op, "node", "image -> y", attributes).output("y")
    };
    assert_says(&node("Transpose", &[int("perm", 1)]), "attribute perm is not a list of integers");
    assert_says(&node("Transpose", &[ints("perm", &[0, 1, 1, 2])]), "axis 1 is listed twice");
    assert_says(&node("Softmax", &[int("axis", 7)]), "axis 7 does not exist; the input has 4 axes");
    assert_says(&node("Softmax", &[int("axis", 0)]), "operating along the batch axis is not supported");
    assert_says(&node("Flatten", &[int("axis", 5)]), "axis 5 does not exist; the input has 4 axes");
    assert_says(&node("MaxPool", &[]), "kernel_shape is missing");
    assert_says(
        &node("MaxPool", &[ints("kernel_shape", &[2])]),
        "a 1-dimensional kernel does not fit an input of shape [2,4,4]",
    );
    assert_says(&node("ReduceMean", &[ints("axes", &[0, 2])]), "reducing over the batch axis is not supported");
    assert_says(&node("ReduceMean", &[]), "reducing over the batch axis is not supported");
    let pads = [ints("kernel_shape", &[2, 2]), ints("pads", &[2, 0, 0, 0])];
    assert_says(&node("MaxPool", &pads), "some windows cover only padding");
    let same = [ints("kernel_shape", &[2, 2]), text("auto_pad", "SAME")];
    assert_says(&node("MaxPool", &same), "auto_pad is SAME; expected NOTSET, VALID, SAME_UPPER or SAME_LOWER");
    let train = File::new([1, 2, 2])
        .constant("v", &[1], &[1.0])
        .node("BatchNormalization", "bn", "image, v, v, v, v -> y", &[int("training_mode", 1)])
        .output("y");
    assert_says(&train, "BatchNormalization (bn): it is in training mode; export the network for inference");
    let mask = File::new([2, 4, 4]).node("Dropout", "drop", "image -> z, mask", &[]).output("mask");
    assert_says(&mask, "Dropout (drop): output number 1, mask, is not supported but is read");
}
