//! The backward pass of a dense layer: rows of the weights, weighted by the gradient.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use super::Site;
use super::finish::Finish;
use super::map::Map;
use super::simd::{Job, Simd};

/// Vectors that one piece computes together.
const TOGETHER: usize = 4;

/// `finish = gradient * weights` with `weights` `[O, I]`. The gradient of one logit is zero almost everywhere: rows whose
/// gradient is zero are not read.
pub(super) fn backward(site: &Site<'_>, weights: &[f32], gradient: Map, finish: &Finish<'_>) {
    let features = finish.to.channels;
    assert_eq!(weights.len(), features * gradient.channels);
    let width = TOGETHER * site.instructions.lanes();
    let blocks = features.div_ceil(width);
    site.member.each(gradient.pixels() * blocks, |piece| {
        let (pixel, first) = (piece / blocks, piece % blocks * width);
        // SAFETY: the instructions are available; no two pieces write the same features of a pixel.
        unsafe { site.instructions.run(Block { weights, gradient, finish, pixel, first }) };
    });
}

struct Block<'a> {
    weights: &'a [f32],
    gradient: Map,
    finish: &'a Finish<'a>,
    pixel: usize,
    first: usize,
}

impl Job for Block<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let features = self.finish.to.channels;
        let left = features - self.first;
        // SAFETY: the pixel lies in both maps, and features behind the last are not touched.
        unsafe {
            let mut sums = [S::splat(0.0); TOGETHER];
            for o in 0..self.gradient.channels {
                let factor = *self.gradient.at(self.pixel).add(o);
                if factor == 0.0 {
                    continue;
                }
                let row = self.weights.as_ptr().add(o * features + self.first);
                for (v, sum) in sums.iter_mut().enumerate() {
                    let count = left.saturating_sub(v * S::LANES);
                    if count > 0 {
                        let from = row.add(v * S::LANES);
                        let weight = S::load_up_to(from, count);
                        *sum = S::mul_add(S::splat(factor), weight, *sum);
                    }
                }
            }
            for (v, &sum) in sums.iter().enumerate() {
                let count = left.saturating_sub(v * S::LANES);
                if count > 0 {
                    self.finish.vector::<S>(self.pixel, self.first + v * S::LANES, sum, count);
                }
            }
        }
    }
}
