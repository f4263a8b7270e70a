//! Nodes behind one that cannot be computed are checked as well, so that all obstacles are listed at once.

use super::*;

/// An unknown operation, a convolution with too many groups behind it, and an unknown operation behind that.
fn file() -> File {
    File::new([2, 6, 6])
        .kernel("w", 4, 1, 3)
        .node("Relu", "relu", "image -> a", &[])
        .node("Unknown", "first", "a -> b", &[])
        .node("Conv", "conv", "b, w -> c", &[int("group", 3)])
        .node("Sigmoid", "gate", "c -> d", &[])
        .node("Softmax", "softmax", "d -> e", &[int("axis", 9)])
        .output("e")
}

fn obstacles(file: &File) -> Vec<String> {
    file.import().unwrap().unsupported.iter().map(|node| node.name.clone()).collect()
}

fn map(channels: i64, size: i64) -> Vec<Dimension> {
    [&[open("n")], [channels, size, size].map(dimension).as_slice()].concat()
}

#[test]
fn a_stated_shape_lets_what_follows_be_checked() {
    assert_eq!(obstacles(&file()), ["first"]);
    let stated = file().states("b", data_type::FLOAT, map(2, 6));
    assert_eq!(obstacles(&stated), ["first", "conv"]);
    let all = stated.states("c", data_type::FLOAT, map(4, 4));
    assert_eq!(obstacles(&all), ["first", "conv", "softmax"]);
    // Half precision is a floating-point type too; what integers follow is not looked at.
    assert_eq!(obstacles(&file().states("b", data_type::FLOAT16, map(2, 6))), ["first", "conv"]);
    assert_eq!(obstacles(&file().states("b", data_type::INT64, map(2, 6))), ["first"]);
}

#[test]
fn shapes_that_cannot_be_resolved_are_no_reason_to_refuse_more() {
    let unknown = [open("n"), dimension(2), open("other"), dimension(6)];
    assert_eq!(obstacles(&file().states("b", data_type::FLOAT, unknown.to_vec())), ["first"]);
    let negative = [open("n"), dimension(-3), dimension(6), dimension(6)];
    assert_eq!(obstacles(&file().states("b", data_type::FLOAT, negative.to_vec())), ["first"]);
}

#[test]
fn what_would_work_behind_an_obstacle_only_depends_on_it() {
    let file = File::new([2, 6, 6])
        .kernel("w", 4, 2, 3)
        .int_constant("target", &[0, -1])
        .node("Relu", "relu", "image -> a", &[])
        .node("Unknown", "first", "a -> b", &[])
        .node("Conv", "conv", "b, w -> c", &[])
        .node("Shape", "shape", "c -> s", &[])
        .node("Reshape", "reshape", "c, target -> d", &[])
        .node("Expand", "expand", "a, s -> x", &[])
        .node("Softmax", "softmax", "d -> e", &[int("axis", 2)])
        .output("e")
        .output("x")
        .states("b", data_type::FLOAT, map(2, 6));
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "relu relu");
    let names: Vec<&str> = imported.unsupported.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["first", "expand", "softmax"]);
    let dependent: Vec<String> = imported.network.unavailable().iter().map(ToString::to_string).collect();
    assert!(
        dependent
            .contains(&"conv (Conv) depends on first, which cannot be computed: the operation is not supported".into()),
        "{dependent:?}"
    );
}

#[test]
fn an_operation_that_keeps_the_shape_needs_no_statement() {
    let file = File::new([2, 6, 6])
        .kernel("w", 4, 1, 3)
        .node("Relu", "relu", "image -> a", &[])
        .node("Hardmax", "first", "a -> b", &[])
        .node("Conv", "conv", "b, w -> c", &[int("group", 3)])
        .output("c");
    assert_eq!(obstacles(&file), ["first", "conv"]);
}

#[test]
fn stated_shapes_count_towards_the_limits() {
    let axes = vec![dimension(1); 40_000];
    let error = file().states("b", data_type::FLOAT, axes).import().unwrap_err().to_string();
    assert!(error.contains("describes a tensor in"), "{error}");
    let mut many = file();
    for i in 0..110_000 {
        many = many.states(&i.to_string(), data_type::FLOAT, map(2, 6));
    }
    let error = many.import().unwrap_err().to_string();
    assert!(error.contains("more than 1000000 fields"), "{error}");
}
