//! Quantization with the range of each image.

use candle_core::{Result, Tensor};

use super::unary::round_ties_even;
use super::{Backward, Operation};
use crate::engine::Forward;

/// See [`DynamicLevels`](crate::network::DynamicLevels).
pub(super) struct DynamicQuantize;

impl Operation for DynamicQuantize {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let x = inputs[0];
        let flat = x.contiguous()?.flatten_from(1)?;
        let zero = flat.narrow(1, 0, 1)?.zeros_like()?;
        let low = flat.min_keepdim(1)?.minimum(&zero)?;
        let high = flat.max_keepdim(1)?.maximum(&zero)?;
        let steps = zero.affine(1.0, 255.0)?;
        let range = ((high - &low)? / &steps)?;
        let step = range.gt(0.0)?.where_cond(&range, &range.ones_like()?)?;
        let below = (low.neg()? / &step)?.maximum(&zero)?.minimum(&steps)?;
        let most = (steps - round_ties_even(&below)?)?;
        let levels = round_ties_even(&flat.broadcast_div(&step)?)?.broadcast_minimum(&most)?;
        levels.broadcast_mul(&step)?.reshape(x.dims())
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(pass.gradient.clone())])
    }
}
