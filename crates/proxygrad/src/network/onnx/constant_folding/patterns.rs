//! Constants that follow a pattern: identity matrices, triangles, running sums, one-hot vectors, and where values are not
//! 0.

use super::super::const_tensor::{ConstData, ConstTensor, row_major, strided};
use super::super::lower::cumulative::kept;
use super::super::node_context::{NodeContext, axis, length};
use super::super::stored_tensor::data_type;
use super::cast::converted;

type Folded = Result<Vec<ConstTensor>, String>;

/// <https://onnx.ai/onnx/operators/onnx__EyeLike.html>
pub(super) fn eye_like(ctx: &NodeContext) -> Folded {
    let like = ctx.constant(0)?;
    let eye = eye(ctx, like.shape(), Some(like.data()))?;
    Ok(vec![if like.depends_on_image_size() { eye.of_image_size() } else { eye }])
}

/// A matrix with ones on a diagonal, of the node's type, or of the type of `like`.
///
/// # Errors
/// When `shape` is not that of a matrix, or an attribute is invalid.
pub(in super::super) fn eye(
    ctx: &NodeContext,
    shape: &[usize],
    like: Option<&ConstData>,
) -> Result<ConstTensor, String> {
    let &[rows, columns] = shape else {
        return Err(format!("the input has the shape {shape:?}; expected a matrix"));
    };
    let count = ctx.checked_elements(shape)?;
    let offset = ctx.int("k")?.unwrap_or(0);
    let mut values = vec![0; count];
    for row in 0..rows {
        let column = offset.checked_add(row as i64).and_then(|column| usize::try_from(column).ok());
        if let Some(column) = column.filter(|&column| column < columns) {
            values[row * columns + column] = 1;
        }
    }
    let own = match like {
        Some(ConstData::Int(_)) => data_type::INT64,
        Some(ConstData::Bool(_)) => data_type::BOOL,
        Some(ConstData::Float(_)) | None => data_type::FLOAT,
    };
    let to = ctx.int("dtype")?.map_or(Ok(own), i32::try_from).map_err(|_| "dtype is no type of a tensor")?;
    converted(&ConstTensor::new(shape.to_vec(), ConstData::Int(values.into()))?, to)
}

/// <https://onnx.ai/onnx/operators/onnx__Trilu.html>
pub(super) fn trilu(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let shape = value.shape();
    let &[.., rows, columns] = shape else {
        return Err(format!("the input has the shape {shape:?}; expected matrices"));
    };
    ctx.checked_elements(shape)?;
    let keeps = kept(ctx)?;
    let is_kept = |i: usize| keeps(i / columns % rows, i % columns);
    let data = match value.data() {
        ConstData::Float(x) => {
            ConstData::Float(x.iter().enumerate().map(|(i, &v)| if is_kept(i) { v } else { 0.0 }).collect())
        }
        ConstData::Int(x) => {
            ConstData::Int(x.iter().enumerate().map(|(i, &v)| if is_kept(i) { v } else { 0 }).collect())
        }
        ConstData::Bool(x) => ConstData::Bool(x.iter().enumerate().map(|(i, &v)| v && is_kept(i)).collect()),
    };
    let provenance = (!value.is_constant()).then(|| (0..value.len()).map(|i| value.provenance(i)).collect());
    Ok(vec![ConstTensor::with_provenance(shape.to_vec(), data, provenance)?])
}

/// <https://onnx.ai/onnx/operators/onnx__CumSum.html>
pub(super) fn cum_sum(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let shape = value.shape();
    let along = match ctx.constant(1)?.ints()? {
        &[along] => axis(along, shape.len())?,
        other => return Err(format!("axis is {other:?}; expected one number")),
    };
    let (exclusive, reverse) = (ctx.flag("exclusive")?, ctx.flag("reverse")?);
    let strides = row_major(shape);
    let (count, step) = (shape[along], strides[along].unsigned_abs());
    let mut starts_shape = shape.to_vec();
    starts_shape[along] = 1;
    ctx.checked_elements(shape)?;
    let starts = strided(&starts_shape, &strides, 0);
    // For each line along the axis, the positions of its values in the order in which they are added.
    let lines =
        starts.into_iter().map(|start| (0..count).map(move |i| start + if reverse { count - 1 - i } else { i } * step));
    let data = match value.data() {
        ConstData::Float(x) => {
            let mut sums = vec![0.0; value.len()];
            for line in lines {
                let mut total = 0.0;
                for position in line {
                    let next = total + f64::from(x[position]);
                    sums[position] = (if exclusive { total } else { next }) as f32;
                    total = next;
                }
            }
            ConstData::Float(sums.into())
        }
        ConstData::Int(x) => {
            let mut sums = vec![0; value.len()];
            for line in lines {
                let mut total = 0i64;
                for position in line {
                    let next = total.checked_add(x[position]).ok_or("the sum overflows")?;
                    sums[position] = if exclusive { total } else { next };
                    total = next;
                }
            }
            ConstData::Int(sums.into())
        }
        ConstData::Bool(_) => return Err("sums of truth values are not supported".into()),
    };
    let sums = ConstTensor::new(shape.to_vec(), data)?;
    Ok(vec![if value.depends_on_image_size() { sums.of_image_size() } else { sums }])
}

/// <https://onnx.ai/onnx/operators/onnx__OneHot.html>
pub(super) fn one_hot(ctx: &NodeContext) -> Folded {
    let (indices, depth, values) = (ctx.constant(0)?, ctx.constant(1)?, ctx.constant(2)?);
    if values.len() != 2 || depth.len() != 1 {
        return Err("expected one depth, and a value for off and one for on".into());
    }
    let classes = length(depth.ints()?[0], "depth")?;
    let mut shape = indices.shape().to_vec();
    let place = axis(ctx.int("axis")?.unwrap_or(-1), shape.len() + 1)?;
    shape.insert(place, classes);
    let count = ctx.checked_elements(&shape)?;
    let inner: usize = shape[place + 1..].iter().product();
    let found = indices.ints()?;
    // Which of the two values is at each position.
    let chosen: Vec<usize> = (0..count)
        .map(|position| {
            let (class, rest) = (position / inner % classes, position % inner);
            let index = found[position / inner / classes * inner + rest];
            let counted = if index < 0 { index.saturating_add(classes as i64) } else { index };
            usize::from(usize::try_from(counted) == Ok(class))
        })
        .collect();
    let flat = values.reshape(vec![2])?.pick(shape, &chosen)?;
    let sized = [indices, depth, values].iter().any(|value| value.depends_on_image_size());
    Ok(vec![if sized { flat.of_image_size() } else { flat }])
}

/// <https://onnx.ai/onnx/operators/onnx__NonZero.html>: the indices of all values that are not 0, one row per axis.
pub(super) fn non_zero(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let shape = value.shape();
    ctx.checked_elements(&[shape.len().max(1), value.len()])?;
    let is_set = |i: usize| match value.data() {
        ConstData::Float(x) => x[i] != 0.0,
        ConstData::Int(x) => x[i] != 0,
        ConstData::Bool(x) => x[i],
    };
    let found: Vec<usize> = (0..value.len()).filter(|&i| is_set(i)).collect();
    let strides = row_major(shape);
    let along = |axis: usize| {
        let step = strides[axis].unsigned_abs();
        found.iter().map(move |i| (i / step % shape[axis]) as i64)
    };
    let rows = if shape.is_empty() { vec![0; found.len()] } else { (0..shape.len()).flat_map(along).collect() };
    let indices = ConstTensor::new(vec![shape.len().max(1), found.len()], ConstData::Int(rows.into()))?;
    Ok(vec![if value.depends_on_image_size() { indices.of_image_size() } else { indices }])
}
