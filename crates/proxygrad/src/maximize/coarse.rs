//! Coarse stage: the first part of a run, with views and penalties of its own and usually on a smaller image.
//!
//! What a picture shows is decided in the first steps, where detail does not matter yet. A smaller image makes these
//! steps cheaper; crops and a penalty on total variation make them choose shapes that cover the whole image. The
//! remaining steps add detail at full size.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::Invalid;
use crate::maximize::regularization::Regularizer;
use crate::maximize::transform::Transform;

/// Coarse stage of a run, as written in a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CoarseRequest {
    /// Share of the steps: from 0, for no coarse stage, to 0.95. Default: the preset's, else 2/3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 0.95))]
    pub share: Option<f32>,
    /// Height and width of the image in this stage as a share of the stimulus', from 0.25 to 1. Less than 1 needs a network
    /// that works at the smaller size, and objectives that mean the same there: no single positions of a map, no
    /// caricatures or inversions, no start from an image. Default: the preset's where that holds, else 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0.25, maximum = 1))]
    pub scale: Option<f32>,
    /// Step size of this stage. Default: the preset's with its own optimizer, else the optimizer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub lr: Option<f32>,
    /// Random transforms in this stage, in pixels of its smaller image. Default: the preset's, else those of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16))]
    pub transforms: Option<Vec<Transform>>,
    /// Regularizers in this stage. Default: the preset's, else those of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    pub regularizers: Option<Vec<Regularizer>>,
}

/// Coarse stage of a run: its first steps, after which the image is enlarged to the size of the stimulus.
///
/// The gate's schedule spans the whole run. The optimizer starts anew after this stage, with its own step size. Scores
/// are those of the enlarged image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Coarse {
    /// Share of the steps.
    pub share: f32,
    /// Height and width of the image in this stage, in pixels.
    #[cfg_attr(feature = "openapi", schema(min_items = 2, max_items = 2))]
    pub size: [usize; 2],
    /// Step size.
    pub lr: f32,
    /// Random transforms, applied in this order.
    pub transforms: Vec<Transform>,
    /// Regularizers.
    pub regularizers: Vec<Regularizer>,
}

/// Share of the steps unless a request or preset has one.
const SHARE: f32 = 2.0 / 3.0;
/// Greatest share: some steps must remain for the stimulus itself.
const MOST: f32 = 0.95;
/// Smallest scale.
const SMALLEST: f32 = 0.25;

impl CoarseRequest {
    /// These fields, and those of `preset` where there are none.
    pub(super) fn or(self, preset: Self) -> Self {
        Self {
            share: self.share.or(preset.share),
            scale: self.scale.or(preset.scale),
            lr: self.lr.or(preset.lr),
            transforms: self.transforms.or(preset.transforms),
            regularizers: self.regularizers.or(preset.regularizers),
        }
    }

    /// The share of the steps.
    ///
    /// # Errors
    /// When it is out of range.
    pub(super) fn checked_share(&self) -> Result<f32, Invalid> {
        let share = self.share.unwrap_or(SHARE);
        match (0.0..=MOST).contains(&share) {
            true => Ok(share),
            false => Err(Invalid::new("share", share, format!("a share of the steps from 0 to {MOST}"))),
        }
    }

    /// Height and width of the image for stimuli of height and width `size`.
    ///
    /// # Errors
    /// When the scale is out of range.
    pub(super) fn scaled(&self, size: [usize; 2]) -> Result<[usize; 2], Invalid> {
        let scale = self.scale.unwrap_or(1.0);
        match (SMALLEST..=1.0).contains(&scale) {
            true => Ok(size.map(|side| ((side as f32 * scale).round() as usize).clamp(1, side))),
            false => Err(Invalid::new("scale", scale, format!("a share of the size from {SMALLEST} to 1"))),
        }
    }
}

impl Coarse {
    /// Number of steps of this stage in a run of `steps`; at least one step remains.
    pub(super) fn steps(&self, steps: u32) -> u32 {
        let share = (f64::from(self.share) * f64::from(steps)).round() as u32;
        share.min(steps.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stage(share: f32) -> Coarse {
        Coarse { share, size: [1, 1], lr: 0.1, transforms: Vec::new(), regularizers: Vec::new() }
    }

    #[test]
    fn some_steps_remain_for_the_stimulus() {
        assert_eq!([0, 1, 2, 3, 192].map(|steps| stage(2.0 / 3.0).steps(steps)), [0, 0, 1, 2, 128]);
        assert_eq!(stage(0.95).steps(10), 9);
    }

    #[test]
    fn sizes_are_rounded_to_whole_pixels() {
        let scaled = |scale, size| CoarseRequest { scale, ..CoarseRequest::default() }.scaled(size);
        assert_eq!(scaled(Some(0.7), [224, 227]).unwrap(), [157, 159]);
        assert_eq!(scaled(Some(0.25), [1, 2]).unwrap(), [1, 1]);
        assert_eq!(scaled(None, [5, 6]).unwrap(), [5, 6]);
        for scale in [0.2, 1.1, f32::NAN] {
            assert_eq!(scaled(Some(scale), [5, 6]).unwrap_err().field, "scale");
        }
    }
}
