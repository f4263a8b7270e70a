//! The batch axis: files exported with a fixed batch, and what would mix the images of a batch.

use super::*;

/// A file whose input is `[batch,2,2,3]`.
fn file(batch: i64) -> File {
    let mut file = File::new([2, 2, 3]);
    file.graph().input[0] = value_info("image", data_type::FLOAT, [batch, 2, 2, 3].map(dimension).to_vec());
    file
}

fn stored(file: File) -> Vec<usize> {
    let imported = file.output("y").import().unwrap();
    let output = imported.network.outputs()[0];
    imported.network.node(output).shape.to_vec()
}

#[track_caller]
fn assert_refused(file: File, expected: &str) {
    let error = match file.output("y").import() {
        Ok(imported) => imported.unsupported.iter().map(ToString::to_string).collect(),
        Err(error) => error.to_string(),
    };
    assert!(error.contains(expected), "{error}\n  should say\n{expected}");
}

fn reshaped(batch: i64, perm: &[i64], target: &[i64]) -> File {
    file(batch).int_constant("target", target).node("Transpose", "turn", "image -> a", &[ints("perm", perm)]).node(
        "Reshape",
        "reshape",
        "a, target -> y",
        &[],
    )
}

#[test]
fn a_fixed_batch_is_found_in_target_shapes() {
    let first = [0, 1, 2, 3];
    assert_eq!(stored(reshaped(4, &first, &[4, 12])), [12]);
    assert_eq!(stored(reshaped(4, &first, &[4, -1])), [12]);
    assert_eq!(stored(reshaped(4, &first, &[-1, 12])), [12]);
    assert_eq!(stored(reshaped(4, &first, &[0, 6, 2])), [6, 2]);
    // Joined with the two channels.
    assert_eq!(stored(reshaped(4, &first, &[8, 6])), [2, 6]);
    assert_eq!(stored(reshaped(4, &first, &[-1, 6])), [2, 6]);
    // After the first two axes.
    assert_eq!(stored(reshaped(4, &[1, 2, 0, 3], &[4, 4, 3])), [4, 3]);
    assert_eq!(stored(reshaped(4, &[1, 2, 0, 3], &[4, 12])), [4, 3]);
    assert_eq!(stored(reshaped(4, &[1, 2, 0, 3], &[48])), [12]);
}

#[test]
fn an_unclear_fixed_batch_is_refused() {
    let unclear = "it is unclear where the images of the batch of 4 are; export a batch of one";
    // The first axis would hold parts of images.
    assert_refused(reshaped(4, &[0, 1, 2, 3], &[3, 16]), unclear);
    // Whether the batch is in the first axis or in the second.
    assert_refused(reshaped(4, &[1, 0, 2, 3], &[8, -1]), unclear);
    let twice = file(4)
        .int_constant("joined", &[8, 6])
        .int_constant("target", &[4, 12])
        .node("Reshape", "join", "image, joined -> a", &[])
        .node("Reshape", "part", "a, target -> y", &[]);
    assert_refused(twice, unclear);
}

#[test]
fn a_constant_may_be_repeated_for_every_image_of_a_fixed_batch() {
    let same = file(2).constant("c", &[2, 1, 1, 3], &[1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
    assert_eq!(stored(same.clone().node("Add", "add", "image, c -> y", &[])), [2, 2, 3]);
    let tokens = same.constant("token", &[2, 1, 2, 3], &[0.5; 12]);
    assert_eq!(stored(tokens.node("Concat", "join", "token, image -> y", &[int("axis", 1)])), [3, 2, 3]);
    let other = file(2).constant("c", &[2, 1, 1, 1], &[1.0, 2.0]).node("Add", "add", "image, c -> y", &[]);
    assert_refused(other, "a constant of shape [2, 1, 1, 1] differs between the images of a batch");
}

#[test]
fn a_fixed_batch_of_one_is_an_axis_like_any_other() {
    assert_eq!(stored(file(1).node("ReduceMean", "mean", "image -> y", &[])), [1, 1, 1, 1]);
    assert_eq!(stored(file(1).node("ReduceMean", "mean", "image -> y", &[int("keepdims", 0)])), [0; 0]);
    let squeezed = file(1).node("ReduceMax", "max", "image -> a", &[ints("axes", &[2])]);
    let squeezed = squeezed.node("Squeeze", "squeeze", "a -> b", &[]).node("Transpose", "turn", "b -> y", &[]);
    assert_eq!(stored(squeezed), [3, 2]);
    let repeated = file(1).constant("c", &[5, 1, 1, 1], &[1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(stored(repeated.node("Mul", "mul", "image, c -> y", &[])), [5, 2, 2, 3]);
}

#[test]
fn images_of_a_batch_are_not_mixed() {
    let turned = || File::new([2, 2, 3]).node("Transpose", "turn", "image -> a", &[ints("perm", &[1, 0, 2, 3])]);
    let reduced = |axes: &[i64]| turned().node("ReduceMean", "mean", "a -> y", &[ints("axes", axes)]);
    assert_refused(reduced(&[1]), "ReduceMean (mean): reducing over the batch axis is not supported");
    assert_refused(reduced(&[-1, -3]), "reducing over the batch axis is not supported");
    assert_eq!(stored(reduced(&[0])), [1, 2, 3]);
    let softmax = turned().node("Softmax", "softmax", "a -> y", &[int("axis", -3)]);
    assert_refused(softmax, "operating along the batch axis is not supported");
    let old = turned().opset(11).node("Softmax", "softmax", "a -> y", &[int("axis", 1)]);
    assert_refused(old, "operating along the batch axis is not supported");
    let split = turned().node("Split", "split", "a -> y, z", &[int("axis", 1)]);
    assert_refused(split, "operating along the batch axis is not supported");
    let pads = turned().int_constant("pads", &[0, 1, 0, 0, 0, 0, 0, 0]).node("Pad", "pad", "a, pads -> y", &[]);
    assert_refused(pads, "padding the batch axis is not supported");
    let slice = |start: i64, end: i64| {
        let file = turned().int_constant("start", &[start]).int_constant("end", &[end]).int_constant("axes", &[1]);
        file.node("Slice", "slice", "a, start, end, axes -> b", &[]).node("Relu", "relu", "b -> y", &[])
    };
    assert_refused(slice(1, 2), "slicing the batch axis is not supported");
    assert_eq!(stored(slice(0, 1)), [2, 2, 3]);
    let gathered = turned().int_constant("index", &[1]).node("Gather", "pick", "a, index -> y", &[int("axis", 1)]);
    assert_refused(gathered, "selecting images of the batch is not supported");
}

#[test]
fn an_operation_on_maps_has_its_channels_behind_the_first_axis() {
    let conv = File::new([2, 4, 4])
        .kernel("w", 3, 2, 1)
        .node("Transpose", "turn", "image -> a", &[ints("perm", &[1, 0, 2, 3])])
        .node("Conv", "conv", "a, w -> y", &[]);
    assert_refused(conv, "Conv (conv): has weights [3, 2, 1, 1] in 1 groups, which do not fit 1 input channels");
}
