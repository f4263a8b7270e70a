//! Files of which only a part is supported.

use super::*;

/// `conv` and `relu`, then `tail` nodes.
fn trunk() -> File {
    File::new([2, 6, 6]).kernel("w", 3, 2, 3).node("Conv", "conv", "image, w -> a", &[]).node(
        "Relu",
        "relu",
        "a -> b",
        &[],
    )
}

fn unavailable(imported: &Imported) -> Vec<String> {
    imported.network.unavailable().iter().map(ToString::to_string).collect()
}

#[test]
fn what_does_not_depend_on_an_unknown_node_stays() {
    let file = trunk()
        .node("GlobalAveragePool", "pool", "b -> c", &[])
        .node("Flatten", "flat", "c -> logits", &[])
        .node("ArgMax", "label", "logits -> d", &[])
        .node("Identity", "copy", "d -> label_out", &[])
        .output("label_out")
        .output("logits");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "conv conv, relu relu, pool mean, logits reshape");
    assert_eq!(imported.output_names, ["logits"]);
    assert_eq!(imported.unsupported.len(), 1);
    assert_eq!(imported.total, 6);
    assert_eq!(
        unavailable(&imported),
        [
            "label (ArgMax) cannot be computed: the operation is not supported",
            "label_out (Identity) depends on label, which cannot be computed: the operation is not supported"
        ]
    );
    for name in ["label", "d", "copy", "label_out"] {
        let error = imported.network.layer(name).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("layer: {name} is not valid; expected one of the model's 4 layers; ")),
            "{error}"
        );
        assert!(error.contains("cannot be computed: the operation is not supported"), "{error}");
    }
}

#[test]
fn without_an_output_the_last_layers_serve() {
    let file = trunk()
        .node("Sigmoid", "gate", "b -> c", &[])
        .node("TopK", "top", "c -> d, e", &[])
        .node("Tanh", "other", "b -> f", &[])
        .node("Loop", "loop", "f, d, a -> y", &[])
        .output("y");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "conv conv, relu relu, gate sigmoid, other tanh");
    let outputs: Vec<&str> =
        imported.network.outputs().iter().map(|&id| imported.network.node(id).name.as_str()).collect();
    assert_eq!(
        (outputs.as_slice(), imported.output_names.as_slice()),
        (&["gate", "other"][..], &["c".into(), "f".into()][..])
    );
    assert_eq!(imported.unsupported.len(), 2, "{:?}", imported.unsupported);
}

/// A batch normalization is not folded into a convolution whose own values an unknown node reads.
#[test]
fn what_an_unknown_node_reads_keeps_its_values() {
    let file = trunk()
        .constant("v", &[3], &[2.0; 3])
        .node("BatchNormalization", "bn", "a, v, v, v, v -> c", &[])
        .node("Unknown", "unknown", "a -> d", &[])
        .output("c")
        .output("d");
    assert_eq!(layers(&file.import().unwrap()), "conv conv, c affine");
}

#[test]
fn a_function_outside_of_an_activation_is_a_layer() {
    let file = trunk()
        .node("Exp", "exp", "b -> c", &[])
        .node("Mul", "product", "c, a -> d", &[])
        .node("Add", "sum", "b, a -> e", &[])
        .output("d")
        .output("e");
    assert_eq!(layers(&file.import().unwrap()), "conv conv, relu relu, exp exp, d mul, e add");
}

#[test]
fn an_activation_before_an_unknown_node_is_found() {
    let file = trunk()
        .node("Sigmoid", "sigmoid", "b -> c", &[])
        .node("Mul", "silu", "b, c -> d", &[])
        .node("Unknown", "unknown", "d -> e", &[])
        .output("e");
    assert_eq!(layers(&file.import().unwrap()), "conv conv, relu relu, silu silu");
}

#[test]
fn an_output_that_cannot_be_had_leaves_the_others() {
    let file = trunk()
        .node("MaxPool", "pool", "b -> c, indices", &[ints("kernel_shape", &[2, 2])])
        .node("MaxUnpool", "unpool", "c, indices -> d", &[ints("kernel_shape", &[2, 2])])
        .output("d");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "conv conv, relu relu, pool max-pool");
    assert_eq!(
        unavailable(&imported),
        [
            "indices (MaxPool) cannot be computed: output number 1, indices, is not supported but is read",
            "d (MaxUnpool) cannot be computed: the operation is not supported"
        ]
    );
}

#[test]
fn an_output_that_is_constant_is_none() {
    let file =
        trunk().constant("c", &[1], &[1.0]).node("Neg", "neg", "c -> anchors", &[]).output("anchors").output("b");
    let imported = file.import().unwrap();
    assert_eq!(imported.output_names, ["b"]);
    assert_eq!(layers(&imported), "conv conv, b relu");
}
