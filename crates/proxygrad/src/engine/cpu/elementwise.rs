//! Operations that meet one value, or two in the same place: sums, products, scale and shift.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use super::finish::Finish;
use super::map::{Buffer, Map};
use super::simd::{Job, Simd};
use super::{Ahead, Back, Kernel, Needs, Site};
use crate::network::{Array, Binary};

/// Values that one piece takes.
const PIECE: usize = 16 * 1024;

/// Calls `f` for every vector of `finish`'s channels, shared out by pixels: its pixel, its first channel and how many
/// values count. What `f` gives goes to `finish`.
///
/// # Safety
/// `f` only reads what the vector's place allows.
pub(super) unsafe fn for_each_vector(site: &Site<'_>, finish: &Finish<'_>, f: impl VectorMap) {
    let pixels = finish.to.pixels();
    let pieces = (pixels * finish.to.channels).div_ceil(PIECE).min(pixels);
    site.member.each(pieces, |piece| {
        let pixels = [pixels * piece / pieces, pixels * (piece + 1) / pieces];
        // SAFETY: the instructions are available; no two pieces write the same pixels; the rest is the caller's.
        unsafe { site.instructions.run(Pixels { finish, f, pixels }) };
    });
}

/// A function of a place, for any vector instructions.
pub(super) trait VectorMap: Copy {
    /// The vector for `count` channels from `channel` of a pixel.
    ///
    /// # Safety
    /// As [`Simd`]; the place lies in the maps that the function reads.
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V;
}

/// [`for_each_vector`] for the pixels from one to another.
pub(super) struct Pixels<'a, F> {
    pub(super) finish: &'a Finish<'a>,
    pub(super) f: F,
    pub(super) pixels: [usize; 2],
}

impl<F: VectorMap> Job for Pixels<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.finish.to.channels;
        for pixel in self.pixels[0]..self.pixels[1] {
            let mut c = 0;
            while c < channels {
                let count = (channels - c).min(S::LANES);
                // SAFETY: the caller's.
                unsafe { self.finish.vector::<S>(pixel, c, self.f.vector::<S>(pixel, c, count), count) };
                c += S::LANES;
            }
        }
    }
}

/// Loads `count` values of a pixel.
///
/// # Safety
/// As [`Simd`]; the place lies in the map.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(map: &Map, pixel: usize, channel: usize, count: usize) -> S::V {
    // SAFETY: the caller's.
    unsafe { S::load_up_to(map.at(pixel).add(channel), count) }
}

/// The values of a map as they are.
#[derive(Clone, Copy)]
pub(super) struct Copied(pub(super) Map);

impl VectorMap for Copied {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe { load::<S>(&self.0, pixel, channel, count) }
    }
}

/// Two inputs of the same shape, combined.
pub(super) struct Elementwise(pub(super) Binary);

#[derive(Clone, Copy)]
struct Combined {
    kind: Binary,
    a: Map,
    b: Map,
}

impl VectorMap for Combined {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let (a, b) = (load::<S>(&self.a, pixel, channel, count), load::<S>(&self.b, pixel, channel, count));
            match self.kind {
                Binary::Add => S::add(a, b),
                Binary::Sub => S::sub(a, b),
                Binary::Mul => S::mul(a, b),
                Binary::Div => S::div(a, b),
            }
        }
    }
}

/// Gradients of [`Elementwise`] other than those that pass unchanged.
#[derive(Clone, Copy)]
struct Slope {
    kind: Binary,
    input: usize,
    a: Map,
    b: Map,
    output: Map,
    gradient: Map,
}

impl VectorMap for Slope {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let gradient = load::<S>(&self.gradient, pixel, channel, count);
            let zero = S::splat(0.0);
            match (self.kind, self.input) {
                (Binary::Add, _) | (Binary::Sub, 0) => gradient,
                (Binary::Sub, _) => S::sub(zero, gradient),
                (Binary::Mul, 0) => S::mul(gradient, load::<S>(&self.b, pixel, channel, count)),
                (Binary::Mul, _) => S::mul(gradient, load::<S>(&self.a, pixel, channel, count)),
                (Binary::Div, 0) => S::div(gradient, load::<S>(&self.b, pixel, channel, count)),
                (Binary::Div, _) => {
                    let product = S::mul(gradient, load::<S>(&self.output, pixel, channel, count));
                    S::sub(zero, S::div(product, load::<S>(&self.b, pixel, channel, count)))
                }
            }
        }
    }
}

impl Kernel for Elementwise {
    fn needs(&self) -> Needs {
        Needs { inputs: matches!(self.0, Binary::Mul | Binary::Div), output: self.0 == Binary::Div }
    }

    fn passes(&self, input: usize) -> bool {
        self.0 == Binary::Add || (self.0 == Binary::Sub && input == 0)
    }

    fn forward(&self, site: &Site<'_>, view: &Ahead<'_>, finish: &Finish<'_>) {
        let combined = Combined { kind: self.0, a: view.inputs[0], b: view.inputs[1] };
        // SAFETY: both inputs have the output's shape.
        unsafe { for_each_vector(site, finish, combined) };
    }

    fn backward(&self, site: &Site<'_>, input: usize, view: &Back<'_>, finish: &Finish<'_>) {
        let (a, b) = (view.inputs[0], view.inputs[1]);
        let slope = Slope { kind: self.0, input, a, b, output: view.output, gradient: view.gradient };
        // SAFETY: all maps have the same shape.
        unsafe { for_each_vector(site, finish, slope) };
    }
}

/// Scale and shift per channel.
pub(super) struct Affine {
    scale: Buffer,
    shift: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Scaled<'a> {
    map: Map,
    scale: &'a [f32],
}

impl VectorMap for Scaled<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's; the scales are padded to whole vectors.
        unsafe {
            S::mul(load::<S>(&self.map, pixel, channel, count), S::load_some(self.scale.as_ptr().add(channel), count))
        }
    }
}

impl Affine {
    pub(super) fn new(scale: &Array, shift: &Array) -> Self {
        let mut padded = Buffer::new(scale.len());
        padded.values_mut()[..scale.len()].copy_from_slice(scale.data());
        Self { scale: padded, shift: shift.data().to_vec() }
    }
}

impl Kernel for Affine {
    fn forward(&self, site: &Site<'_>, view: &Ahead<'_>, finish: &Finish<'_>) {
        let scaled = Scaled { map: view.inputs[0], scale: self.scale.values() };
        // SAFETY: one scale per channel.
        unsafe { for_each_vector(site, &Finish { bias: Some(&self.shift), ..*finish }, scaled) };
    }

    fn backward(&self, site: &Site<'_>, _: usize, view: &Back<'_>, finish: &Finish<'_>) {
        let scaled = Scaled { map: view.gradient, scale: self.scale.values() };
        // SAFETY: one scale per channel.
        unsafe { for_each_vector(site, finish, scaled) };
    }
}
