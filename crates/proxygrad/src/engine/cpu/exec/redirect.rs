//! Redirected gradient of fused activations ([`Gate::Redirect`](crate::engine::Gate::Redirect)): a gate that depends on
//! whether a layer's whole gradient vanishes.
#![expect(unsafe_code, reason = "rows of maps")]

use crate::engine::cpu::activation_mask::{ActivationMask, Branch};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{MICRO_BATCH, ThreadCtx};

/// Whether every image of a map has a value other than zero. All workers get the same answer; the map must not be
/// written before their next barrier.
pub(crate) fn is_alive(map: FeatureMap) -> bool {
    // SAFETY: the pixels lie in the map, which is complete.
    (0..map.images).all(|image| unsafe { !map.is_zero(image * map.size()..(image + 1) * map.size()) })
}

/// Applies the redirected gate to a complete gradient `to`, in place. `leak` is the activation's slope outside the
/// linear range.
pub(crate) fn redirect(ctx: &ThreadCtx<'_>, leak: f32, mask: ActivationMask, to: FeatureMap) {
    let plain = |branch: Branch| if branch == Branch::Between { 1.0 } else { leak };
    // SAFETY: the mask has bits for every value of the map.
    let branch = |pixel: usize, channel: usize| unsafe { mask.branch(pixel, channel) };
    // SAFETY: the position lies in the map, which is not written before the barrier.
    let value = |pixel: usize, channel: usize| unsafe { *to.at(pixel).add(channel) };
    let dead: [bool; MICRO_BATCH] = std::array::from_fn(|image| {
        let mut positions = (0..to.size()).flat_map(|p| (0..to.channels).map(move |c| (image * to.size() + p, c)));
        image < to.images && positions.all(|(p, c)| plain(branch(p, c)) * value(p, c) == 0.0)
    });
    ctx.worker.barrier();
    let rows = to.images * to.height;
    ctx.worker.for_each_piece(rows, |row| {
        let dead = dead[row / to.height];
        for pixel in row * to.width..(row + 1) * to.width {
            for channel in 0..to.channels {
                let (branch, g) = (branch(pixel, channel), value(pixel, channel));
                let outwards = (branch == Branch::Below && g < 0.0) || (branch == Branch::Above && g > 0.0);
                let factor = match dead {
                    false => plain(branch),
                    true if outwards => 0.0,
                    true => 1.0,
                };
                // SAFETY: no two pieces write the same row.
                unsafe { *to.at(pixel).add(channel) = g * factor };
            }
        }
    });
}
