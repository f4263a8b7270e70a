//! Recognizes common file formats that are not ONNX by their magic numbers.

/// Longest first line of a text that is quoted, in characters.
const MAX_LINE: usize = 60;

/// Magic numbers: offset, bytes, and a phrase that says what the file is.
const SIGNATURES: [(usize, &[u8], &str); 24] = [
    (
        0,
        b"version https://git-lfs.github.com/spec/",
        "is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`",
    ),
    (0, b"\x89HDF\r\n\x1a\n", "is an HDF5 file, such as Keras saves; convert the network to ONNX"),
    (4, b"TFL3", "is a TensorFlow Lite model; convert the network to ONNX"),
    (4, b"ORTM", "is a model in ONNX Runtime's own format (.ort); use the .onnx file that it was made from"),
    (0, b"\x1f\x8b", "is compressed with gzip; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it first"),
    (0, b"\xfd7zXZ\0", "is compressed with xz; unpack it first"),
    (0, b"BZh", "is compressed with bzip2; unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it first"),
    (0, b"Rar!\x1a\x07", "is a RAR archive; unpack it first"),
    (257, b"ustar", "is a tar archive; unpack it first"),
    (0, b"\x80\x02", PICKLE),
    (0, b"\x80\x03", PICKLE),
    (0, b"\x80\x04", PICKLE),
    (0, b"\x80\x05", PICKLE),
    (0, b"\x93NUMPY", "is a NumPy array"),
    (0, b"GGUF", "is a GGUF file"),
    (0, b"\x89PNG\r\n\x1a\n", "is a PNG image"),
    (0, b"\xff\xd8\xff", "is a JPEG image"),
    (0, b"%PDF-", "is a PDF document"),
    (0, b"\x7fELF", "is a program (ELF)"),
    (0, b"MZ\x90\0", "is a program (Windows)"),
    (0, b"SQLite format 3\0", "is an SQLite database"),
    (0, b"ptrt", "is a TensorRT engine; use the .onnx file that it was made from"),
];

const PICKLE: &str = "is a Python pickle, such as older versions of torch.save write; export the network to ONNX";

/// A phrase such as `is a PNG image` if the first bytes show that a file is not ONNX.
pub(super) fn other_format(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return Some("is empty".into());
    }
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    if let Some((.., what)) = SIGNATURES.iter().find(|(offset, magic, _)| at(*offset, magic)) {
        return Some((*what).into());
    }
    if at(0, b"PK\x03\x04") || at(0, b"PK\x05\x06") {
        return Some(zip(bytes).into());
    }
    if at(8, b"{\"") && bytes.first_chunk().is_some_and(|&length| u64::from_le_bytes(length) < 1 << 27) {
        return Some("is a safetensors file, which holds weights without a graph; export the network to ONNX".into());
    }
    if bytes.len() >= 16 && bytes.iter().all(|&byte| byte == 0) {
        return Some("contains only zeros".into());
    }
    text(bytes)
}

/// The kind of a zip archive, by the name of its first file.
fn zip(bytes: &[u8]) -> &'static str {
    let name = bytes.get(30..).unwrap_or_default();
    let name = &name[..name.len().min(200)];
    let has = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
    if has(b"data.pkl") || has(b".format_version") || has(b"/byteorder") || has(b"/version") {
        "is a PyTorch checkpoint (a zip archive); export the network with torch.onnx.export"
    } else if has(b"metadata.json") || has(b"config.json") || has(b".weights.h5") {
        "is a Keras model (a zip archive); convert the network to ONNX"
    } else {
        "is a zip archive; unpack it first"
    }
}

/// The kind of a text file. An ONNX file is never text: it begins with a field number, which is not printable.
fn text(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let head = &bytes[..bytes.len().min(512)];
    let head = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The cut may split a character.
        Err(cut) if cut.error_len().is_none() => std::str::from_utf8(&head[..cut.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let head = head.trim_start();
    if head.is_empty() || head.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let lowered = head.to_lowercase();
    if lowered.starts_with("<!doctype html") || lowered.starts_with("<html") {
        return Some("is an HTML page, such as a website shows instead of a download".into());
    }
    Some(match head.chars().next() {
        Some('{' | '[') => "is JSON".into(),
        Some('<') => "is an XML document".into(),
        _ => {
            let line: String = head.lines().next().unwrap_or_default().chars().take(MAX_LINE).collect();
            format!("is a text that begins with {line:?}")
        }
    })
}

/// Whether a protobuf file without an ONNX graph is a TensorFlow graph, by operation names near its beginning.
pub(super) fn is_tensorflow(bytes: &[u8]) -> bool {
    const MAX_HEAD: usize = 1 << 16;
    let head = &bytes[..bytes.len().min(MAX_HEAD)];
    let has = |part: &[u8]| head.windows(part.len()).any(|window| window == part);
    has(b"Placeholder") || has(b"VarHandleOp") || has(b"tensorflow") || has(b"saved_model") || has(b"serving_default")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn files_are_recognized_by_their_first_bytes() {
        let padded = |offset: usize, magic: &[u8]| [vec![1; offset], magic.to_vec()].concat();
        let zipped = |name: &[u8]| [b"PK\x03\x04".to_vec(), vec![0; 26], name.to_vec()].concat();
        let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let safetensors = [(header.len() as u64).to_le_bytes().to_vec(), header.to_vec(), vec![0; 4]].concat();
        for (bytes, expected) in [
            (b"".to_vec(), "is empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(), "Git LFS pointer"),
            (b"\x89HDF\r\n\x1a\n\0\0".to_vec(), "HDF5"),
            (padded(4, b"TFL3"), "TensorFlow Lite"),
            (padded(4, b"ORTM"), ".ort"),
            (padded(257, b"ustar\0"), "tar archive"),
            (b"\x1f\x8b\x08\0".to_vec(), "gzip"),
            (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), "pickle"),
            (zipped(b"archive/data.pkl"), "PyTorch checkpoint"),
            (zipped(b"net/data.pklFB"), "PyTorch checkpoint"),
            (zipped(b"metadata.json"), "Keras model"),
            (zipped(b"model.onnx"), "is a zip archive; unpack it"),
            (safetensors, "safetensors"),
            (b"\n\n<!DOCTYPE html><html>".to_vec(), "HTML page"),
            (b"<?xml version='1.0'?><Error>AccessDenied".to_vec(), "XML"),
            (b"\xef\xbb\xbf{\"error\": 1}".to_vec(), "is JSON"),
            (b"Entry not found".to_vec(), "is a text that begins with \"Entry not found\""),
            (vec![0; 100], "only zeros"),
        ] {
            let found = other_format(&bytes).unwrap();
            assert!(found.contains(expected), "{found}: {expected}");
        }
    }

    #[test]
    fn an_onnx_file_is_not_mistaken() {
        let file = include_bytes!("../../assets/fashion-resnet8/model.onnx");
        assert_eq!(other_format(file), None);
        assert!(!is_tensorflow(file));
    }
}
