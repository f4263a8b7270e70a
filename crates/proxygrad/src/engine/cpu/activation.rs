//! Activations that stand on their own, and the gate that looks at a whole layer before it decides.
#![expect(unsafe_code, reason = "rows of maps")]

use std::ops::Range;

use super::finish::{Finish, Knees};
use super::map::Map;
use super::sides::{Side, Sides};
use super::simd::{Job, Simd};
use super::{Ahead, Back, GROUP, Kernel, Needs, Site};
use crate::engine::{Forward, Gate};
use crate::network::{Activation, Shape};

/// Values of a row that are computed together.
const ROW: usize = 256;

/// An activation with its gates.
pub(super) struct Activated {
    activation: Activation,
    /// Values between two neighbouring channels, and channels: what tells a value's channel.
    channels: [usize; 2],
}

impl Activated {
    pub(super) fn new(activation: &Activation, input: &Shape) -> Self {
        let stride = super::layout::strides(input).first().copied().unwrap_or(1);
        Self { activation: activation.clone(), channels: [stride, input.channels().max(1)] }
    }

    fn channel(&self, at: usize) -> usize {
        at / self.channels[0] % self.channels[1]
    }

    fn value(&self, forward: Forward, z: f32, at: usize) -> f32 {
        let z = f64::from(z);
        let value = match forward {
            Forward::Original => self.activation.value(z, self.channel(at)),
            Forward::Proxy { slope } => self.activation.proxy_value(z, f64::from(slope), self.channel(at)),
        };
        value as f32
    }

    fn slope(&self, gate: Gate, z: f32, at: usize) -> f32 {
        let (z, channel) = (f64::from(z), self.channel(at));
        let slope = match gate {
            Gate::Plain | Gate::Redirect => self.activation.derivative(z, channel),
            Gate::Proxy { slope } => self.activation.proxy_derivative(z, f64::from(slope), channel),
            Gate::Soft { temperature } => self.activation.soft_derivative(z, f64::from(temperature), channel),
            Gate::Identity => self.activation.peak(),
        };
        slope as f32
    }

    /// Factor on a gradient under [`Gate::Redirect`] where the whole layer's gradient vanishes.
    fn redirected(&self, z: f32, gradient: f32) -> f32 {
        let ((low, high), z) = (self.activation.breakpoints(), f64::from(z));
        let outwards = (z <= low && gradient < 0.0) || (z >= high && gradient > 0.0);
        if outwards { 0.0 } else { self.activation.peak() as f32 }
    }
}

/// The knees of a piecewise linear activation with slope 1 in the middle.
pub(super) fn knees(activation: &Activation) -> Option<Knees> {
    match *activation {
        Activation::Relu => Some(Knees { low: 0.0, high: f32::INFINITY, leak: 0.0 }),
        Activation::LeakyRelu { slope } if (0.0..=1.0).contains(&slope) => {
            Some(Knees { low: 0.0, high: f32::INFINITY, leak: slope })
        }
        Activation::Clip { min, max } if min < max => Some(Knees { low: min, high: max, leak: 0.0 }),
        _ => None,
    }
}

impl Kernel for Activated {
    fn needs(&self) -> Needs {
        Needs { inputs: true, output: false }
    }

    fn forward(&self, site: &Site<'_>, view: &Ahead<'_>, finish: &Finish<'_>) {
        let (z, forward) = (view.inputs[0], view.forward);
        // SAFETY: input and output have the same shape.
        unsafe { for_each_row(site, finish, |at, place| self.value(forward, *place(&z), at)) };
    }

    fn backward(&self, site: &Site<'_>, _: usize, view: &Back<'_>, finish: &Finish<'_>) {
        let (z, gradient, gate) = (view.inputs[0], view.gradient, view.gate);
        // SAFETY: all maps have the same shape; they are only read.
        unsafe {
            let dead: [bool; GROUP] = std::array::from_fn(|image| {
                gate == Gate::Redirect && image < z.images && {
                    let values = z.image(image).iter().zip(gradient.image(image)).enumerate();
                    values.into_iter().all(|(at, (&z, &g))| self.slope(Gate::Plain, z, at) * g == 0.0)
                }
            });
            for_each_row(site, finish, |at, place| {
                let (z_here, g) = (*place(&z), *place(&gradient));
                let image = at / (z.size() * z.channels);
                g * if dead[image] { self.redirected(z_here, g) } else { self.slope(gate, z_here, at) }
            });
        }
    }
}

/// Hands `f` of every value's position in a dense map to `finish`. `f`'s second argument gives that position in any map
/// of the same shape.
///
/// # Safety
/// The maps that `f` looks at have the shape of `finish.to`.
unsafe fn for_each_row(site: &Site<'_>, finish: &Finish<'_>, f: impl Fn(usize, &dyn Fn(&Map) -> *const f32) -> f32) {
    const PIECE: usize = 8 * 1024;
    let (pixels, channels) = (finish.to.pixels(), finish.to.channels);
    let rows = channels.div_ceil(ROW);
    let pieces = (pixels * channels).div_ceil(PIECE).min(pixels * rows);
    site.member.each(pieces, |piece| {
        for row in pixels * rows * piece / pieces..pixels * rows * (piece + 1) / pieces {
            let (pixel, first) = (row / rows, row % rows * ROW);
            let count = (channels - first).min(ROW);
            let mut line = [0.0; ROW];
            for (c, value) in line.iter_mut().enumerate().take(count) {
                // SAFETY: the position lies in every map of this shape.
                let place = |map: &Map| unsafe { map.at(pixel).add(first + c).cast_const() };
                *value = f(pixel * channels + first + c, &place);
            }
            // SAFETY: the instructions are available; no two pieces write the same values.
            unsafe { site.instructions.run(Line { finish, pixel, first, line: &line, count }) };
        }
    });
}

struct Line<'a> {
    finish: &'a Finish<'a>,
    pixel: usize,
    first: usize,
    line: &'a [f32; ROW],
    count: usize,
}

impl Job for Line<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the line holds whole vectors.
        unsafe { self.finish.row::<S>(self.pixel, self.first, self.line.as_ptr(), self.count) };
    }
}

/// Whether every image of a map has a value other than zero. All members find the same; the map must not be written before
/// they meet again.
pub(super) fn is_alive(map: Map) -> bool {
    // SAFETY: the pixels lie in the map, which is complete.
    (0..map.images).all(|image| unsafe { !is_zero(map, image * map.size()..(image + 1) * map.size()) })
}

/// Whether some pixels of a map, counted over all images, are zero in all channels.
///
/// # Safety
/// The pixels are in memory, and nobody writes them meanwhile.
pub(super) unsafe fn is_zero(map: Map, mut pixels: Range<usize>) -> bool {
    pixels.all(|pixel| {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts(map.at(pixel), map.channels) }.iter().all(|&value| value == 0.0)
    })
}

/// [`Gate::Redirect`] on a complete gradient `to` behind an activation with this slope outside its knees, in place.
pub(super) fn redirect(site: &Site<'_>, leak: f32, sides: Sides, to: Map) {
    let plain = |side: Side| if side == Side::Between { 1.0 } else { leak };
    // SAFETY: there is a side for every value of the map.
    let side = |pixel: usize, channel: usize| unsafe { sides.side(pixel, channel) };
    // SAFETY: the place lies in the map, and nobody writes before all members have looked.
    let value = |pixel: usize, channel: usize| unsafe { *to.at(pixel).add(channel) };
    let dead: [bool; GROUP] = std::array::from_fn(|image| {
        let places = (0..to.size()).flat_map(|p| (0..to.channels).map(move |c| (image * to.size() + p, c)));
        image < to.images && places.into_iter().all(|(p, c)| plain(side(p, c)) * value(p, c) == 0.0)
    });
    // Everybody has looked.
    site.member.each(0, |_| ());
    let rows = to.images * to.height;
    site.member.each(rows, |row| {
        let dead = dead[row / to.height];
        for pixel in row * to.width..(row + 1) * to.width {
            for channel in 0..to.channels {
                let (side, g) = (side(pixel, channel), value(pixel, channel));
                let outwards = (side == Side::Below && g < 0.0) || (side == Side::Above && g > 0.0);
                let factor = match dead {
                    false => plain(side),
                    true if outwards => 0.0,
                    true => 1.0,
                };
                // SAFETY: no two pieces write the same row.
                unsafe { *to.at(pixel).add(channel) = g * factor };
            }
        }
    });
}
