//! Sums per channel over all pixels of a batch, in a fixed order: pixel by pixel within an image, then image by image.
#![expect(unsafe_code, reason = "images of maps that are not written meanwhile, and vector code")]

use crate::engine::cpu::buffer::SharedPtr;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::ThreadCtx;
use crate::engine::cpu::simd::vector::{Simd, SimdOp, load_vector};
use crate::engine::cpu::training::normalized::{Normalized, for_each_vector};
use crate::engine::cpu::training::surrogate::{Slope, with_factor};

/// What is summed for every pixel.
#[derive(Clone, Copy)]
pub(crate) enum Summand<'a> {
    /// `x - shift` and its square.
    Moments { x: FeatureMap, shift: &'a [f32] },
    /// `g` and `g * (x - shift)`.
    Products { g: FeatureMap, x: FeatureMap, shift: &'a [f32] },
    /// `g`, and nothing else.
    Values { g: FeatureMap },
    /// As `Products`, of a gradient that first passes a rectifier.
    Gated(Gated<'a>),
}

/// The gradient of a rectifier's output, which becomes that of the pre-activations where it lies.
#[derive(Clone, Copy)]
pub(crate) struct Gated<'a> {
    pub(crate) g: FeatureMap,
    pub(crate) pre_activations: Normalized<'a>,
    pub(crate) slope: Slope,
    /// As in [`Summand::Products`], with the input of the normalization.
    pub(crate) shift: &'a [f32],
    /// The gradient of the residual, and whether the gradient is added to it or is all of it.
    pub(crate) residual: Option<(FeatureMap, bool)>,
}

impl Summand<'_> {
    fn map(&self) -> FeatureMap {
        match *self {
            Self::Moments { x, .. } => x,
            Self::Products { g, .. } | Self::Values { g } | Self::Gated(Gated { g, .. }) => g,
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
/// The maps are dense and have the same shape; those that are written are not used by others, and the others are not
/// written meanwhile; `partial` is not used by others.
pub(crate) unsafe fn channel_sums(ctx: &ThreadCtx<'_>, summand: Summand<'_>, partial: SharedPtr) -> [Vec<f64>; 2] {
    let map = summand.map();
    let channels = map.channels;
    ctx.worker.for_each_piece(map.images, |image| {
        // SAFETY: each image has its own part of `partial`; the instruction set is supported.
        unsafe {
            let sums = std::slice::from_raw_parts_mut(partial.pointer().add(2 * image * channels), 2 * channels);
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
    unsafe fn run<S: Simd>(mut self) {
        let channels = self.sums.len() / 2;
        // SAFETY: the caller's.
        unsafe { for_each_vector!(S, channels, self.channels) }
    }
}

impl ImageSums<'_> {
    /// Sums some channels.
    #[inline(always)]
    unsafe fn channels<S: Simd, const WHOLE: bool>(&mut self, [first, count]: [usize; 2]) {
        let image = self.image;
        let start = |map: FeatureMap| map.at(image * map.size()).wrapping_add(first);
        // SAFETY: the caller of `channel_sums` guarantees dense maps of the same shape.
        unsafe {
            let load = |from: *const f32| load_vector::<S, WHOLE>(from, count);
            match self.summand {
                Summand::Moments { x, shift } => {
                    let (x, shift) = (start(x), load(shift.as_ptr().add(first)));
                    self.sum::<S>([first, count], |at| {
                        let centered = S::sub(load(x.add(at)), shift);
                        [centered, S::mul(centered, centered)]
                    });
                }
                Summand::Products { g, x, shift } => {
                    let (g, x, shift) = (start(g), start(x), load(shift.as_ptr().add(first)));
                    self.sum::<S>([first, count], |at| {
                        let g = load(g.add(at));
                        [g, S::mul(g, S::sub(load(x.add(at)), shift))]
                    });
                }
                Summand::Values { g } => {
                    let (g, zero) = (start(g), S::splat(0.0));
                    self.sum::<S>([first, count], |at| [load(g.add(at)), zero]);
                }
                Summand::Gated(Gated { g, pre_activations, slope, shift, residual }) => {
                    let (g, x, shift) = (start(g), start(pre_activations.x), load(shift.as_ptr().add(first)));
                    let residual = residual.map(|(map, add)| (start(map), add));
                    let store = |to: *mut f32, value| {
                        if WHOLE { S::store(to, value) } else { S::store_some(to, value, count) }
                    };
                    let pre_activations = pre_activations.values::<S, WHOLE>(image, [first, count]);
                    with_factor!(S, slope, |factor| self.sum::<S>([first, count], |at| {
                        let gated = S::mul(load(g.add(at)), factor(pre_activations(at)));
                        store(g.add(at), gated);
                        if let Some((to, add)) = residual {
                            let to = to.add(at);
                            store(to, if add { S::add(load(to), gated) } else { gated });
                        }
                        [gated, S::mul(gated, S::sub(load(x.add(at)), shift))]
                    }));
                }
            }
        }
    }

    /// Sums the terms of all pixels, given by the offset of a pixel.
    #[inline(always)]
    unsafe fn sum<S: Simd>(&mut self, [first, count]: [usize; 2], terms: impl Fn(usize) -> [S::V; 2]) {
        let (map, channels) = (self.summand.map(), self.sums.len() / 2);
        // SAFETY: the instruction set is supported; both sums of the channels lie in `sums`.
        unsafe {
            let mut sums = [S::splat(0.0); 2];
            for pixel in 0..map.size() {
                let terms = terms(pixel * channels);
                sums = [S::add(sums[0], terms[0]), S::add(sums[1], terms[1])];
            }
            for (i, sum) in sums.into_iter().enumerate() {
                S::store_some(self.sums.as_mut_ptr().add(i * channels + first), sum, count);
            }
        }
    }
}
