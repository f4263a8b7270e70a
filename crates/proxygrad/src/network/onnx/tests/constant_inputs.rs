//! Inputs besides the image.

use super::*;
use crate::network::Op;

/// `image * keep + shift`, where `shift` has an open axis, and a switch.
fn file() -> File {
    let mut file = File::new([2, 4, 4])
        .node("Mul", "scaled", "image, keep -> a", &[])
        .node("Cast", "number", "steps -> b", &[int("to", 1)])
        .node("Add", "shifted", "a, b -> c", &[])
        .node("Dropout", "dropout", "c, keep, training -> y", &[])
        .output("y");
    file.graph().input.extend([
        value_info("keep", data_type::FLOAT, vec![]),
        value_info("steps", data_type::INT64, vec![open("n"), dimension(4)]),
        value_info("training", data_type::BOOL, vec![]),
    ]);
    file
}

fn import_given(constants: &[(&str, f64)]) -> Result<Imported, String> {
    let constants = constants.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    let options = ImportOptions { constants, ..ImportOptions::default() };
    import_with(&file().bytes(), &ExternalData::default(), &options).map_err(|why| why.to_string())
}

#[test]
fn inputs_besides_the_image_get_a_constant_value() {
    let imported = import_given(&[("keep", 0.5), ("steps", 3.0), ("training", 0.0)]).unwrap();
    assert_eq!(imported.input_name, "image");
    assert_eq!(layers(&imported), "scaled affine, y add");
    let op = &imported.network.node(imported.network.find("scaled").unwrap()).op;
    assert!(matches!(op, Op::Affine { scale, .. } if *scale.data() == [0.5, 0.5]), "{op:?}");
    let training = import_given(&[("keep", 0.5), ("steps", 3.0), ("training", 1.0)]).unwrap();
    assert_eq!(training.unsupported[0].name, "dropout");
}

#[test]
fn a_missing_value_and_a_wrong_one_are_named() {
    for (given, expected) in [
        (
            &[][..],
            "found 4 inputs (image, keep, steps, training); give the others a constant value, for example \
             --constant keep=1 --constant steps=1 --constant training=1",
        ),
        (&[("keep", 1.0), ("training", 0.0)], "give the other one a constant value, for example --constant steps=1"),
        (
            &[("keep", 1.0), ("steps", 1.0), ("training", 0.0), ("kep", 1.0)],
            "kep cannot have a constant value; the network has keep, steps, training",
        ),
        (&[("keep", 1.0), ("steps", 0.5), ("training", 0.0)], "steps cannot be 0.5; expected an integer"),
        (&[("keep", 1.0), ("steps", 1.0), ("training", 2.0)], "training cannot be 2; expected 0 (false) or 1 (true)"),
        (&[("keep", f64::NAN), ("steps", 1.0), ("training", 0.0)], "keep cannot be NaN; expected a finite number"),
    ] {
        let error = import_given(given).unwrap_err();
        assert!(error.contains(expected), "{error}\n  should say\n{expected}");
    }
}

#[test]
fn inputs_that_are_no_tensors_cannot_have_a_value() {
    let mut file = File::new([2, 4, 4]).node("SequenceAt", "first", "list, image -> y", &[]).output("y");
    file.graph().input.push(ValueInfoProto { name: "list".into(), r#type: Some(TypeProto::default()) });
    let constants = [("list".to_owned(), 1.0)].into();
    let options = ImportOptions { constants, ..ImportOptions::default() };
    let error = import_with(&file.bytes(), &ExternalData::default(), &options).unwrap_err().to_string();
    assert!(error.contains("list is not a tensor, so it cannot have a constant value"), "{error}");
}
