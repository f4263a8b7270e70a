//! Products of constant matrices.

use super::super::call::Call;
use super::super::value::{Data, Value};
use crate::network::{Shape, broadcast};

type Folded = Result<Vec<Value>, String>;

/// <https://onnx.ai/onnx/operators/onnx__MatMul.html>: numpy's matmul.
pub(super) fn mat_mul(call: &Call) -> Folded {
    let (a, b) = (call.required(0)?, call.required(1)?);
    let (x, y) = (a.floats()?, b.floats()?);
    let misfit = || format!("multiplies constants {:?} and {:?}", a.shape(), b.shape());
    // A vector counts as a row before, and as a column after the other matrix.
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
    let count = call.claim(&shape)?;
    if count == 0 {
        return Ok(vec![Value::new(shape, Data::Float([].into()))?]);
    }
    if count.checked_mul(inner).is_none_or(|products| products > call.room) {
        return Err(format!("{}, which takes too long", misfit()));
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
    Ok(vec![Value::new(shape, Data::Float(product.into()))?])
}
