//! Which names layers get.

use super::*;

#[test]
fn a_leading_slash_goes_and_unnamed_nodes_are_called_like_their_output() {
    let file = File::new([1, 4, 4])
        .node("Relu", "/layer1/act/Relu", "image -> a", &[])
        .node("Tanh", "", "a -> /tanh/out", &[])
        .node("Sigmoid", "last", "/tanh/out -> logits", &[])
        .output("logits");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "layer1/act/Relu relu, tanh/out tanh, logits sigmoid");
    let tensors: Vec<_> = imported.tensor_names.iter().map(Option::as_deref).collect();
    assert_eq!(tensors, [None, Some("a"), Some("/tanh/out"), Some("logits")]);
    assert_eq!(imported.output_names, ["logits"]);
    assert_eq!(imported.input_name, "image");
}

#[test]
fn names_are_made_unique_and_fit_into_units() {
    let file = File::new([1, 4, 4])
        .node("Relu", "input", "image -> a", &[])
        .node("Relu", "act:0", "a -> b", &[])
        .node("Relu", "act@0", "b -> c", &[])
        .node("Relu", "act_0", "c -> d", &[])
        .node("Relu", "act_0_2", "d -> e", &[])
        .node("Relu", "out", "e -> f", &[])
        .node("Relu", "", "f -> out", &[])
        .output("out");
    let imported = file.import().unwrap();
    let names: Vec<&str> = imported.network.layers().map(|layer| layer.name).collect();
    assert_eq!(names, ["input_2", "act_0", "act_0_2", "act_0_3", "act_0_2_2", "out_2", "out"]);
}

#[test]
fn nodes_without_effect_vanish_but_the_output_keeps_its_name() {
    let file = File::new([1, 4, 4])
        .node("Identity", "id", "image -> a", &[])
        .node("Relu", "relu", "a -> b", &[])
        .node("Dropout", "drop", "b -> c, mask", &[])
        .node("Identity", "id2", "c -> logits", &[])
        .output("logits");
    assert_eq!(layers(&file.import().unwrap()), "logits relu");
}

#[test]
fn folded_nodes_keep_the_name_of_the_main_operation() {
    let file = File::new([2, 4, 4])
        .kernel("w", 2, 2, 1)
        .constant("gamma", &[2], &[2.0, 3.0])
        .constant("beta", &[2], &[0.5, -0.5])
        .constant("mean", &[2], &[0.1, 0.2])
        .constant("var", &[2], &[1.0, 4.0])
        .node("Conv", "/conv1/Conv", "image, w -> a", &[])
        .node("BatchNormalization", "/bn1/Bn", "a, gamma, beta, mean, var -> b", &[])
        .node("Sigmoid", "/act/Sigmoid", "b -> c", &[])
        .node("Mul", "/act/Mul", "b, c -> d", &[])
        .node("Relu", "/head", "d -> logits", &[])
        .output("logits");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "conv1/Conv conv, act/Mul silu, logits relu");
    assert_eq!(imported.tensor_names[1].as_deref(), Some("b"), "the layer holds the normalized values");
}

#[test]
fn parts_of_a_split_are_layers_of_their_own() {
    let file = File::new([4, 2, 2])
        .node("Split", "parts", "image -> a, b", &[int("axis", 1)])
        .node("Add", "add", "a, b -> sum", &[])
        .output("sum");
    assert_eq!(layers(&file.import().unwrap()), "parts slice, parts_2 slice, sum add");
}
