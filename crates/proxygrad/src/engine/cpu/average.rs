//! Average pools: of windows, and of whole maps.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use super::depthwise::Depthwise;
use super::elementwise::{VectorMap, for_each_vector, load};
use super::finish::Finish;
use super::map::Map;
use super::simd::Simd;
use super::{Ahead, Back, Banded, Heading, Kernel, Site};
use crate::network::{Shape, Window};

/// Average pooling.
pub(super) struct AveragePool {
    forward: Depthwise,
    backward: Depthwise,
}

impl AveragePool {
    pub(super) fn new(window: &Window, count_padding: bool, input: &Shape, output: &Shape) -> Self {
        let (inside, outside) = ([input[1], input[2]], [output[1], output[2]]);
        let counts = [0, 1].map(|i| window.counts(i, inside[i], outside[i], count_padding));
        let shares = counts[0].iter().flat_map(|y| counts[1].iter().map(move |x| 1.0 / (y * x).max(1) as f32));
        let shares: Vec<f32> = shares.collect();
        Self {
            forward: Depthwise::average(window, outside, shares.clone()),
            backward: Depthwise::average_backward(window, inside, shares),
        }
    }
}

impl Kernel for AveragePool {
    fn weights(&self) -> usize {
        self.forward.bytes() + self.backward.bytes()
    }

    fn bands(&self, heading: Heading) -> Option<&dyn Banded> {
        Some(match heading {
            Heading::Forward => &self.forward,
            Heading::Backward => &self.backward,
        })
    }

    fn forward(&self, site: &Site<'_>, view: &Ahead<'_>, finish: &Finish<'_>) {
        self.forward.run(site, view.inputs[0], finish);
    }

    fn backward(&self, site: &Site<'_>, _: usize, view: &Back<'_>, finish: &Finish<'_>) {
        self.backward.run(site, view.gradient, finish);
    }
}

/// The sum of every channel over its whole map, times a factor: global average pooling.
pub(super) struct GlobalSum {
    pub(super) factor: f32,
}

/// Sums over the pixels of an image; pixels of the result are images.
#[derive(Clone, Copy)]
struct Sum {
    map: Map,
    factor: f32,
}

impl VectorMap for Sum {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, image: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's; all pixels of the image lie in the map.
        unsafe {
            let mut total = S::splat(0.0);
            for row in 0..self.map.height {
                // Row by row: sums of sums keep their digits on large maps.
                let mut sum = S::splat(0.0);
                for column in 0..self.map.width {
                    let pixel = (image * self.map.height + row) * self.map.width + column;
                    sum = S::add(sum, load::<S>(&self.map, pixel, channel, count));
                }
                total = S::add(total, sum);
            }
            S::mul(total, S::splat(self.factor))
        }
    }
}

/// The same value for all pixels of an image.
#[derive(Clone, Copy)]
struct Spread {
    gradient: Map,
    size: usize,
    factor: f32,
}

impl VectorMap for Spread {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's; the gradient has one pixel per image.
        unsafe { S::mul(load::<S>(&self.gradient, pixel / self.size, channel, count), S::splat(self.factor)) }
    }
}

impl Kernel for GlobalSum {
    fn forward(&self, site: &Site<'_>, view: &Ahead<'_>, finish: &Finish<'_>) {
        // SAFETY: the result has one pixel per image, with the map's channels.
        unsafe { for_each_vector(site, finish, Sum { map: view.inputs[0], factor: self.factor }) };
    }

    fn backward(&self, site: &Site<'_>, _: usize, view: &Back<'_>, finish: &Finish<'_>) {
        let spread = Spread { gradient: view.gradient, size: finish.to.size(), factor: self.factor };
        // SAFETY: as above.
        unsafe { for_each_vector(site, finish, spread) };
    }
}
