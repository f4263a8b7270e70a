//! Normalizations: those in pieces become one, and what is no normalization stays as it is.

use super::*;
use crate::network::{Norm, Normalize, Op};

fn normalize<'n>(imported: &'n Imported, name: &str) -> &'n Normalize {
    let Op::Normalize(normalize) = &imported.network.node(imported.network.find(name).unwrap()).op else { panic!() };
    normalize
}

/// `(x - mean) / sqrt(variance + epsilon)` of the channels, whose last value is called `y`; the variance is along `axis`.
fn pieces(axis: i64) -> File {
    File::new([4, 3, 2])
        .constant("epsilon", &[], &[1e-6])
        .constant("two", &[], &[2.0])
        .node("Relu", "relu", "image -> x", &[])
        .node("ReduceMean", "mean", "x -> m", &[ints("axes", &[1])])
        .node("Sub", "sub", "x, m -> c", &[])
        .node("Pow", "pow", "c, two -> s", &[])
        .node("ReduceMean", "variance", "s -> v", &[ints("axes", &[axis])])
        .node("Add", "add", "v, epsilon -> e", &[])
        .node("Sqrt", "sqrt", "e -> r", &[])
        .node("Div", "div", "c, r -> y", &[])
}

#[test]
fn a_layer_normalization_in_pieces_is_one_layer() {
    let imported = pieces(1).output("y").import().unwrap();
    assert_eq!(layers(&imported), "relu relu, y layer-norm");
    let found = normalize(&imported, "y");
    assert_eq!((found.axes.as_slice(), found.kind, found.epsilon), (&[0][..], Norm::Deviation, 1e-6));
    assert!(found.scale.is_none() && found.shift.is_none());
}

#[test]
fn what_scales_and_shifts_a_normalization_becomes_part_of_it() {
    let imported = pieces(1)
        .constant("gamma", &[4, 1, 1], &[1.0, 2.0, 3.0, 4.0])
        .constant("beta", &[1, 4, 1, 1], &[0.5, 0.0, 0.0, 0.25])
        .node("Mul", "scale", "y, gamma -> z", &[])
        .node("Add", "shift", "z, beta -> w", &[])
        .output("w");
    let imported = imported.import().unwrap();
    assert_eq!(layers(&imported), "relu relu, w layer-norm");
    let found = normalize(&imported, "w");
    assert_eq!(found.scale.as_ref().unwrap().data(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(found.shift.as_ref().unwrap().data(), [0.5, 0.0, 0.0, 0.25]);
}

#[test]
fn a_variance_along_other_axes_is_no_layer_normalization() {
    // The root mean square of the centered values along rows, which is a normalization of another kind.
    let imported = pieces(2).output("y").import().unwrap();
    assert_eq!(layers(&imported), "relu relu, mean mean, sub sub, y rms-norm");
    assert_eq!(normalize(&imported, "y").axes, [1]);
}

#[test]
fn a_division_by_a_clipped_norm_is_one_layer() {
    let file = File::new([4, 3, 2])
        .constant("least", &[], &[1e-12])
        .node("Relu", "relu", "image -> x", &[])
        .node("ReduceL2", "norm", "x -> n", &[ints("axes", &[1])])
        .node("Clip", "clip", "n, least -> c", &[])
        .node("Shape", "shape", "x -> s", &[])
        .node("Expand", "expand", "c, s -> e", &[])
        .node("Div", "div", "x, e -> y", &[]);
    let imported = file.clone().output("y").import().unwrap();
    assert_eq!(layers(&imported), "relu relu, y l2-norm");
    assert_eq!(normalize(&imported, "y").epsilon, 1e-12);
    // The norm stays where it is read.
    assert_eq!(layers(&file.output("y").output("n").import().unwrap()), "relu relu, n l2, y l2-norm");
}

#[test]
fn an_instance_normalization_between_reshapes_is_a_group_normalization() {
    let imported = File::new([6, 3, 2])
        .constant("ones", &[2], &[1.0, 3.0])
        .constant("zeros", &[2], &[0.0, 0.0])
        .constant("gamma", &[6, 1, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .int_constant("groups", &[0, 2, -1])
        .node("Relu", "relu", "image -> x", &[])
        .node("Shape", "shape", "x -> s", &[])
        .node("Reshape", "split", "x, groups -> g", &[])
        .node("InstanceNormalization", "inorm", "g, ones, zeros -> i", &[])
        .node("Reshape", "join", "i, s -> j", &[])
        .node("Mul", "mul", "j, gamma -> y", &[])
        .output("y");
    let imported = imported.import().unwrap();
    assert_eq!(layers(&imported), "relu relu, y group-norm");
    let found = normalize(&imported, "y");
    assert_eq!((found.axes.as_slice(), found.groups), (&[0, 1, 2][..], 2));
    assert_eq!(found.scale.as_ref().unwrap().data(), [1.0, 2.0, 3.0, 12.0, 15.0, 18.0]);
    // It works at every size.
    let order = imported.network.below(imported.network.outputs());
    assert!(imported.network.shapes_at(&[6, 5, 7].into(), &order).is_ok());
}

#[test]
fn a_layer_normalization_between_transpositions_is_one_along_the_channels() {
    let file = |back: &[i64]| {
        File::new([3, 4, 4])
            .opset(17)
            .constant("gamma", &[3], &[1.0, 2.0, 3.0])
            .node("Relu", "relu", "image -> x", &[])
            .node("Transpose", "last", "x -> t", &[ints("perm", &[0, 2, 3, 1])])
            .node("LayerNormalization", "norm", "t, gamma -> n", &[])
            .node("Transpose", "first", "n -> y", &[ints("perm", back)])
            .output("y")
            .import()
            .unwrap()
    };
    let imported = file(&[0, 3, 1, 2]);
    assert_eq!(layers(&imported), "relu relu, y layer-norm");
    assert_eq!(normalize(&imported, "y").axes, [0]);
    assert_eq!(normalize(&imported, "y").scale.as_ref().unwrap().shape(), [3, 1, 1]);
    // Rows and columns are exchanged.
    assert_eq!(layers(&file(&[0, 3, 2, 1])), "relu relu, last transpose, norm layer-norm, y transpose");
}

#[test]
fn normalizations_that_make_no_sense_are_rejected() {
    let error = |op: &str, opset, attributes: &[AttributeProto]| {
        let file = File::new([4, 3, 2])
            .opset(opset)
            .constant("three", &[3], &[1.0; 3])
            .node(op, "norm", "image, three, three -> y", attributes)
            .output("y");
        file.import().unwrap_err().to_string()
    };
    for (op, opset, attributes, expected) in [
        ("InstanceNormalization", 13, vec![], "the scale or bias has shape [3]; expected [4], for an input [4,3,2]"),
        ("GroupNormalization", 21, vec![int("num_groups", 3)], "num_groups is 3, which does not divide 4 channels"),
        ("GroupNormalization", 21, vec![], "num_groups is missing"),
        ("GroupNormalization", 18, vec![int("num_groups", 2)], "expected [2], for an input [4,3,2]"),
        ("LayerNormalization", 17, vec![], "does not broadcast to [4,3,2]"),
        ("LayerNormalization", 17, vec![int("axis", 4)], "axis 4 does not exist; the input has 4 axes"),
        ("LayerNormalization", 17, vec![float("epsilon", -1.0)], "has the epsilon -1"),
        ("LpNormalization", 13, vec![int("p", 3)], "p is 3; expected 1 or 2"),
        ("LRN", 13, vec![int("size", 0)], "expected size >= 1"),
        ("LRN", 13, vec![int("size", 3), float("bias", 0.0)], "bias > 0"),
    ] {
        let found = error(op, opset, &attributes);
        assert!(found.contains(expected), "{op}: {found}\n  should say\n{expected}");
    }
}
