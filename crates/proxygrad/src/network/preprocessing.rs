//! Preprocessing: normalization of pixels to the network's input.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// Normalization of an 8-bit image to the network's input: `x = (v * range / 255 - mean) / std` per channel, where `v`
/// is the pixel value 0..255 and `range` is the value range that the network was trained on (1 for torchvision, 255 for
/// Caffe).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Order of the network's input channels.
    pub channels: ChannelOrder,
    /// Value of a white pixel before `mean` and `std` are applied; usually 1 or 255.
    pub range: f32,
    /// Mean subtracted per channel, in the network's channel order.
    pub mean: Vec<f32>,
    /// Standard deviation to divide by per channel, in the network's channel order.
    pub std: Vec<f32>,
}

/// Order of a network's input channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ChannelOrder {
    /// One channel, grey.
    Grey,
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

impl ChannelOrder {
    /// Number of channels.
    pub fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb | Self::Bgr => 3,
        }
    }

    /// The channel of the (grey or RGB) image that the network's channel `c` reads.
    pub fn source(self, c: usize) -> usize {
        match self {
            Self::Grey | Self::Rgb => c,
            Self::Bgr => 2 - c,
        }
    }
}

impl Preprocessing {
    /// Unnormalized pixels in [0, 1]: mean 0, std 1, RGB (or grey for one channel).
    ///
    /// `None` unless the network has 1 or 3 input channels.
    pub fn unit_range(channels: usize) -> Option<Self> {
        let order = match channels {
            1 => ChannelOrder::Grey,
            3 => ChannelOrder::Rgb,
            _ => return None,
        };
        Some(Self { channels: order, range: 1.0, mean: vec![0.0; channels], std: vec![1.0; channels] })
    }

    /// `(scale, shift)` of each network channel, so that `x = scale * p + shift` for a pixel `p` in [0, 1].
    pub fn affine(&self) -> Vec<(f64, f64)> {
        let range = f64::from(self.range);
        let both = self.mean.iter().zip(&self.std);
        both.map(|(&mean, &std)| (range / f64::from(std), -f64::from(mean) / f64::from(std))).collect()
    }

    /// Checks the values for a network with this number of input channels.
    ///
    /// # Errors
    /// An [`Invalid`](crate::Invalid) with the field that does not fit.
    pub fn check(&self, channels: usize) -> Result<(), crate::Invalid> {
        use crate::Invalid;
        if self.channels.count() != channels {
            let expected = format!("an order of {channels} channels, as the network's input has");
            return Err(Invalid::new("channels", format!("{:?}", self.channels).to_lowercase(), expected));
        }
        if !self.range.is_finite() || self.range <= 0.0 {
            return Err(Invalid::new("range", self.range, "a positive number, usually 1 or 255"));
        }
        for (field, values) in [("mean", &self.mean), ("std", &self.std)] {
            let fits = values.len() == channels
                && values.iter().all(|v| v.is_finite())
                && (field == "mean" || values.iter().all(|&v| v > 0.0));
            if !fits {
                let kind = if field == "mean" { "finite" } else { "positive" };
                return Err(Invalid::new(field, format!("{values:?}"), format!("{channels} {kind} numbers")));
            }
        }
        Ok(())
    }
}
