//! Names of layers.

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

/// Names that lead to the same layer.
#[track_caller]
fn assert_same(imported: &Imported, names: &[&str]) {
    let ids: Vec<_> = names.iter().map(|name| imported.network.find(name)).collect();
    assert!(ids[0].is_some() && ids.windows(2).all(|pair| pair[0] == pair[1]), "{names:?}: {ids:?}");
}

#[test]
fn modules_name_layers_where_the_exporter_numbered_the_nodes() {
    let file = File::new([2, 8, 8])
        .kernel("layer1.0.conv1.weight", 2, 2, 3)
        .constant("gamma", &[2], &[2.0, 3.0])
        .constant("fc.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0])
        .node("Conv", "node_conv2d", "image, layer1.0.conv1.weight -> conv2d", &[])
        .scopes("['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d']")
        .node("BatchNormalization", "node_bn", "conv2d, gamma, gamma, gamma, gamma -> bn", &[])
        .scopes("['', 'layer1', 'layer1.0', 'layer1.0.bn1', 'bn']")
        .node("Relu", "node_relu", "bn -> relu", &[])
        .scopes("['', 'layer1', 'layer1.0', 'layer1.0.act', 'relu']")
        .node("Relu", "node_relu_1", "relu -> relu_1", &[])
        .scopes("['', 'layer1', 'layer1.0', 'layer1.0.act', 'relu_1']")
        .node("GlobalAveragePool", "node_mean", "relu_1 -> mean", &[])
        .scopes("['', 'mean']")
        .node("Flatten", "node_view", "mean -> view", &[])
        .node("Transpose", "node_t", "fc.weight -> t", &[ints("perm", &[1, 0])])
        .node("MatMul", "node_linear", "view, t -> linear", &[])
        .node("Relu", "node_last", "linear -> y", &[])
        .output("y");
    let imported = file.import().unwrap();
    assert_eq!(
        layers(&imported),
        "layer1.0.conv1 conv, node_relu relu, layer1.0.act relu, node_mean mean, node_view reshape, fc dense, y relu"
    );
    assert_same(&imported, &["layer1.0.conv1", "layer1.0.bn1", "node_conv2d", "node_bn", "bn"]);
    assert_eq!(imported.network.find("conv2d"), None, "the layer holds the normalized values");
    assert_same(&imported, &["layer1.0.act", "layer1.0", "layer1", "node_relu_1", "relu_1"]);
    assert_same(&imported, &["fc", "node_linear", "linear"]);
    let modules: Vec<_> = imported.network.layers().map(|layer| layer.modules.join(" ")).collect();
    assert_eq!(modules, ["layer1.0.bn1", "", "layer1.0 layer1", "", "", "", ""]);
}

#[test]
fn a_dense_layer_is_named_by_the_module_that_its_bias_ends() {
    let file = File::new([2, 1, 1])
        .constant("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])
        .constant("b", &[2], &[0.5, 0.25])
        .node("Flatten", "node_view", "image -> view", &[])
        .node("MatMul", "node_MatMul_3", "view, w -> mul", &[])
        .scopes("['', 'mlp', 'mlp.fc1', 'linear']")
        .node("Add", "node_linear", "mul, b -> linear", &[])
        .scopes("['', 'mlp', 'mlp.fc1', 'linear']")
        .node("Relu", "node_relu", "linear -> y", &[])
        .scopes("['', 'mlp', 'mlp.act', 'relu']")
        .output("y");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "node_view reshape, mlp.fc1 dense, y relu");
    assert_same(&imported, &["mlp.fc1", "node_MatMul_3", "node_linear", "linear"]);
}

#[test]
fn modules_are_found_in_names_with_slashes_which_stay() {
    let file = File::new([2, 8, 8])
        .kernel("onnx::Conv_12", 2, 2, 1)
        .node(
            "Conv",
            "/layer3/layer3.0/conv1/Conv",
            "image, onnx::Conv_12 -> /layer3/layer3.0/conv1/Conv_output_0",
            &[],
        )
        .node("Relu", "/layer3/layer3.0/Relu", "/layer3/layer3.0/conv1/Conv_output_0 -> a", &[])
        .node("Relu", "/layer3/layer3.0/Relu_1", "a -> b", &[])
        .node("Tanh", "/Tanh", "b -> y", &[])
        .output("y");
    let imported = file.import().unwrap();
    assert_eq!(
        layers(&imported),
        "layer3/layer3.0/conv1/Conv conv, layer3/layer3.0/Relu relu, layer3/layer3.0/Relu_1 relu, y tanh"
    );
    assert_same(
        &imported,
        &[
            "layer3.0.conv1",
            "layer3/layer3.0/conv1/Conv",
            "/layer3/layer3.0/conv1/Conv",
            "/layer3/layer3.0/conv1/Conv_output_0",
        ],
    );
    assert_same(&imported, &["layer3/layer3.0/Relu_1", "layer3.0", "layer3", "b"]);
    assert_same(&imported, &["y", "Tanh", "/Tanh"]);
}

#[test]
fn a_tensor_names_the_layer_that_makes_it() {
    let file = File::new([1, 4, 4])
        .node("Relu", "fc", "image -> logits", &[])
        .node("Softmax", "prob", "logits -> y", &[])
        .output("y");
    assert_same(&file.import().unwrap(), &["logits", "fc"]);
}

#[test]
fn no_name_leads_to_a_constant_or_the_image() {
    let mask = [0.0, 1.0, 1.0, 0.5];
    let file = File::new([1, 2, 2])
        .constant("mask", &[1, 2, 2], &mask)
        .constant("mean", &[1, 1, 2, 2], &mask)
        .node("Sub", "minus_mean", "image, mean -> a", &[])
        .node("Relu", "relu", "a -> b", &[])
        .node("Mul", "masked", "mask, b -> c", &[])
        .node("Div", "ratio", "mask, c -> d", &[])
        .node("Relu", "last", "d -> y", &[])
        .output("y");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "minus_mean sub, relu relu, masked mul, ratio div, y relu");
    for name in ["mask", "mean", "image", "input", "layer", "constant", "masked_2", "ratio_2", ""] {
        let error = imported.network.layer(name).unwrap_err();
        assert!(error.expected.starts_with("one of the model's 5 layers"), "{name}: {error}");
    }
}

/// The operation that makes a node's output has its name, not one of those before it.
#[test]
fn a_node_of_several_operations_names_the_last_one() {
    let file = File::new([2, 4, 4])
        .node("Relu", "a", "image -> a", &[])
        .node("Tanh", "b", "image -> b", &[])
        .node("Sum", "total", "a, b, a -> sum", &[])
        .node("Relu", "last", "sum -> y", &[])
        .output("y");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "a relu, b tanh, total_2 add, total add, y relu");
    assert_same(&imported, &["total", "sum"]);
}

#[test]
fn a_mistyped_name_is_answered_with_near_ones() {
    let mut file = File::new([1, 4, 4]);
    for i in 0..20 {
        file = file.node("Relu", &format!("block.{i}.act"), &format!("x{i} -> x{}", i + 1), &[]);
    }
    file.graph().input[0].name = "x0".into();
    let imported = file.output("x20").import().unwrap();
    let expected = |name: &str| imported.network.layer(name).unwrap_err().expected;
    assert_eq!(
        expected("blok.7.act"),
        "one of the model's 20 layers, such as block.7.act, block.0.act, block.1.act, block.2.act, block.3.act"
    );
    assert_eq!(expected("BLOCK.12"), "one of the model's 20 layers, such as block.12.act");
    assert_eq!(expected("something else"), "one of the model's 20 layers, such as x20");
}
