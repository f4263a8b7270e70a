//! Pickles written by Python (`tests/data/checkpoints/make.py`) and by hand.
#![allow(clippy::unwrap_used)]

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/checkpoints/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn refusal(file: &[u8]) -> String {
    Pickle::read(file, 0).unwrap_err().to_string()
}

#[test]
fn plain_values_come_back() {
    let file = fixture("plain-list.pkl");
    let (pickle, end) = Pickle::read(&file, 0).unwrap();
    assert_eq!(end, file.len());
    let Object::List(items) = pickle.root() else { panic!("{:?}", pickle.root()) };
    let values: Vec<_> = items.iter().map(|&item| pickle.get(item).clone()).collect();
    assert_eq!(values, [Object::Int(1), Object::Float(2.5), Object::Text("three")]);
}

#[test]
fn a_pickle_that_would_call_a_function_is_rejected_by_the_functions_name() {
    assert!(refusal(&fixture("hostile-system.pkl")).contains("\"posix.system\" is not allowed"));
    assert!(refusal(&fixture("hostile-eval.pkl")).contains("\"builtins.eval\" is not allowed"));
    // The same through INST, which calls without REDUCE, and through an extension registry code.
    assert!(refusal(b"\x80\x02(U\x02idios\nsystem\n.").contains("0x69 is not allowed"));
    assert!(refusal(b"\x80\x02\x82\x01.").contains("0x82 is not allowed"));
}

#[test]
fn long_names_are_shortened_in_the_message() {
    let name = "x".repeat(100_000);
    assert!(refusal(format!("c{name}\n{name}\n.").as_bytes()).len() < 300);
}

#[test]
fn lengths_beyond_the_end_of_the_file_are_errors_and_allocate_nothing() {
    for program in [
        &b"\x80\x02X\xff\xff\xff\xff"[..],
        b"\x80\x03B\xff\xff\xff\xff",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x80\x02\x8b\xff\xff\xff\xff",
        b"\x80\x02\x8a\xff",
    ] {
        let why = refusal(program);
        assert!(why.contains("the file is truncated: expected"), "{why}");
    }
}

#[test]
fn nesting_may_be_as_deep_as_the_limit_on_objects() {
    let mut deep = b"\x80\x02".to_vec();
    deep.extend(std::iter::repeat_n(b']', 300_000));
    deep.extend(std::iter::repeat_n(b'a', 299_999));
    deep.push(b'.');
    assert!(matches!(Pickle::read(&deep, 0).unwrap().0.root(), Object::List(items) if items.len() == 1));

    for filler in [b']', b'(', b'2'] {
        let mut endless = b"\x80\x02]".to_vec();
        endless.extend(std::iter::repeat_n(filler, Pickle::MOST_OBJECTS + 1));
        assert!(refusal(&endless).contains("more than 1000000 objects"));
    }
}

#[test]
fn references_double_an_object_without_doubling_the_memory() {
    // Thirty lists, each containing its predecessor twice: 2^30 paths through 30 objects.
    let mut laughs = b"\x80\x02]q\x00".to_vec();
    for i in 0..30u8 {
        laughs.extend([b'0', b']', b'h', i, b'a', b'h', i, b'a', b'q', i + 1]);
    }
    laughs.push(b'.');
    let (pickle, _) = Pickle::read(&laughs, 0).unwrap();
    assert_eq!(pickle.objects.len(), 31);
    // A list that contains itself.
    assert!(Pickle::read(b"\x80\x02]q\x00h\x00a.", 0).is_ok());
}

#[test]
fn broken_programs_are_errors() {
    for (program, expected) in [
        (&b""[..], "the file is truncated"),
        (b"\x80\x02", "the file is truncated"),
        (b"\x80\x02.", "too few values"),
        (b"\x80\x02t.", "no mark"),
        (b"\x80\x02](0.", "too few values"),
        (b"\x80\x02K\x01K\x02a.", "cannot append to an integer"),
        (b"\x80\x02](K\x01u.", "a dict key has no value"),
        (b"\x80\x02](K\x01K\x02u.", "cannot set items of a list"),
        (b"\x80\x02h\x07.", "memo entry 7 does not exist"),
        (b"\x80\x02K\x01)R.", "cannot call an integer"),
        (b"\x80\x02cnumpy\ndtype\nK\x01R.", "cannot call numpy.dtype with an integer"),
        (b"\x80\x02K\x01K\x02b.", "cannot set the state of an integer"),
        (b"\x80\x02X\x01\0\0\0\xff.", "not UTF-8"),
        (b"cos", "truncated within a name"),
        (b"\x80\x00.", "protocol 0 is not supported"),
        (b"\x80\x02I1\n.", "0x49 is not allowed"),
    ] {
        let why = refusal(program);
        assert!(why.contains(expected), "{program:?}: {why}");
    }
}

#[test]
fn integers_of_all_sizes_keep_their_sign() {
    for (program, expected) in [
        (&b"\x80\x02J\xff\xff\xff\xff."[..], Object::Int(-1)),
        (b"\x80\x02M\xff\xff.", Object::Int(65535)),
        (b"\x80\x02\x8a\x00.", Object::Int(0)),
        (b"\x80\x02\x8a\x01\xfe.", Object::Int(-2)),
        (b"\x80\x02\x8a\x09\0\0\0\0\0\0\0\0\x01.", Object::Long(&[0, 0, 0, 0, 0, 0, 0, 0, 1])),
    ] {
        assert_eq!(*Pickle::read(program, 0).unwrap().0.root(), expected, "{program:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_machine_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        drop(Pickle::read(&bytes, 0));
    }
}
