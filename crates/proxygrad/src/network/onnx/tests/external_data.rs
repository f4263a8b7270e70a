//! Weights in external data files.

use super::*;
use crate::network::onnx::external_files;

fn entries(pairs: &[(&str, &str)]) -> Vec<StringStringEntryProto> {
    pairs.iter().map(|&(key, value)| StringStringEntryProto { key: key.into(), value: value.into() }).collect()
}

/// A 1x1 convolution whose two weights, 0.5 and -2, are the bytes 8 to 16 of `net.data`.
fn file(pairs: &[(&str, &str)]) -> (File, ExternalData) {
    let mut file = File::new([2, 3, 3]).node("Conv", "conv", "image, w -> y", &[]).output("y");
    file.graph().initializer.push(TensorProto {
        name: "w".into(),
        data_type: data_type::FLOAT,
        dims: vec![1, 2, 1, 1],
        data_location: 1,
        external_data: entries(pairs),
        ..TensorProto::default()
    });
    let mut files = ExternalData::default();
    files.insert("net.data", [1.0f32, 1.0, 0.5, -2.0, 1.0].iter().flat_map(|v| v.to_le_bytes()).collect());
    (file, files)
}

fn import_both((file, files): &(File, ExternalData)) -> Result<Imported, ImportError> {
    import_with(&file.bytes(), files, &ImportOptions::default())
}

#[test]
fn offset_and_length_choose_the_bytes() {
    for pairs in [
        &[("location", "net.data"), ("offset", "8"), ("length", "8")][..],
        &[("length", "8"), ("offset", "8"), ("location", "./net.data"), ("checksum", "0")],
        &[("location", "net.data"), ("offset", "8")],
    ] {
        let given = file(pairs);
        assert_eq!(external_files(&given.0.bytes()).unwrap().into_iter().collect::<Vec<_>>(), ["net.data"]);
        let imported = import_both(&given).unwrap();
        let crate::network::Op::Conv(conv) = &imported.network.node(NodeId(1)).op else { panic!("no convolution") };
        assert_eq!(conv.weight.data()[..], [0.5, -2.0]);
    }
}

#[test]
fn invalid_entries_are_named() {
    let place = |offset: &str, length: &str| {
        import_both(&file(&[("location", "net.data"), ("offset", offset), ("length", length)])).unwrap_err().to_string()
    };
    for (offset, length, expected) in [
        ("16", "8", "Conv (conv): input w needs 8 bytes at offset 16 of net.data, which has only 20 bytes"),
        ("18446744073709551615", "8", "input w needs 8 bytes at offset 18446744073709551615 of net.data"),
        ("8", "12", "input w has dimensions [1, 2, 1, 1], which need 8 bytes, but 12 bytes in net.data"),
        ("8", "0", "but 0 bytes in net.data"),
        ("-8", "8", "input w has offset \"-8\" in its external data; expected a number of bytes"),
        ("8", "99999999999999999999", "has length \"99999999999999999999\" in its external data"),
        ("8.0", "8", "has offset \"8.0\""),
    ] {
        let error = place(offset, length);
        assert!(error.contains(expected), "{error}\n  should say\n{expected}");
    }
    let (without, _) = file(&[("location", "net.data")]);
    let error = without.import().unwrap_err().to_string();
    assert!(error.contains("input w is stored in the file net.data, which is missing"), "{error}");
}

#[test]
fn only_names_of_files_in_the_folder_are_taken() {
    let long = "x".repeat(256);
    for location in ["", ".", "..", "../w", "/w", "a/b", "./../w", "a\\b", "c:w", "a\0b", ".hidden", long.as_str()] {
        let given = file(&[("location", location)]);
        let error = external_files(&given.0.bytes()).unwrap_err().to_string();
        assert!(error.starts_with("cannot read external data: tensor w is stored in "), "{error}");
        assert!(import_both(&given).is_err());
    }
    assert!(external_files(&file(&[("offset", "0")]).0.bytes()).is_err());
}

/// Many tensors that share the same bytes are rejected before memory is allocated for them.
#[test]
fn the_same_bytes_cannot_be_used_by_any_number_of_tensors() {
    let mut nodes = File::new([1, 1, 1]);
    let count = 1 << 18;
    for i in 0..200 {
        nodes = nodes.node("Conv", &format!("conv{i}"), &format!("x{i}, w{i} -> x{}", i + 1), &[]);
        nodes.graph().initializer.push(TensorProto {
            name: format!("w{i}"),
            data_type: data_type::FLOAT,
            dims: vec![512, 512, 1, 1],
            data_location: 1,
            external_data: entries(&[("location", "net.data")]),
            ..TensorProto::default()
        });
    }
    let mut file = nodes.output("x200");
    file.graph().input[0] = value_info("x0", data_type::FLOAT, [1, 512, 1, 1].map(dimension).to_vec());
    let mut files = ExternalData::default();
    files.insert("net.data", vec![0; count * 4]);
    let error = import_both(&(file, files)).unwrap_err().to_string();
    assert!(error.contains("it needs more memory than the weights of a file of this size should"), "{error}");
}

#[test]
fn entries_are_counted_before_they_are_read() {
    // A million entries of two bytes each in one tensor.
    let mut tensor = [0x6a, 0x00].repeat(1_000_001);
    let mut graph = vec![0x2a];
    prost::encoding::encode_varint(tensor.len() as u64, &mut graph);
    graph.append(&mut tensor);
    let mut bytes = vec![0x3a];
    prost::encoding::encode_varint(graph.len() as u64, &mut bytes);
    bytes.append(&mut graph);
    for error in [import(&bytes).unwrap_err(), external_files(&bytes).unwrap_err()] {
        assert_eq!(error.to_string(), "not an ONNX model: the file has more than 1000000 fields");
    }
}
