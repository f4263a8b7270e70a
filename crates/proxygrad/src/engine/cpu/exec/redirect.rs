//! Redirected gradient of fused activations ([`Gate::Redirect`]): a gate that depends on
//! whether a layer's whole gradient vanishes.
#![expect(unsafe_code, reason = "rows of maps")]

use crate::engine::Gate;
use crate::engine::cpu::activation::{ActivationBlock, Strided, Task, redirected};
use crate::engine::cpu::activation_mask::{ActivationMask, Branch};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{MICRO_BATCH, ThreadCtx};
use crate::network::Activation;

/// What is kept of a fused activation for the backward pass.
#[derive(Clone, Copy)]
pub(crate) enum Kept<'a> {
    /// The branches, of which those outside of the linear range have the slope `leak`.
    Branches {
        mask: ActivationMask,
        leak: f32,
    },
    PreActivations {
        z: FeatureMap,
        activation: &'a Activation,
    },
}

impl Kept<'_> {
    /// The plain derivative at a value.
    ///
    /// # Safety
    /// The position lies in the map.
    unsafe fn plain(&self, pixel: usize, channel: usize) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            match self {
                Self::Branches { mask, leak } if mask.branch(pixel, channel) != Branch::Between => *leak,
                Self::Branches { .. } => 1.0,
                Self::PreActivations { z, activation } => {
                    activation.derivative(f64::from(*z.at(pixel).add(channel)), channel) as f32
                }
            }
        }
    }

    /// The gradient `g` at a value of an image whose plain gradient vanishes.
    ///
    /// # Safety
    /// As [`Kept::plain`].
    unsafe fn redirected(&self, pixel: usize, channel: usize, g: f32) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            match self {
                Self::Branches { mask, .. } => match mask.branch(pixel, channel) {
                    Branch::Below if g < 0.0 => 0.0,
                    Branch::Above if g > 0.0 => 0.0,
                    _ => g,
                },
                Self::PreActivations { z, activation } => redirected(activation, *z.at(pixel).add(channel), g),
            }
        }
    }
}

/// Whether every image of a map has a value other than zero. All workers get the same answer; the map must not be
/// written before their next barrier.
pub(crate) fn is_alive(map: FeatureMap) -> bool {
    // SAFETY: the pixels lie in the map, which is complete.
    (0..map.images).all(|image| unsafe { !map.is_zero(image * map.size()..(image + 1) * map.size()) })
}

/// Applies the redirected gate to a complete gradient `to`, in place.
pub(crate) fn redirect(ctx: &ThreadCtx<'_>, kept: Kept<'_>, to: FeatureMap) {
    // SAFETY: the position lies in the map, which is not written before the barrier.
    let value = |pixel: usize, channel: usize| unsafe { *to.at(pixel).add(channel) };
    let dead: [bool; MICRO_BATCH] = std::array::from_fn(|image| {
        let mut positions = (0..to.size()).flat_map(|p| (0..to.channels).map(move |c| (image * to.size() + p, c)));
        // SAFETY: the positions lie in the map.
        image < to.images && positions.all(|(p, c)| unsafe { kept.plain(p, c) } * value(p, c) == 0.0)
    });
    ctx.worker.barrier();
    ctx.worker.for_each_piece(to.images * to.height, |row| {
        let (first, is_dead) = (row * to.width, dead[row / to.height]);
        if let (Kept::PreActivations { z, activation }, false) = (kept, is_dead) {
            let strided = |map: FeatureMap| Strided { first: map.at(first), row: 0, pixel: map.pixel_stride };
            let block = ActivationBlock {
                activation,
                task: Task::Gradient(strided(to), Gate::Plain),
                z: strided(z),
                to: strided(to),
                rows: 1,
                pixels: to.width,
                channel: 0,
                channels: to.channels,
                inverse_scales: &[],
            };
            // SAFETY: the instruction set is supported; no two pieces write the same row.
            return unsafe { ctx.instructions.run(block) };
        }
        for (pixel, channel) in (first..first + to.width).flat_map(|p| (0..to.channels).map(move |c| (p, c))) {
            let g = value(pixel, channel);
            // SAFETY: the position lies in the map; no two pieces write the same row.
            unsafe {
                let gated = if is_dead { kept.redirected(pixel, channel, g) } else { g * kept.plain(pixel, channel) };
                *to.at(pixel).add(channel) = gated;
            }
        }
    });
}
