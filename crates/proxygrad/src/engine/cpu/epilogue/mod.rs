//! Epilogue of a kernel: the bias, residual sum, activation and gate that are applied to its sums before they are
//! stored.
#![expect(unsafe_code, reason = "slices of maps")]

mod apply;

use crate::engine::cpu::activation_mask::ActivationMask;
use crate::engine::cpu::breakpoints::Breakpoints;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::{Forward, Gate};
use crate::network::Activation;

/// What is applied to a kernel's sums: `to = gate * activation(sum + bias + addend)`.
///
/// Branches of piecewise linear activations are taken in registers. A smooth activation, or its derivative, is applied
/// to what has just been stored, in place.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a> {
    pub(crate) to: FeatureMap,
    /// One value per channel.
    pub(crate) bias: Option<&'a [f32]>,
    /// A map of the same shape, may be `to` itself: forward the residual, backward the gradient summed so far.
    pub(crate) addend: Option<FeatureMap>,
    /// Where the pre-activations are recorded.
    pub(crate) record: Option<FeatureMap>,
    /// The piecewise linear activation.
    pub(crate) breakpoints: Option<Breakpoints>,
    /// The smooth activation.
    pub(crate) smooth: Option<(SmoothActivation<'a>, Forward)>,
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
    /// The derivative of a smooth activation at the pre-activations `input`. The temperature of a soft gate is divided
    /// by the scale of a channel.
    Smooth { input: FeatureMap, activation: SmoothActivation<'a>, gate: Gate, inverse_scales: &'a [f32] },
}

/// A smooth activation of a slice of channels.
#[derive(Clone, Copy)]
pub(crate) struct SmoothActivation<'a> {
    pub(crate) activation: &'a Activation,
    /// The first of its channels that the slice has.
    pub(crate) first: usize,
}

impl SmoothActivation<'_> {
    fn slice(self, first: usize) -> Self {
        Self { first: self.first + first, ..self }
    }
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
        let (bias, addend, record, breakpoints, smooth, mask) = (None, None, None, None, None, None);
        Self { to, bias, addend, record, breakpoints, smooth, mask, gate: FusedGate::None }
    }

    /// Whether sums are stored unchanged.
    pub(crate) fn is_store_only(&self) -> bool {
        let Self { bias, addend, record, breakpoints, smooth, gate, to: _, mask: _ } = self;
        let activated = breakpoints.is_some() || smooth.is_some();
        let applied = bias.is_some() || addend.is_some() || record.is_some() || activated;
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
            FusedGate::Smooth { input, activation, gate, inverse_scales } => {
                let inverse_scales = &inverse_scales[first..first + channels];
                FusedGate::Smooth { input: slice(input), activation: activation.slice(first), gate, inverse_scales }
            }
        };
        Self {
            to: slice(self.to),
            bias: self.bias.map(|bias| &bias[first..first + channels]),
            addend: self.addend.map(slice),
            record: self.record.map(slice),
            breakpoints: self.breakpoints,
            smooth: self.smooth.map(|(activation, forward)| (activation.slice(first), forward)),
            mask: self.mask.map(|mask| mask.slice(first)),
            gate,
        }
    }
}
