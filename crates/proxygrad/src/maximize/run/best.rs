//! The best image of every stimulus so far.

use candle_core::{Device, Result, Tensor};

use crate::maximize::ops::Arithmetic;
use crate::maximize::ops::host;
use crate::maximize::ops::host::{Real, for_type_of};

/// The best-scoring images of a batch, on the device of the current images.
#[derive(Debug, Clone)]
pub(in crate::maximize) struct BestImages {
    /// `[N]`; minus infinity before the first finite score.
    scores: Tensor,
    /// Pixels `[N,C,H,W]`.
    images: Tensor,
    arithmetic: Arithmetic,
}

impl BestImages {
    /// Before the first score of the batch `images` `[N,C,H,W]`.
    pub(in crate::maximize) fn new(images: &Tensor, arithmetic: Arithmetic) -> Result<Self> {
        let scores = Tensor::full(f32::NEG_INFINITY, images.dim(0)?, images.device())?;
        Ok(Self { scores, images: images.clone(), arithmetic })
    }

    /// Pixels `[N,C,H,W]`; unspecified for stimuli without a finite score.
    pub(in crate::maximize) fn images(&self) -> &Tensor {
        &self.images
    }

    /// Keeps only the images of these rows.
    pub(in crate::maximize) fn retain_rows(&mut self, rows: &Tensor) -> Result<()> {
        self.scores = self.scores.index_select(rows, 0)?;
        self.images = self.images.index_select(rows, 0)?;
        Ok(())
    }

    /// Replaces every image whose score `[N]` (f32) is finite and higher than the best so far.
    pub(in crate::maximize) fn update(&mut self, scores: &Tensor, images: &Tensor) -> Result<()> {
        let none = Tensor::full(f32::NEG_INFINITY, scores.shape(), scores.device())?;
        let finite = scores.lt(f32::INFINITY)?.where_cond(scores, &none)?;
        let better = finite.gt(&self.scores)?;
        self.scores = better.where_cond(&finite, &self.scores)?;
        self.images = match self.arithmetic {
            Arithmetic::Host => host_select(&better, images, &self.images)?,
            Arithmetic::Device => device_select(&better, images, &self.images)?,
        };
        Ok(())
    }
}

/// For every image of a batch, `yes` where the mask `[N]` is 1, else `no`.
fn device_select(mask: &Tensor, yes: &Tensor, no: &Tensor) -> Result<Tensor> {
    let mask = mask.reshape((mask.elem_count(), 1, 1, 1))?.broadcast_as(yes.shape())?;
    mask.contiguous()?.where_cond(yes, no)
}

fn host_select(mask: &Tensor, yes: &Tensor, no: &Tensor) -> Result<Tensor> {
    let mask = mask.to_vec1::<u8>()?;
    if mask.iter().all(|&select| select == 1) {
        return Ok(yes.clone());
    }
    if mask.iter().all(|&select| select == 0) {
        return Ok(no.clone());
    }
    for_type_of!(yes, T => host_merge::<T>(&mask, yes, no))
}

fn host_merge<T: Real>(mask: &[u8], yes: &Tensor, no: &Tensor) -> Result<Tensor> {
    let [images, channels, area] = host::planes(yes)?;
    let size = channels * area;
    let mut merged = Vec::with_capacity(images * size);
    host::read(yes, |yes: &[T]| {
        host::read(no, |no: &[T]| {
            for (i, &select) in mask.iter().enumerate() {
                merged.extend_from_slice(&(if select == 1 { yes } else { no })[i * size..][..size]);
            }
        })
    })??;
    Tensor::from_vec(merged, yes.shape(), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::DType;

    use super::*;

    #[test]
    fn only_higher_finite_scores_count() {
        let at = |value: f32| Tensor::full(value, (4, 1, 1, 1), &Device::Cpu).unwrap();
        let scores = |values: [f32; 4]| Tensor::new(&values, &Device::Cpu).unwrap();
        for (dtype, arithmetic) in [
            (DType::F32, Arithmetic::Host),
            (DType::F64, Arithmetic::Host),
            (DType::F32, Arithmetic::Device),
            (DType::F16, Arithmetic::Device),
        ] {
            let at = |value| at(value).to_dtype(dtype).unwrap();
            let mut best = BestImages::new(&at(0.0), arithmetic).unwrap();
            best.update(&scores([1.0, f32::NAN, -5.0, f32::INFINITY]), &at(1.0)).unwrap();
            best.update(&scores([1.0, -9.0, -4.0, f32::NAN]), &at(2.0)).unwrap();
            best.update(&scores([0.5, -10.0, f32::NEG_INFINITY, f32::INFINITY]), &at(3.0)).unwrap();
            let images = best.images().flatten_all().unwrap().to_dtype(DType::F32).unwrap();
            assert_eq!(images.to_vec1::<f32>().unwrap(), [1.0, 2.0, 2.0, 0.0]);
        }
    }
}
