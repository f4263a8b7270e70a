//! Creation of constants, and their shapes.

use super::super::const_tensor::{ConstData, ConstTensor, Dim, Provenance, derived_from};
use super::super::node_context::{NodeContext, length};
use super::super::proto::TensorProto;
use super::super::stored_tensor;

type Folded = Result<Vec<ConstTensor>, String>;

/// <https://onnx.ai/onnx/operators/onnx__Constant.html>
pub(super) fn constant(ctx: &NodeContext) -> Folded {
    let value = if let Some(stored) = ctx.tensor("value")? {
        read_attribute(ctx, stored)?
    } else if let Some(ints) = ctx.ints("value_ints")? {
        ConstTensor::new(vec![ints.len()], ConstData::Int(ints.into()))?
    } else if let Some(floats) = ctx.floats("value_floats")? {
        ConstTensor::new(vec![floats.len()], ConstData::Float(floats.into()))?
    } else if let Some(int) = ctx.int("value_int")? {
        ConstTensor::new(Vec::new(), ConstData::Int([int].into()))?
    } else if ctx.node.attribute.iter().any(|attribute| attribute.name == "value_float") {
        ConstTensor::new(Vec::new(), ConstData::Float([ctx.float("value_float", 0.0)?].into()))?
    } else {
        return Err("it has no value that is a tensor, a number or a list of numbers".into());
    };
    Ok(vec![value])
}

fn read_attribute(ctx: &NodeContext, stored: &TensorProto) -> Result<ConstTensor, String> {
    stored_tensor::read(stored, ctx.files).map_err(|why| format!("attribute value {why}"))
}

/// <https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html>
pub(super) fn constant_of_shape(ctx: &NodeContext) -> Folded {
    let dims = ctx.constant(0)?.int_dims()?;
    let shape = dims.iter().map(|&(v, _)| length(v, "shape")).collect::<Result<Vec<_>, _>>()?;
    let count = ctx.checked_elements(&shape)?;
    let filled = match ctx.tensor("value")? {
        Some(stored) => read_attribute(ctx, stored)?,
        None => ConstTensor::new(vec![1], ConstData::Float([0.0].into()))?,
    };
    let one = filled.pick(Vec::new(), &[0]).map_err(|_| "attribute value is empty")?;
    let value = one.reshape(vec![1])?.pick(vec![count], &vec![0; count])?.reshape(shape)?;
    // The values depend on what their number depends on.
    let provenance = derived_from(&dims);
    Ok(vec![ConstTensor::with_provenance(value.shape().to_vec(), value.data().clone(), Some(vec![provenance; count]))?])
}

/// <https://onnx.ai/onnx/operators/onnx__Range.html>
pub(super) fn range(ctx: &NodeContext) -> Folded {
    if let ConstData::Float(_) = ctx.constant(0)?.data() {
        return float_range(ctx);
    }
    let mut bounds: [Dim; 3] = [(0, Provenance::Constant); 3];
    for (i, bound) in bounds.iter_mut().enumerate() {
        match ctx.constant(i)?.int_dims()?.as_slice() {
            [dim] => *bound = *dim,
            _ => return Err("expected a start, a limit and a step".into()),
        }
    }
    let [(start, _), (limit, _), (step, _)] = bounds;
    if step == 0 {
        return Err("step 0 is not allowed".into());
    }
    let distance = i128::from(limit) - i128::from(start);
    let step_wide = i128::from(step);
    let count = (distance + step_wide - step_wide.signum()) / step_wide;
    let count = ctx.checked_elements(&[usize::try_from(count.max(0)).unwrap_or(usize::MAX)])?;
    let provenance = derived_from(&bounds);
    let dims: Vec<Dim> = (0..count as i64).map(|i| (start.wrapping_add(i.wrapping_mul(step)), provenance)).collect();
    Ok(vec![ConstTensor::dims(&dims)])
}

/// A range of floating-point numbers.
fn float_range(ctx: &NodeContext) -> Folded {
    let [start, limit, step] = [0, 1, 2].map(|i| ctx.constant(i).and_then(|value| value.scalar()));
    let (start, limit, step) = (start?, limit?, step?);
    let count = ((f64::from(limit) - f64::from(start)) / f64::from(step)).ceil();
    if count.is_nan() {
        return Err(format!("a range from {start} to {limit} in steps of {step} has no end"));
    }
    let count = ctx.checked_elements(&[count.max(0.0) as usize])?;
    let data = (0..count).map(|i| start + i as f32 * step).collect();
    let values = ConstTensor::new(vec![count], ConstData::Float(data))?;
    let sized = ctx.constants_given().any(ConstTensor::depends_on_image_size);
    Ok(vec![if sized { values.of_image_size() } else { values }])
}

/// <https://onnx.ai/onnx/operators/onnx__Shape.html>
pub(super) fn shape(ctx: &NodeContext) -> Folded {
    let dims: Vec<Dim> = ctx.constant(0)?.shape().iter().map(|&n| (n as i64, Provenance::Constant)).collect();
    let rank = dims.len() as i64;
    let bound = |value: i64| (if value < 0 { value.saturating_add(rank) } else { value }).clamp(0, rank) as usize;
    let (start, end) = (bound(ctx.int("start")?.unwrap_or(0)), bound(ctx.int("end")?.unwrap_or(rank)));
    Ok(vec![ConstTensor::dims(dims.get(start..end).unwrap_or_default())])
}

/// <https://onnx.ai/onnx/operators/onnx__Size.html>
pub(super) fn size(ctx: &NodeContext) -> Folded {
    let count = ctx.constant(0)?.len();
    Ok(vec![ConstTensor::new(Vec::new(), ConstData::Int([count as i64].into()))?])
}
