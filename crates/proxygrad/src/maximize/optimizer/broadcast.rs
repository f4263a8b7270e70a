//! Broadcasting of one value per image.

use candle_core::{Result, Tensor};

/// One value per image, `[N]`, as a tensor that broadcasts to `[N, ...]`.
pub(super) fn per_image(values: &Tensor, like: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; like.rank()];
    shape[0] = values.elem_count();
    values.reshape(shape)
}
