//! Sums per channel over all pixels of a batch, in a fixed order: pixel by pixel within an image, then image by image.
#![expect(unsafe_code, reason = "images of maps that are not written meanwhile, and vector code")]

use crate::engine::cpu::buffer::SharedPtr;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::ThreadCtx;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};

/// What is summed for every pixel.
#[derive(Clone, Copy)]
pub(crate) enum Summand<'a> {
    /// `x - shift` and its square.
    Moments { x: FeatureMap, shift: &'a [f32] },
    /// `g` and `g * (x - shift)`.
    Products { g: FeatureMap, x: FeatureMap, shift: &'a [f32] },
    /// `g`, and nothing else.
    Values { g: FeatureMap },
}

impl Summand<'_> {
    fn map(&self) -> FeatureMap {
        match *self {
            Self::Moments { x, .. } => x,
            Self::Products { g, .. } | Self::Values { g } => g,
        }
    }
}

/// Values of memory that [`channel_sums`] needs for the sums of every image.
pub(crate) fn partial_len(images: usize, channels: usize) -> usize {
    2 * images * channels
}

/// The two sums of [`Summand`] per channel, over all pixels of all images. `partial` has [`partial_len`] values. All
/// threads return the same sums.
///
/// # Safety
/// The maps are dense, have the same shape, and are not written meanwhile; `partial` is not used by others.
pub(crate) unsafe fn channel_sums(ctx: &ThreadCtx<'_>, summand: Summand<'_>, partial: SharedPtr) -> [Vec<f64>; 2] {
    let map = summand.map();
    let channels = map.channels;
    ctx.worker.for_each_piece(map.images, |image| {
        // SAFETY: each image has its own part of `partial`; the instruction set is supported.
        unsafe {
            let sums = std::slice::from_raw_parts_mut(partial.pointer().add(2 * image * channels), 2 * channels);
            sums.fill(0.0);
            ctx.instructions.run(ImageSums { summand, image, sums });
        }
    });
    let mut totals = [vec![0.0; channels], vec![0.0; channels]];
    for image in 0..map.images {
        for (i, total) in totals.iter_mut().enumerate() {
            // SAFETY: all images were summed before the barrier.
            let sums =
                unsafe { std::slice::from_raw_parts(partial.pointer().add((2 * image + i) * channels), channels) };
            total.iter_mut().zip(sums).for_each(|(total, &sum)| *total += f64::from(sum));
        }
    }
    // No thread may overwrite the sums of images before all have read them.
    ctx.worker.barrier();
    totals
}

/// The sums of one image.
struct ImageSums<'a> {
    summand: Summand<'a>,
    image: usize,
    /// Two sums for each channel.
    sums: &'a mut [f32],
}

impl SimdOp for ImageSums<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.sums.len() / 2;
        let (first, second) = self.sums.split_at_mut(channels);
        // SAFETY: the caller of `channel_sums` guarantees dense maps that are only read.
        unsafe {
            match self.summand {
                Summand::Moments { x, shift } => {
                    for pixel in x.image(self.image).chunks_exact(channels) {
                        for (((first, second), &x), &shift) in first.iter_mut().zip(&mut *second).zip(pixel).zip(shift)
                        {
                            let centered = x - shift;
                            *first += centered;
                            *second += centered * centered;
                        }
                    }
                }
                Summand::Products { g, x, shift } => {
                    let pixels =
                        g.image(self.image).chunks_exact(channels).zip(x.image(self.image).chunks_exact(channels));
                    for (g, x) in pixels {
                        let sums = first.iter_mut().zip(&mut *second);
                        for (((first, second), &g), (&x, &shift)) in sums.zip(g).zip(x.iter().zip(shift)) {
                            *first += g;
                            *second += g * (x - shift);
                        }
                    }
                }
                Summand::Values { g } => {
                    for g in g.image(self.image).chunks_exact(channels) {
                        first.iter_mut().zip(g).for_each(|(sum, &g)| *sum += g);
                    }
                }
            }
        }
    }
}
