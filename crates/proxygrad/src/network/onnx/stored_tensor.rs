//! Reads stored tensors (`TensorProto`) into constant tensors.

use super::const_tensor::{ConstData, ConstTensor, MOST_AXES, product};
use super::external_data::{self, ExternalData};
use super::proto::TensorProto;

/// Numbers of ONNX's element types (`TensorProto.DataType`).
pub(super) mod data_type {
    pub const FLOAT: i32 = 1;
    pub const UINT8: i32 = 2;
    pub const INT8: i32 = 3;
    pub const UINT16: i32 = 4;
    pub const INT16: i32 = 5;
    pub const INT32: i32 = 6;
    pub const INT64: i32 = 7;
    pub const BOOL: i32 = 9;
    pub const FLOAT16: i32 = 10;
    pub const DOUBLE: i32 = 11;
    pub const UINT32: i32 = 12;
    pub const UINT64: i32 = 13;
    pub const BFLOAT16: i32 = 16;
    pub const FLOAT8E4M3FN: i32 = 17;
    pub const FLOAT8E5M2: i32 = 19;
    pub const UINT4: i32 = 21;
    pub const INT4: i32 = 22;

    /// Whether the type is read as f32.
    pub fn is_float(data_type: i32) -> bool {
        matches!(data_type, FLOAT | FLOAT16 | DOUBLE | BFLOAT16)
    }

    /// Whether the type is read as i64.
    pub fn is_integer(data_type: i32) -> bool {
        matches!(data_type, UINT8 | INT8 | UINT16 | INT16 | INT32 | INT64 | UINT32 | UINT64)
    }

    /// The type's name in the ONNX schema.
    pub fn name(data_type: i32) -> String {
        const NAMES: [&str; 24] = [
            "UNDEFINED",
            "FLOAT",
            "UINT8",
            "INT8",
            "UINT16",
            "INT16",
            "INT32",
            "INT64",
            "STRING",
            "BOOL",
            "FLOAT16",
            "DOUBLE",
            "UINT32",
            "UINT64",
            "COMPLEX64",
            "COMPLEX128",
            "BFLOAT16",
            "FLOAT8E4M3FN",
            "FLOAT8E4M3FNUZ",
            "FLOAT8E5M2",
            "FLOAT8E5M2FNUZ",
            "UINT4",
            "INT4",
            "FLOAT4E2M1",
        ];
        let known = usize::try_from(data_type).ok().and_then(|i| NAMES.get(i));
        known.map_or_else(|| format!("number {data_type}"), |&name| name.into())
    }
}

/// [`TensorProto::data_location`] of values in another file.
pub(super) const EXTERNAL: i32 = 1;

/// Reads a stored tensor, whose values may be in one of `files`. Floating-point types become f32, integers i64.
///
/// # Errors
/// A phrase about the tensor: its values are missing, have an unsupported type, or do not match its dimensions.
pub(super) fn read(tensor: &TensorProto, files: &ExternalData) -> Result<ConstTensor, String> {
    if tensor.segment.is_some() {
        return Err("is stored in segments".into());
    }
    if tensor.dims.len() > MOST_AXES {
        return Err(format!("has {} axes", tensor.dims.len()));
    }
    let shape: Vec<usize> = tensor
        .dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| format!("has dimensions {:?}", tensor.dims)))
        .collect::<Result<_, _>>()?;
    let count = product(&shape).ok_or_else(|| format!("has dimensions {shape:?}"))?;
    if matches!(tensor.data_type, data_type::UINT4 | data_type::INT4) {
        return read_nibbles(tensor, files, shape, count);
    }
    let (width, typed) = stored(tensor)?;
    let raw = match tensor.data_location {
        0 => tensor.raw_data.as_slice(),
        EXTERNAL => {
            let bytes = count.checked_mul(width).ok_or_else(|| format!("has dimensions {shape:?}"))?;
            external_data::stored(tensor, files, bytes)?
        }
        other => return Err(format!("has the unknown data_location {other}")),
    };
    let found = if raw.is_empty() { Some(typed) } else { raw.len().is_multiple_of(width).then_some(raw.len() / width) };
    if found != Some(count) {
        let found = found.map_or_else(|| format!("{} bytes", raw.len()), |n| format!("{n} values"));
        return Err(format!("has dimensions {shape:?} but holds {found}"));
    }
    Ok(ConstTensor::new(shape, data(tensor, raw))?.stored_as(tensor.data_type))
}

/// Reads integers of 4 bits, two per byte, the first one in the lower half.
fn read_nibbles(
    tensor: &TensorProto,
    files: &ExternalData,
    shape: Vec<usize>,
    count: usize,
) -> Result<ConstTensor, String> {
    let needed = count.div_ceil(2);
    let typed: Vec<u8> = tensor.int32_data.iter().map(|&v| v as u8).collect();
    let bytes = match tensor.data_location {
        EXTERNAL => external_data::stored(tensor, files, needed)?,
        _ if tensor.raw_data.is_empty() => &typed,
        _ => &tensor.raw_data,
    };
    if bytes.len() != needed {
        return Err(format!("has dimensions {shape:?} but holds {} bytes", bytes.len()));
    }
    let signed = tensor.data_type == data_type::INT4;
    let value = |nibble: u8| i64::from(nibble) - if signed && nibble > 7 { 16 } else { 0 };
    let values = bytes.iter().flat_map(|&byte| [value(byte & 0xf), value(byte >> 4)]).take(count);
    Ok(ConstTensor::new(shape, ConstData::Int(values.collect()))?.stored_as(tensor.data_type))
}

/// Bytes per value, and number of values in the field of their type.
fn stored(tensor: &TensorProto) -> Result<(usize, usize), String> {
    use data_type::*;
    Ok(match tensor.data_type {
        FLOAT => (4, tensor.float_data.len()),
        UINT8 | INT8 | BOOL | FLOAT8E4M3FN | FLOAT8E5M2 => (1, tensor.int32_data.len()),
        UINT16 | INT16 | FLOAT16 | BFLOAT16 => (2, tensor.int32_data.len()),
        INT32 => (4, tensor.int32_data.len()),
        INT64 => (8, tensor.int64_data.len()),
        DOUBLE => (8, tensor.double_data.len()),
        UINT32 => (4, tensor.uint64_data.len()),
        UINT64 => (8, tensor.uint64_data.len()),
        other => return Err(format!("has element type {}, which is not supported", name(other))),
    })
}

/// The values of a tensor of a supported type: those in `raw` or, if that is empty, in the field of their type.
fn data(tensor: &TensorProto, raw: &[u8]) -> ConstData {
    use data_type::*;
    let in_raw = !raw.is_empty();
    let halves = |decode: fn(u16) -> f32| match in_raw {
        true => ConstData::Float(chunks(raw).map(|b| decode(u16::from_le_bytes(b))).collect()),
        false => ConstData::Float(tensor.int32_data.iter().map(|&v| decode(v as u16)).collect()),
    };
    let bytes = |decode: fn(u8) -> f32| match in_raw {
        true => ConstData::Float(raw.iter().map(|&b| decode(b)).collect()),
        false => ConstData::Float(tensor.int32_data.iter().map(|&v| decode(v as u8)).collect()),
    };
    let ints = |raw_ints: Box<dyn Iterator<Item = i64> + '_>| match (in_raw, tensor.data_type) {
        (true, _) => ConstData::Int(raw_ints.collect()),
        (false, INT64) => ConstData::Int(tensor.int64_data.as_slice().into()),
        (false, UINT32 | UINT64) => ConstData::Int(tensor.uint64_data.iter().map(|&v| clamped(v)).collect()),
        (false, _) => ConstData::Int(tensor.int32_data.iter().map(|&v| v.into()).collect()),
    };
    match tensor.data_type {
        FLOAT if in_raw => ConstData::Float(chunks(raw).map(f32::from_le_bytes).collect()),
        FLOAT => ConstData::Float(tensor.float_data.as_slice().into()),
        DOUBLE if in_raw => ConstData::Float(chunks(raw).map(|b| f64::from_le_bytes(b) as f32).collect()),
        DOUBLE => ConstData::Float(tensor.double_data.iter().map(|&v| v as f32).collect()),
        FLOAT16 => halves(half),
        FLOAT8E4M3FN => bytes(float8_e4m3),
        // The upper half of a binary16.
        FLOAT8E5M2 => bytes(|bits| half(u16::from(bits) << 8)),
        BFLOAT16 => halves(|bits| f32::from_bits(u32::from(bits) << 16)),
        BOOL if in_raw => ConstData::Bool(raw.iter().map(|&b| b != 0).collect()),
        BOOL => ConstData::Bool(tensor.int32_data.iter().map(|&v| v != 0).collect()),
        UINT8 => ints(Box::new(raw.iter().map(|&b| b.into()))),
        INT8 => ints(Box::new(raw.iter().map(|&b| (b as i8).into()))),
        UINT16 => ints(Box::new(chunks(raw).map(|b| u16::from_le_bytes(b).into()))),
        INT16 => ints(Box::new(chunks(raw).map(|b| i16::from_le_bytes(b).into()))),
        INT32 => ints(Box::new(chunks(raw).map(|b| i32::from_le_bytes(b).into()))),
        UINT32 => ints(Box::new(chunks(raw).map(|b| u32::from_le_bytes(b).into()))),
        UINT64 => ints(Box::new(chunks(raw).map(|b| clamped(u64::from_le_bytes(b))))),
        _ => ints(Box::new(chunks(raw).map(i64::from_le_bytes))),
    }
}

fn chunks<const N: usize>(raw: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    raw.as_chunks().0.iter().copied()
}

/// Lengths and indices beyond i64 mean "as far as possible", and so does the largest i64.
fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Eight bits with a sign, four bits of exponent and three of mantissa, without infinities
/// (Micikevicius et al. 2022, arXiv:2209.05433).
fn float8_e4m3(bits: u8) -> f32 {
    let sign = if bits >> 7 == 1 { -1.0 } else { 1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 3 & 0xf), f32::from(bits & 7));
    sign * match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    }
}

/// IEEE 754 binary16, every value of which is exact in f32.
pub(in crate::network) fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => mantissa * 2f32.powi(-24),
        31 if mantissa == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + mantissa) * 2f32.powi(exponent - 25),
    }
}
