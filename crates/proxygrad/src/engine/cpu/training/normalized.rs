//! Outputs of batch normalizations, computed from their input wherever they are needed instead of being kept: scaled,
//! shifted, with a residual added.
#![expect(unsafe_code, reason = "images of maps, each written by one thread, and vector code")]

use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::ThreadCtx;
use crate::engine::cpu::simd::vector::{Simd, SimdOp, load_vector};

/// The map `factor * x + offset + residual`, with one factor and offset per channel.
#[derive(Clone, Copy)]
pub(crate) struct Normalized<'a> {
    pub(crate) x: FeatureMap,
    pub(crate) factor: &'a [f32],
    pub(crate) offset: &'a [f32],
    pub(crate) residual: Option<FeatureMap>,
}

impl Normalized<'_> {
    /// The values of some channels of an image's pixel, by the offset of the pixel.
    ///
    /// # Safety
    /// As [`Simd`]; the maps are dense, and channels `first..first + count` of the pixels exist.
    #[inline(always)]
    pub(crate) unsafe fn values<S: Simd, const WHOLE: bool>(
        &self,
        image: usize,
        [first, count]: [usize; 2],
    ) -> impl Fn(usize) -> S::V {
        let start = |map: FeatureMap| map.at(image * map.size()).wrapping_add(first).cast_const();
        let (x, residual) = (start(self.x), self.residual.map(start));
        // SAFETY: the caller's.
        unsafe {
            let factor = load_vector::<S, WHOLE>(self.factor.as_ptr().add(first), count);
            let offset = load_vector::<S, WHOLE>(self.offset.as_ptr().add(first), count);
            move |at| {
                let value = S::mul_add(load_vector::<S, WHOLE>(x.add(at), count), factor, offset);
                match residual {
                    Some(residual) => S::add(value, load_vector::<S, WHOLE>(residual.add(at), count)),
                    None => value,
                }
            }
        }
    }

    /// Writes the map to `to`, rectified with slope `leak` below 0.
    ///
    /// # Safety
    /// All maps are dense and have the same shape; `to` is not used by others.
    pub(crate) unsafe fn write(self, ctx: &ThreadCtx<'_>, to: FeatureMap, leak: Option<f32>) {
        ctx.worker.for_each_piece(to.images, |image| {
            // SAFETY: the caller's; every image is written by one thread; the instruction set is supported.
            unsafe { ctx.instructions.run(WriteImage { map: self, to, image, leak: leak.unwrap_or(1.0) }) };
        });
    }
}

/// Calls `$block::<S, WHOLE>([first, count])` for all vectors of channels.
macro_rules! for_each_vector {
    ($S:ty, $channels:expr, $self:ident.$block:ident) => {{
        let (channels, lanes) = ($channels, <$S>::LANES);
        for first in (0..channels).step_by(lanes) {
            if first + lanes <= channels {
                $self.$block::<$S, true>([first, lanes]);
            } else {
                $self.$block::<$S, false>([first, channels - first]);
            }
        }
    }};
}
pub(crate) use for_each_vector;

struct WriteImage<'a> {
    map: Normalized<'a>,
    to: FeatureMap,
    image: usize,
    leak: f32,
}

impl WriteImage<'_> {
    #[inline(always)]
    unsafe fn channels<S: Simd, const WHOLE: bool>(&self, [first, count]: [usize; 2]) {
        // SAFETY: the caller of `Normalized::write` guarantees maps of the same shape.
        unsafe {
            let values = self.map.values::<S, WHOLE>(self.image, [first, count]);
            let to = self.to.at(self.image * self.to.size()).add(first);
            let (zero, leak) = (S::splat(0.0), S::splat(self.leak));
            for at in (0..self.to.size()).map(|pixel| pixel * self.to.channels) {
                let value = values(at);
                let value = S::where_greater(value, zero, value, S::mul(value, leak));
                if WHOLE { S::store(to.add(at), value) } else { S::store_some(to.add(at), value, count) }
            }
        }
    }
}

impl SimdOp for WriteImage<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's.
        unsafe { for_each_vector!(S, self.to.channels, self.channels) }
    }
}
