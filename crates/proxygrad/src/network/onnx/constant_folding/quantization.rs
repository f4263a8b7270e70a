//! Quantization of constants, such as weights that are stored as integers.

use super::super::const_tensor::{ConstData, ConstTensor};
use super::super::node_context::{NodeContext, axis, length};
use super::super::stored_tensor::data_type;

type Folded = Result<Vec<ConstTensor>, String>;

/// <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html> per tensor, per axis, or per block.
pub(super) fn dequantize_linear(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let grid = Grid::new(ctx, value.shape())?;
    let values = numbers(value)?;
    let dequantized = values.iter().enumerate().map(|(i, v)| {
        let (scale, zero) = grid.at(i);
        ((v - zero) * scale) as f32
    });
    Ok(vec![ConstTensor::new(value.shape().to_vec(), ConstData::Float(dequantized.collect()))?])
}

/// <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html> to integers, per tensor, per axis, or per block.
pub(super) fn quantize_linear(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let grid = Grid::new(ctx, value.shape())?;
    let (low, high, element) = quantized_range(ctx)?;
    let values = value.floats()?;
    let quantized = values.iter().enumerate().map(|(i, &v)| {
        let (scale, zero) = grid.at(i);
        ((f64::from(v) / scale).round_ties_even() + zero).clamp(low, high) as i64
    });
    let tensor = ConstTensor::new(value.shape().to_vec(), ConstData::Int(quantized.collect()))?;
    Ok(vec![tensor.stored_as(element)])
}

/// Smallest and largest integer that a `QuantizeLinear` returns, and their element type: that of its zero point or of
/// `output_dtype`, UINT8 without either.
///
/// # Errors
/// When the type is not one of integers of at most 16 bits.
pub(in super::super) fn quantized_range(ctx: &NodeContext) -> Result<(f64, f64, i32), String> {
    let given = ctx.int("output_dtype")?.filter(|&kind| kind != 0).and_then(|kind| i32::try_from(kind).ok());
    let element = match (ctx.optional_constant(2)?, given) {
        (_, Some(element)) => element,
        (Some(zero), None) => zero.element().ok_or("the element type of its zero point is unknown")?,
        (None, None) => data_type::UINT8,
    };
    let (low, high) = match element {
        data_type::INT8 => (-128.0, 127.0),
        data_type::UINT8 => (0.0, 255.0),
        data_type::INT16 => (-32768.0, 32767.0),
        data_type::UINT16 => (0.0, 65535.0),
        data_type::INT4 => (-8.0, 7.0),
        data_type::UINT4 => (0.0, 15.0),
        other => return Err(format!("quantization to {} is not supported", data_type::name(other))),
    };
    Ok((low, high, element))
}

/// Values of a tensor of any number type.
fn numbers(value: &ConstTensor) -> Result<Vec<f64>, String> {
    Ok(match value.data() {
        ConstData::Float(_) => value.floats()?.iter().map(|&v| v.into()).collect(),
        ConstData::Int(_) => value.ints()?.iter().map(|&v| v as f64).collect(),
        ConstData::Bool(_) => return Err("expected numbers, found truth values".into()),
    })
}

/// Scales and zero points of a quantized tensor.
struct Grid {
    scales: Vec<f64>,
    /// One per scale; empty if all are 0.
    zeros: Vec<f64>,
    /// Lengths of the quantized axis and of one block on it, product of the axes after it, and number of scales on it.
    blocks: [usize; 4],
}

impl Grid {
    fn new(ctx: &NodeContext, shape: &[usize]) -> Result<Self, String> {
        let scale = ctx.constant(1)?;
        let scales: Vec<f64> = scale.floats()?.iter().map(|&v| v.into()).collect();
        if !scales.iter().all(|scale| scale.is_finite() && *scale > 0.0) {
            return Err("its scales contain a number that is not above 0".into());
        }
        let zeros = ctx.optional_constant(2)?.map(numbers).transpose()?.unwrap_or_default();
        if !zeros.is_empty() && zeros.len() != scales.len() {
            return Err(format!("it has {} zero points for {} scales", zeros.len(), scales.len()));
        }
        if scales.len() == 1 && scale.shape().len() <= 1 {
            return Ok(Self { scales, zeros, blocks: [1, 1, 1, 1] });
        }
        let axis = axis(ctx.int("axis")?.unwrap_or(1), shape.len())?;
        let (total, after) = (shape[axis], shape[axis + 1..].iter().product());
        let block = length(ctx.int("block_size")?.unwrap_or(0), "block_size")?;
        let (block, per_axis) = if block == 0 { (1, true) } else { (block, false) };
        let count = total.div_ceil(block);
        let mut expected = if per_axis { vec![count] } else { shape.to_vec() };
        if !per_axis {
            expected[axis] = count;
        }
        if scale.shape() != expected.as_slice() {
            return Err(format!("it has scales of shape {:?}; expected {expected:?}", scale.shape()));
        }
        // Scales of blocks repeat the axes around the quantized one.
        Ok(Self { scales, zeros, blocks: [total, block, after, if per_axis { 0 } else { count }] })
    }

    /// Scale and zero point of element `i`.
    fn at(&self, i: usize) -> (f64, f64) {
        let [total, block, after, blocks] = self.blocks;
        let along = i / after % total / block;
        let at = match blocks {
            0 => along,
            blocks => (i / after / total * blocks + along) * after + i % after,
        };
        let at = if self.scales.len() == 1 { 0 } else { at };
        (self.scales[at], self.zeros.get(at).copied().unwrap_or(0.0))
    }
}
