//! Dynamic image sizes, and image sizes other than the file's.

use super::*;
use crate::network::Shape;

fn dynamic_file() -> File {
    let mut file = File::new([3, 1, 1]).node("Relu", "relu", "image -> y", &[]).output("y");
    let axes = vec![open("batch"), dimension(3), open("h"), Dimension::default()];
    file.graph().input[0] = value_info("image", data_type::FLOAT, axes);
    file
}

#[test]
fn dynamic_axes_are_named_unless_the_caller_sets_them() {
    let error = dynamic_file().import().unwrap_err().to_string();
    assert_eq!(error, "the network input image has no fixed size (height \"h\", width); specify an input size [C,H,W]");
    let imported = import_with(
        &dynamic_file().bytes(),
        &ExternalData::default(),
        &ImportOptions { input: Some([3, 20, 30]), ..ImportOptions::default() },
    )
    .unwrap();
    assert_eq!(shape(&imported, "y"), [3, 20, 30]);
    assert_eq!((imported.input, imported.dynamic_size, imported.batch), ([3, 20, 30], true, None));
}

#[test]
fn a_given_size_must_agree_with_the_file() {
    let error = import_with(
        &dynamic_file().bytes(),
        &ExternalData::default(),
        &ImportOptions { input: Some([1, 20, 30]), ..ImportOptions::default() },
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("image has channels 3, not 1"), "{error}");
    let error = import_with(
        &dynamic_file().bytes(),
        &ExternalData::default(),
        &ImportOptions { input: Some([3, 20, 0]), ..ImportOptions::default() },
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("image has width 0; expected 1 to"), "{error}");
}

#[test]
fn a_fixed_batch_is_only_a_batch() {
    let mut file = File::new([4, 3, 3])
        .int_constant("target", &[8, 36])
        .node("Reshape", "flat", "image, target -> y", &[])
        .output("y");
    file.graph().input[0] = value_info("image", data_type::FLOAT, [8, 4, 3, 3].map(dimension).to_vec());
    let imported = file.import().unwrap();
    assert_eq!(shape(&imported, "y"), [36]);
    assert_eq!(imported.batch, Some(8));
}

fn at(imported: &Imported, layer: &str, input: [usize; 3]) -> Result<Vec<usize>, String> {
    let id = imported.network.find(layer).unwrap();
    let shapes = imported.network.shapes_at(&Shape::from(input), &imported.network.below(&[id]))?;
    Ok(shapes[&id].to_vec())
}

#[test]
fn a_reshape_computed_from_the_shape_works_at_other_sizes() {
    let file = File::new([4, 6, 6])
        .int_constant("index", &[0])
        .int_constant("minus", &[-1])
        .int_constant("groups", &[2])
        .int_constant("height", &[2])
        .int_constant("width", &[3])
        .node("Shape", "", "image -> s", &[])
        .node("Gather", "", "s, index -> n", &[int("axis", 0)])
        .node("Gather", "", "s, height -> h", &[int("axis", 0)])
        .node("Gather", "", "s, width -> w", &[int("axis", 0)])
        .node("Concat", "", "n, groups, minus, h, w -> t", &[int("axis", 0)])
        .node("Reshape", "grouped", "image, t -> y", &[])
        .output("y");
    let imported = file.import().unwrap();
    assert_eq!(shape(&imported, "y"), [2, 2, 6, 6]);
    assert_eq!(at(&imported, "y", [4, 5, 8]), Ok(vec![2, 2, 5, 8]));
}

#[test]
fn parameters_that_were_computed_from_the_size_hold_for_that_size_only() {
    let file = File::new([1, 6, 6])
        .int_constant("starts", &[0])
        .int_constant("ends", &[-2])
        .int_constant("axes", &[2])
        .node("Slice", "cut", "image, starts, ends, axes -> y", &[])
        .output("y");
    let imported = file.import().unwrap();
    assert_eq!(at(&imported, "y", [1, 6, 6]), Ok(vec![1, 4, 6]));
    let error = at(&imported, "y", [1, 8, 6]).unwrap_err();
    assert_eq!(error, "y (slice): its parameters were computed for an input of [1,6,6] and do not fit [1,8,6]");
}

#[test]
fn same_padding_holds_for_sizes_with_the_same_remainder() {
    let file = File::new([1, 9, 8])
        .kernel("w", 1, 1, 3)
        .node("Conv", "conv", "image, w -> y", &[text("auto_pad", "SAME_UPPER"), ints("strides", &[2, 2])])
        .output("y");
    let imported = file.import().unwrap();
    assert_eq!(shape(&imported, "y"), [1, 5, 4]);
    assert_eq!(at(&imported, "y", [1, 11, 14]), Ok(vec![1, 6, 7]));
    let error = at(&imported, "y", [1, 10, 8]).unwrap_err();
    assert!(error.contains("do not fit [1,10,8]"), "{error}");
}

/// The same reshape as for a batch of one, however many images there are.
#[test]
fn a_length_computed_from_the_batch_is_that_of_one_image() {
    let file = File::new([4, 6, 6])
        .int_constant("index", &[0])
        .int_constant("two", &[2])
        .int_constant("minus", &[-1])
        .node("Shape", "", "image -> s", &[])
        .node("Gather", "", "s, index -> n", &[int("axis", 0)])
        .node("Mul", "", "n, two -> m", &[])
        .node("Concat", "", "m, minus -> t", &[int("axis", 0)])
        .node("Reshape", "halves", "image, t -> y", &[])
        .output("y");
    let imported = file.import().unwrap();
    let stored = imported.network.stored("y").unwrap();
    assert_eq!(imported.network.node(stored).shape[..], [2, 72]);
    let shapes = imported.network.shapes_at(&Shape::from([4, 6, 8]), &imported.network.below(&[stored])).unwrap();
    assert_eq!(shapes[&stored][..], [2, 96]);
}
