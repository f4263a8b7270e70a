//! Functions of the file, and branches.

use super::*;
use crate::network::Network;

/// A function of the domain `local`; `nodes` are those of a file.
fn function(name: &str, io: &str, nodes: File) -> FunctionProto {
    let (input, output) = io.split_once("->").unwrap();
    let names = |list: &str| list.split(',').map(|name| name.trim().to_owned()).collect();
    let opset_import = nodes.model.opset_import.clone();
    let node = nodes.model.graph.unwrap().node;
    let (name, domain) = (name.to_owned(), "local".to_owned());
    FunctionProto { name, domain, input: names(input), output: names(output), node, opset_import, ..Default::default() }
}

impl File {
    fn function(mut self, function: FunctionProto) -> Self {
        self.model.functions.push(function);
        self
    }

    /// Makes the last node a call of a function.
    fn local(mut self) -> Self {
        self.graph().node.last_mut().unwrap().domain = "local".into();
        self
    }

    /// A truth value.
    fn truth(mut self, name: &str, value: bool) -> Self {
        let (int32_data, data_type) = (vec![value.into()], data_type::BOOL);
        self.graph().initializer.push(TensorProto { name: name.into(), data_type, int32_data, ..Default::default() });
        self
    }
}

fn nodes() -> File {
    File::new([2, 6, 6])
}

fn branch(name: &str, nodes: File, results: &[&str]) -> AttributeProto {
    let mut graph = nodes.model.graph.unwrap();
    graph.input.clear();
    graph.output = results.iter().map(|&name| ValueInfoProto { name: name.into(), r#type: None }).collect();
    AttributeProto { name: name.into(), r#type: 5, g: Some(Box::new(graph)), ..Default::default() }
}

fn reference(name: &str, kind: i32, to: &str) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind, ref_attr_name: to.into(), ..Default::default() }
}

fn reasons(imported: &Imported) -> Vec<String> {
    imported.unsupported.iter().map(ToString::to_string).collect()
}

#[test]
fn layers_of_functions_are_named_after_the_call_and_their_node() {
    let block = nodes().node("Conv", "conv", "x, w -> c", &[]).node("Relu", "", "c -> y", &[]);
    let file = nodes()
        .kernel("w", 2, 2, 3)
        .function(function("Block", "x, w -> y", block))
        .node("Block", "first", "image, w -> a", &[])
        .local()
        .node("Block", "second", "a, w -> b", &[])
        .local()
        .node("Tanh", "tanh", "b -> out", &[])
        .output("out");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "first/conv conv, first/y relu, second/conv conv, second/y relu, out tanh");
    let network = &imported.network;
    for (alias, name) in [("first", "first/y"), ("a", "first/y"), ("second", "second/y"), ("b", "second/y")] {
        assert_eq!(network.find(alias), network.find(name), "{alias}");
    }
}

#[test]
fn names_of_functions_do_not_clash_with_the_graphs_own() {
    let block = nodes().node("Relu", "relu", "x -> y", &[]).node("Tanh", "tanh", "y -> z", &[]);
    let file = nodes()
        .function(function("Block", "x -> z", block))
        .node("Sigmoid", "s", "image -> block/y", &[])
        .node("Block", "block", "block/y -> z", &[])
        .local()
        .node("Add", "sum", "z, block/y -> out", &[])
        .output("out");
    assert_eq!(layers(&file.import().unwrap()), "s sigmoid, block/relu relu, block/tanh tanh, out add");
}

#[test]
fn a_function_has_its_own_opset_and_attributes() {
    let alpha = reference("alpha", AttributeProto::FLOAT, "slope");
    // Up to opset 12, the axes of ReduceSum are an attribute.
    let sums = nodes().opset(11).node("ReduceSum", "sum", "x -> s", &[ints("axes", &[2, 3])]).node(
        "LeakyRelu",
        "leaky",
        "s -> y",
        &[alpha],
    );
    let mut sums = function("Sums", "x -> y", sums);
    sums.attribute_proto = vec![float("slope", 0.25)];
    let file = nodes()
        .function(sums)
        .node("Sums", "default", "image -> a", &[])
        .local()
        .node("Sums", "given", "image -> b", &[float("slope", 0.5)])
        .local()
        .output("a")
        .output("b");
    let imported = file.import().unwrap();
    let slope = |name: &str| format!("{:?}", imported.network.node(imported.network.find(name).unwrap()).op);
    assert!(slope("a").contains("0.25") && slope("b").contains("0.5"), "{} {}", slope("a"), slope("b"));
    assert_eq!(shape(&imported, "a"), [2, 1, 1]);
}

#[test]
fn calls_that_cannot_be_replaced_are_unsupported_nodes() {
    let call = |function: FunctionProto, io: &str| {
        let name = function.name.clone();
        let file = nodes().function(function).node("Relu", "relu", "image -> r", &[]).node(&name, "call", io, &[]);
        let imported = file.local().output("y").import().unwrap();
        assert_eq!(layers(&imported), "relu relu");
        reasons(&imported).join("; ")
    };
    let identity = |opset| nodes().opset(opset).node("Identity", "i", "x -> y", &[]);
    assert_eq!(
        call(function("F", "x -> y", identity(13)), "r, r -> y"),
        "call (local.F): it has 2 inputs and 1 outputs, but the function F has 1 and 1"
    );
    assert_eq!(
        call(function("F", "x -> y", identity(6)), "r -> y"),
        "call (local.F): the function F needs opset 6, which is not supported"
    );
    let own = nodes().node("F", "again", "x -> y", &[]).local();
    assert_eq!(call(function("F", "x -> y", own), "r -> y"), "call/again (local.F): the function F calls itself");
    let unknown = nodes().node("LSTM", "lstm", "x -> y", &[]);
    assert_eq!(call(function("F", "x -> y", unknown), "r -> y"), "call/lstm (LSTM): the operation is not supported");
}

/// Thirty functions, each of which calls the next one twice, would be a billion nodes.
#[test]
fn functions_do_not_multiply_without_bounds() {
    let mut file = nodes();
    for i in 0..30 {
        let callee = format!("F{}", i + 1);
        let twice = nodes().node(&callee, "a", "x -> m", &[]).local().node(&callee, "b", "m -> y", &[]).local();
        file = file.function(function(&format!("F{i}"), "x -> y", twice));
    }
    let last = nodes().node("Relu", "relu", "x -> y", &[]);
    let file = file.function(function("F30", "x -> y", last)).node("Relu", "r", "image -> r", &[]);
    let imported = file.node("F0", "call", "r -> y", &[]).local().output("y").import();
    let reasons = imported.as_ref().map(reasons).unwrap_or_default().join("\n");
    assert!(reasons.contains("would need far more memory than the file"), "{imported:?}");

    // A chain of calls that is too deep.
    let mut file = nodes().function(function("F60", "x -> y", nodes().node("Relu", "relu", "x -> y", &[])));
    for i in 0..60 {
        let next = nodes().node(&format!("F{}", i + 1), "f", "x -> y", &[]).local();
        file = file.function(function(&format!("F{i}"), "x -> y", next));
    }
    let file = file.node("Relu", "r", "image -> r", &[]).node("F0", "call", "r -> y", &[]).local().output("y");
    let reasons = reasons_of(&file);
    assert!(reasons.contains("functions and branches are nested more than 40 deep"), "{reasons}");
}

fn reasons_of(file: &File) -> String {
    reasons(&file.import().unwrap()).join("\n")
}

/// `relu`, and an `If` with this condition between `Tanh` and an unknown operation.
fn choice(file: File, condition: &str) -> File {
    let then = branch("then_branch", nodes().node("Tanh", "tanh", "r -> t", &[]), &["t"]);
    let other = branch("else_branch", nodes().node("Unknown", "unknown", "r -> t", &[]), &["t"]);
    file.node("Relu", "relu", "image -> r", &[])
        .node("If", "if", &format!("{condition} -> y"), &[then, other])
        .node("Sigmoid", "last", "y -> z", &[])
        .output("z")
}

#[test]
fn only_the_branch_that_is_chosen_is_part_of_the_network() {
    let imported = choice(nodes().truth("c", true), "c").import().unwrap();
    assert_eq!(layers(&imported), "relu relu, tanh tanh, z sigmoid");
    assert_eq!((imported.unsupported.len(), imported.total), (0, 4));
    assert_eq!(imported.network.find("if"), imported.network.find("tanh"));
    let imported = choice(nodes().truth("c", false), "c").import().unwrap();
    assert_eq!(reasons(&imported), ["unknown (Unknown): the operation is not supported"]);
    assert_eq!(layers(&imported), "relu relu");
}

#[test]
fn a_condition_that_depends_on_the_image_refuses_what_follows() {
    let conditional = |condition: &str, file: File| {
        let imported = choice(file, condition).import().unwrap();
        assert_eq!(layers(&imported).split(", ").next(), Some("relu relu"));
        reasons(&imported).join("; ")
    };
    assert_eq!(
        conditional("image", nodes()),
        "if (If): its condition depends on the values of the image, so no branch can be chosen"
    );
    assert_eq!(
        conditional("c", nodes().constant("c", &[2], &[1.0, 0.0])),
        "if (If): expected one truth value as its condition"
    );
    assert_eq!(conditional("", nodes()), "if (If): it has no condition");
    assert_eq!(
        conditional("c", nodes().node("LSTM", "lstm", "image -> c", &[])),
        "lstm (LSTM): the operation is not supported"
    );
    let one = branch("then_branch", nodes().node("Tanh", "tanh", "image -> t", &[]), &["t"]);
    let file = nodes().truth("c", true).node("Relu", "relu", "image -> r", &[]).node("If", "if", "c -> y", &[one]);
    assert_eq!(
        reasons_of(&file.node("Add", "add", "y, r -> z", &[]).output("z")),
        "if (If): it needs two branches with as many results as it has itself"
    );
}

/// A branch that is chosen by the size of the image is only right at that size.
#[test]
fn a_branch_chosen_by_the_size_of_the_image_is_bound_to_it() {
    let file = |axis: i64| {
        let file = nodes().int_constant("axis", &[axis]).int_constant("six", &[6]).int_constant("two", &[2]);
        let length = if axis == 1 { "two" } else { "six" };
        choice(
            file.node("Shape", "shape", "image -> s", &[]).node("Gather", "gather", "s, axis -> n", &[]).node(
                "Equal",
                "equal",
                &format!("n, {length} -> c"),
                &[],
            ),
            "c",
        )
        .import()
        .unwrap()
    };
    for (axis, anywhere) in [(1, true), (2, false)] {
        let network = file(axis).network;
        let order = [Network::INPUT, network.find("relu").unwrap(), network.find("tanh").unwrap()];
        assert!(network.shapes_at(&[2, 6, 6].into(), &order).is_ok());
        assert_eq!(network.shapes_at(&[2, 9, 9].into(), &order).is_ok(), anywhere, "axis {axis}");
    }
}
