//! Limits against files that are small on disk but large in memory.
//!
//! A protobuf field of two bytes can decode to a structure of two hundred, so fields are counted before anything is
//! decoded. In tensors only the entries of external data are counted: the values themselves grow by no more than a
//! small factor.

/// Largest file, in bytes: the limit of protobuf, 2 GiB.
const LARGEST_FILE: usize = i32::MAX as usize;

/// Maximum fields of models, graphs, nodes and attributes together. The largest published networks have about 100 000.
const MOST_FIELDS: usize = 1_000_000;

/// Deepest nesting of messages, as protobuf decoders allow it.
const MAX_DEPTH: usize = 100;

/// Longest description of a tensor's type and shape, in bytes.
const LONGEST_VALUE_INFO: usize = 1 << 16;

/// `TensorProto.external_data`
const EXTERNAL_DATA: u64 = 13;

/// The levels of the schema whose fields are counted.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Function,
    ValueInfo,
    Type,
    TensorType,
    Shape,
}

/// Rejects files that would need absurd amounts of memory, and files that are not protobuf.
///
/// # Errors
/// A phrase about the file.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() > LARGEST_FILE {
        return Err(format!("has {} bytes; protobuf files have at most {LARGEST_FILE}", bytes.len()));
    }
    count(bytes, Message::Model, 0, &mut 0)
}

fn count(bytes: &[u8], message: Message, depth: usize, fields: &mut usize) -> Result<(), String> {
    if depth >= MAX_DEPTH {
        return Err(format!("nests messages more than {MAX_DEPTH} deep"));
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let (tag, content) = next_field(&mut rest).ok_or("is truncated or damaged")?;
        if !matches!(message, Message::Tensor) || tag == EXTERNAL_DATA {
            *fields += 1;
        }
        if *fields > MOST_FIELDS {
            return Err(format!("has more than {MOST_FIELDS} fields"));
        }
        let Some(content) = content else { continue };
        let mut count = |message| count(content, message, depth + 1, fields);
        match (message, tag) {
            (Message::Model, 7) | (Message::Attribute, 6) => count(Message::Graph)?,
            (Message::Model, 25) => count(Message::Function)?,
            (Message::Graph, 1) | (Message::Function, 7) => count(Message::Node)?,
            (Message::Graph, 15) => count(Message::Sparse)?,
            (Message::Graph, 5) | (Message::Sparse, 1 | 2) | (Message::Attribute, 5) => count(Message::Tensor)?,
            (Message::Node, 5) | (Message::Function, 11) => count(Message::Attribute)?,
            (Message::Graph, 11..=13) if content.len() > LONGEST_VALUE_INFO => {
                return Err(format!("describes a tensor in {} bytes", content.len()));
            }
            (Message::Graph, 11..=13) => count(Message::ValueInfo)?,
            (Message::ValueInfo, 2) => count(Message::Type)?,
            (Message::Type, 1) => count(Message::TensorType)?,
            (Message::TensorType, 2) => count(Message::Shape)?,
            _ => {}
        }
    }
    Ok(())
}

/// Splits off one field: its number, and its content if it is length-delimited.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let key = varint(rest)?;
    let content = match key & 7 {
        0 => varint(rest).map(|_| None)?,
        1 => rest.split_off(..8).map(|_| None)?,
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Some(rest.split_off(..length)?)
        }
        5 => rest.split_off(..4).map(|_| None)?,
        // Groups (3 and 4) were never used in ONNX.
        _ => return None,
    };
    Some((key >> 3, content))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
