//! Epilogue of a kernel: the bias, residual sum, activation and gate that are applied to its sums before they are
//! stored.
#![expect(unsafe_code, reason = "slices of maps")]

mod apply;

use crate::engine::cpu::activation_mask::ActivationMask;
use crate::engine::cpu::breakpoints::Breakpoints;
use crate::engine::cpu::feature_map::FeatureMap;

/// What is applied to a kernel's sums: `to = gate * activation(sum + bias + addend)`.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a> {
    pub(crate) to: FeatureMap,
    /// One value per channel.
    pub(crate) bias: Option<&'a [f32]>,
    /// A map of the same shape, may be `to` itself: forward the residual, backward the gradient summed so far.
    pub(crate) addend: Option<FeatureMap>,
    /// Where the pre-activations are recorded.
    pub(crate) record: Option<FeatureMap>,
    /// The activation.
    pub(crate) breakpoints: Option<Breakpoints>,
    /// Where the branch of each pre-activation is recorded.
    pub(crate) mask: Option<ActivationMask>,
    pub(crate) gate: FusedGate<'a>,
}

/// Gate of a gradient: a factor that depends on the pre-activations of the forward pass.
#[derive(Clone, Copy)]
pub(crate) enum FusedGate<'a> {
    /// 1 everywhere.
    None,
    /// 1 where the pre-activation was between the breakpoints, `outside` elsewhere.
    Masked { mask: ActivationMask, outside: f32 },
    /// Logistic steps at the breakpoints, from `leak` to 1, of the pre-activations `input`. The inverse temperature of
    /// a channel is `inverse_temperature` times its scale.
    Soft { input: FeatureMap, low: f32, high: f32, leak: f32, inverse_scales: &'a [f32], inverse_temperature: f32 },
}

/// Pixels and channels that are stored together: rows of equally spaced pixels.
#[derive(Clone, Copy)]
pub(crate) struct OutputRegion {
    /// First pixel.
    pub(crate) pixel: usize,
    pub(crate) rows: usize,
    /// Pixels from one row to the next.
    pub(crate) row_stride: usize,
    /// Pixels per row.
    pub(crate) pixels: usize,
    /// Distance of neighbouring pixels of a row, in pixels.
    pub(crate) pixel_step: usize,
    /// First channel.
    pub(crate) channel: usize,
    pub(crate) channels: usize,
}

impl OutputRegion {
    /// One row of adjacent pixels.
    #[inline(always)]
    pub(crate) fn row(pixel: usize, pixels: usize, channel: usize, channels: usize) -> Self {
        Self { pixel, rows: 1, row_stride: 0, pixels, pixel_step: 1, channel, channels }
    }
}

impl Epilogue<'_> {
    /// Stores the sums unchanged.
    pub(crate) fn store_only(to: FeatureMap) -> Self {
        Self { to, bias: None, addend: None, record: None, breakpoints: None, mask: None, gate: FusedGate::None }
    }

    /// Whether sums are stored unchanged.
    pub(crate) fn is_store_only(&self) -> bool {
        let Self { bias, addend, record, breakpoints, gate, to: _, mask: _ } = self;
        let applied = bias.is_some() || addend.is_some() || record.is_some() || breakpoints.is_some();
        !applied && matches!(gate, FusedGate::None)
    }

    /// The epilogue of some of the channels.
    ///
    /// # Safety
    /// `first + channels` is at most the number of channels.
    pub(crate) unsafe fn slice(&self, first: usize, channels: usize) -> Self {
        // SAFETY: all maps have the same channels.
        let slice = |map: FeatureMap| unsafe { map.slice(first, channels) };
        let gate = match self.gate {
            FusedGate::None => FusedGate::None,
            FusedGate::Masked { mask, outside } => FusedGate::Masked { mask: mask.slice(first), outside },
            FusedGate::Soft { input, low, high, leak, inverse_scales, inverse_temperature } => {
                let inverse_scales = &inverse_scales[first..first + channels];
                FusedGate::Soft { input: slice(input), low, high, leak, inverse_scales, inverse_temperature }
            }
        };
        Self {
            to: slice(self.to),
            bias: self.bias.map(|bias| &bias[first..first + channels]),
            addend: self.addend.map(slice),
            record: self.record.map(slice),
            breakpoints: self.breakpoints,
            mask: self.mask.map(|mask| mask.slice(first)),
            gate,
        }
    }
}
