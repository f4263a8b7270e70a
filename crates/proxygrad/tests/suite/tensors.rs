//! Tensors as plain numbers.

use candle_core::{DType, Tensor};

/// All values in row-major order.
pub fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}
