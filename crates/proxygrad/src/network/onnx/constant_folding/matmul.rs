//! Matrix products of constants.

use super::super::const_tensor::{ConstData, ConstTensor};
use super::super::node_context::NodeContext;
use crate::network::{Shape, broadcast};

type Folded = Result<Vec<ConstTensor>, String>;

/// <https://onnx.ai/onnx/operators/onnx__MatMul.html>, as in numpy.
pub(super) fn mat_mul(ctx: &NodeContext) -> Folded {
    let (a, b) = (ctx.constant(0)?, ctx.constant(1)?);
    let (x, y) = (a.floats()?, b.floats()?);
    let misfit = || format!("constants of shape {:?} and {:?} cannot be multiplied", a.shape(), b.shape());
    // The first vector is a row, the second one a column.
    let (outer_a, rows, inner) = match *a.shape() {
        [inner] => (&[][..], 1, inner),
        [ref outer @ .., rows, inner] => (outer, rows, inner),
        [] => return Err(misfit()),
    };
    let (outer_b, height, columns) = match *b.shape() {
        [height] => (&[][..], height, 1),
        [ref outer @ .., height, columns] => (outer, height, columns),
        [] => return Err(misfit()),
    };
    if height != inner || inner == 0 {
        return Err(misfit());
    }
    let outer = broadcast(&Shape::from(outer_a.to_vec()), &Shape::from(outer_b.to_vec())).map_err(|_| misfit())?;
    let mut shape = outer.to_vec();
    shape.extend((a.shape().len() > 1).then_some(rows));
    shape.extend((b.shape().len() > 1).then_some(columns));
    let count = ctx.checked_elements(&shape)?;
    if count == 0 {
        return Ok(vec![ConstTensor::new(shape, ConstData::Float([].into()))?]);
    }
    if count.checked_mul(inner).is_none_or(|products| products > ctx.most_elements) {
        return Err(format!("multiplying constants of shape {:?} and {:?} takes too long", a.shape(), b.shape()));
    }
    let starts = |from: &[usize], size: usize| -> Vec<usize> {
        super::broadcast::repeated(from, &outer).into_iter().map(|i| i * size).collect()
    };
    let (starts_a, starts_b) = (starts(outer_a, rows * inner), starts(outer_b, inner * columns));
    let mut product = Vec::with_capacity(count);
    for (&i, &j) in starts_a.iter().zip(&starts_b) {
        for row in x[i..i + rows * inner].chunks(inner) {
            let mut sums = vec![0f64; columns];
            for (&factor, others) in row.iter().zip(y[j..j + inner * columns].chunks(columns)) {
                for (sum, &other) in sums.iter_mut().zip(others) {
                    *sum += f64::from(factor) * f64::from(other);
                }
            }
            product.extend(sums.into_iter().map(|sum| sum as f32));
        }
    }
    Ok(vec![ConstTensor::new(shape, ConstData::Float(product.into()))?])
}
