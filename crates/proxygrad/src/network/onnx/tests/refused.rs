//! What the importer refuses of operations that it otherwise knows, and with which words.

use super::*;

/// Tokens `[n,6,4]` and a node that reads them.
fn tokens(op: &str, inputs: &str, attributes: &[AttributeProto]) -> File {
    File::new([1, 6, 4])
        .int_constant("flat", &[0, 6, 4])
        .constant("matrix", &[4, 4], &[0.5; 16])
        .constant("wide", &[6, 8], &[0.5; 48])
        .constant("vector", &[4], &[0.5; 4])
        .constant("angles", &[1, 6, 2], &[0.5; 12])
        .int_constant("ids", &[0, 1])
        .node("Reshape", "tokens", "image, flat -> x", &[])
        .node("Relu", "relu", "x -> r", &[])
        .node(op, "node", &format!("{inputs} -> y"), attributes)
        .opset(23)
        .output("y")
}

#[track_caller]
fn assert_refused(file: &File, expected: &str) {
    let found: Vec<String> = match file.import() {
        Ok(imported) => imported.unsupported.iter().map(ToString::to_string).collect(),
        Err(why) => vec![why.to_string()],
    };
    assert!(found.iter().any(|why| why.contains(expected)), "{found:?}\n  should say\n{expected}");
}

#[test]
fn equations_of_einsum() {
    let einsum = |equation: &str| tokens("Einsum", "x, matrix", &[text("equation", equation)]);
    assert!(einsum("nij,jk->nik").import().unwrap().unsupported.is_empty());
    assert_refused(&einsum("...j,jk->...k"), "has an ellipsis, which is not supported");
    assert_refused(&einsum("nij,jj->ni"), "repeats j in a term, which is not supported");
    assert_refused(&einsum("nij,j1->ni"), "contains 1; expected letters, commas and one arrow");
    assert_refused(&einsum("nij->ni"), "has 1 terms for 2 inputs");
    assert_refused(&einsum("nij,jk->niz"), "has z only behind the arrow");
    assert_refused(&einsum("ni,jk->nik"), "input 0 has 3 axes for the 2 letters of its term");
    assert_refused(&einsum("nij,jkl->nik"), "input 1 has 2 axes for the 3 letters of its term");
    assert_refused(&einsum("nij,ik->njk"), "i is 6 in one term and 4 in another; broadcasting is not supported");
    let no_equation = tokens("Einsum", "x, matrix", &[]);
    assert_refused(&no_equation, "has 1 terms for 2 inputs");
}

#[test]
fn factors_of_gemm() {
    let gemm = |inputs: &str, attributes: &[AttributeProto]| tokens("Gemm", inputs, attributes);
    assert_refused(&gemm("x, matrix", &[]), "factor 0 has 3 axes; expected a matrix");
    let flat = |inputs: &str, attributes: &[AttributeProto]| {
        File::new([1, 6, 4])
            .constant("weight", &[24, 5], &[0.5; 120])
            .constant("deep", &[24, 5, 1], &[0.5; 120])
            .constant("bias", &[7], &[0.5; 7])
            .node("Flatten", "flat", "image -> x", &[])
            .node("Relu", "relu", "x -> r", &[])
            .node("Gemm", "node", &format!("{inputs} -> y"), attributes)
            .output("y")
    };
    assert!(flat("x, weight", &[]).import().unwrap().unsupported.is_empty());
    assert_refused(&flat("x, weight", &[int("transB", 1)]), "needs 5 values along the last axis");
    assert_refused(&flat("x, deep", &[]), "factor has shape [24, 5, 1]; expected a matrix");
    assert_refused(&flat("x, weight, bias", &[]), "cannot broadcast");
    assert_refused(&flat("x", &[]), "a factor is missing");
    assert_refused(&flat("x, weight", &[text("alpha", "half")]), "attribute alpha is not a number");
}

#[test]
fn attention_that_needs_more_than_one_pass() {
    let heads = [int("q_num_heads", 2), int("kv_num_heads", 2)];
    let attention = |inputs: &str, attributes: &[AttributeProto]| tokens("Attention", inputs, attributes);
    assert!(attention("x, x, r", &heads).import().unwrap().unsupported.is_empty());
    assert_refused(&attention("x, x, r, , r, r", &heads), "a cache of keys and values (past_key) is not supported");
    assert_refused(&attention("x, x, r", &[]), "q_num_heads is missing");
    assert_refused(&attention("x, x, r", &[int("q_num_heads", 0), int("kv_num_heads", 2)]), "q_num_heads is 0");
    let three = [int("q_num_heads", 3), int("kv_num_heads", 3)];
    assert_refused(&attention("x, x, r", &three), "4 values cannot be divided into 3 heads");
    let uneven = [int("q_num_heads", 2), int("kv_num_heads", 4)];
    assert_refused(&attention("x, x, r", &uneven), "2 heads of queries cannot share 4 heads of keys");
    assert_refused(&attention("x, x, r, x", &heads), "the mask must be constant, but depends on the image");
    assert_refused(&attention("x, x, r, matrix", &heads), "cannot broadcast");
    assert_refused(&attention("x, x, r, ids", &heads), "the mask holds integers");
    assert_refused(&attention("x, matrix, r", &heads), "input 1 has 2 axes, but the queries have 3");
    let blind = [int("left_window_size", 0), int("right_window_size", 0), heads[0].clone(), heads[1].clone()];
    let blind = attention("x, x, r, away", &blind).constant("away", &[6, 6], &[f32::NEG_INFINITY; 36]);
    assert_refused(&blind, "a query sees no key at all, which is not supported");
    let scaled = [float("scale", f32::NAN), heads[0].clone(), heads[1].clone()];
    assert_refused(&attention("x, x, r", &scaled), "scale is NaN; expected a finite number");
}

#[test]
fn angles_of_rotary_embeddings() {
    let rotary = |inputs: &str, attributes: &[AttributeProto]| tokens("RotaryEmbedding", inputs, attributes);
    let heads = int("num_heads", 1);
    assert!(rotary("x, angles, angles", std::slice::from_ref(&heads)).import().unwrap().unsupported.is_empty());
    assert_refused(&rotary("x, angles, angles", &[]), "num_heads is missing");
    assert_refused(&rotary("x, angles, angles", &[int("num_heads", 2)]), "do not fit 6 positions of 1 pairs");
    let odd = [heads.clone(), int("rotary_embedding_dim", 3)];
    assert_refused(&rotary("x, angles, angles", &odd), "rotary_embedding_dim is 3; expected an even number up to 4");
    assert_refused(&rotary("x, matrix, matrix", std::slice::from_ref(&heads)), "do not fit 6 positions of 2 pairs");
    assert_refused(&rotary("x, angles, r", &[heads]), "input r must be constant");
}

#[test]
fn pads_pools_and_sizes() {
    let map = |op: &str, inputs: &str, attributes: &[AttributeProto]| {
        File::new([2, 6, 6])
            .int_constant("crop", &[0, 0, -3, 0, 0, 0, -3, 0])
            .int_constant("one", &[0, 0, 1, 1, 0, 0, 1, 1])
            .constant("scales", &[4], &[1.0, 1.0, 2.0, f32::INFINITY])
            .constant("roi", &[8], &[0.0, 0.2, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
            .int_constant("sizes", &[1, 2, 3, 3])
            .node("Relu", "relu", "image -> a", &[])
            .node(op, "node", &format!("{inputs} -> y"), attributes)
            .opset(18)
            .output("y")
    };
    assert_refused(&map("Pad", "a, crop", &[]), "negative pads remove all 6 values of an axis");
    assert_refused(&map("Pad", "a, one", &[text("mode", "other")]), "mode other is not supported");
    assert_refused(&map("Resize", "a, , scales", &[]), "only height and width can be resized, by numbers above 0");
    let crop = text("coordinate_transformation_mode", "tf_crop_and_resize");
    assert_refused(
        &map("Resize", "a, roi, , sizes", std::slice::from_ref(&crop)),
        "only height and width can be cropped",
    );
    assert_refused(&map("Resize", "a, , , sizes", std::slice::from_ref(&crop)), "input number 1 is missing");
    let outside = [crop, float("extrapolation_value", 2.0)];
    assert_refused(&map("Resize", "a, roi, , sizes", &outside), "extrapolation_value is 2; only 0 is supported");
    let kernel = ints("kernel_shape", &[2, 2]);
    assert_refused(&map("LpPool", "a", &[kernel.clone(), int("p", 0)]), "p is 0; expected a number from 1 on");
    let volume = ints("kernel_shape", &[2, 2, 2]);
    assert_refused(&map("MaxPool", "a", &[volume]), "a 3-dimensional kernel does not fit an input of shape [2,6,6]");
    let strides = ints("strides", &[2, 2, 2]);
    assert_refused(&map("MaxPool", "a", &[kernel, strides]), "strides has 3 values; expected 2");
}

#[test]
fn constants_that_take_too_long() {
    let mut file = File::new([1, 2, 2])
        .constant("seed", &[64, 1], &[0.5; 64])
        .int_constant("shape", &[1024, 1024])
        .int_constant("tiles", &[16, 1024])
        .node("Tile", "tile", "seed, tiles -> m0", &[]);
    for i in 0..3 {
        file = file.node("MatMul", &format!("m{i}"), &format!("m{i}, m{i} -> m{}", i + 1), &[]);
    }
    let file = file.node("ReduceSum", "sum", "m3 -> s", &[]).node("Add", "add", "image, s -> y", &[]).output("y");
    assert_refused(&file, "computing constants takes too long");
}

#[test]
fn many_maps_of_one_image() {
    let windows = |count: i64| {
        File::new([2 * count, 3, 3])
            .int_constant("split", &[count, 2, 3, 3])
            .kernel("w", 4, 2, 3)
            .node("Reshape", "windows", "image, split -> a", &[])
            .node("Conv", "conv", "a, w -> y", &[])
            .output("y")
    };
    let network = windows(5).import().unwrap().network;
    assert_eq!(network.node(network.stored("y").unwrap()).shape[..], [5, 4, 1, 1]);
    assert_refused(&windows(65), "holds 65 maps of one image; at most 64 are supported");
}
