//! Bilinear sampling of an image at affinely mapped positions, with reflection at the border.

use std::ops::Range;

use rayon::prelude::*;

use super::linear::{Linear, center, mirror};
use crate::maximize::ops::host::Real;

/// Source positions of one row of the view.
///
/// A view's pixel is `(1-fy) * ((1-fx) * a + fx * b) + fy * ((1-fx) * c + fx * d)`, with pixels `a b` above `c d`.
struct Line {
    size: [usize; 2],
    /// `fy` of every pixel, in [0, 1]; temporarily the source row.
    fy: Vec<f32>,
    /// `fx` of every pixel, in [0, 1]; temporarily the source column.
    fx: Vec<f32>,
    /// Index of `a` in the source plane.
    at: Vec<u32>,
}

impl Line {
    fn new(size: [usize; 2]) -> Self {
        Self { size, fy: vec![0.0; size[1]], fx: vec![0.0; size[1]], at: vec![0; size[1]] }
    }

    /// Computes the source positions of row `row` of the view.
    fn turn_to(&mut self, row: usize, linear: Linear) {
        self.find_sources(row, linear);
        self.mirror_ends();
        let [height, width] = self.size.map(|length| length as i32);
        // At the far border, the last pair of pixels is read, with all weight on the second.
        let (most_top, most_left) = ((height - 2).max(0), (width - 2).max(0));
        for ((fy, fx), at) in self.fy.iter_mut().zip(&mut self.fx).zip(&mut self.at) {
            let (top, left) = (floor(*fy).min(most_top), floor(*fx).min(most_left));
            *at = (top * width + left) as u32;
            *fy -= top as f32;
            *fx -= left as f32;
        }
    }

    fn find_sources(&mut self, row: usize, linear: Linear) {
        let [center_y, center_x] = center(self.size);
        let [[yy, yx], [xy, xx]] = linear.matrix;
        let (to_y, to_x) = (center_y + linear.shift[0], center_x + linear.shift[1]);
        let y = row as f32 - center_y;
        let width = self.size[1];
        let (source_y, source_x) = (&mut self.fy[..width], &mut self.fx[..width]);
        for column in 0..width {
            // Via i32, which vector units convert to f32.
            let x = column as i32 as f32 - center_x;
            source_y[column] = yy * y + yx * x + to_y;
            source_x[column] = xy * y + xx * x + to_x;
        }
    }

    /// The row is a straight line in the source, so only its two ends can be outside the image.
    fn mirror_ends(&mut self) {
        let [height, width] = self.size;
        let [last_y, last_x] = [(height - 1) as f32, (width - 1) as f32];
        let mirrored = |(y, x): (&mut f32, &mut f32)| {
            let outside = !((0.0..=last_y).contains(y) && (0.0..=last_x).contains(x));
            if outside {
                (*y, *x) = (mirror(*y, height), mirror(*x, width));
            }
            outside.then_some(())
        };
        let _ = self.fy.iter_mut().zip(&mut self.fx).try_for_each(mirrored);
        let _ = self.fy.iter_mut().zip(&mut self.fx).rev().try_for_each(mirrored);
    }

    /// For every pixel, the index of `a`, `fy` and `fx`.
    fn pixels<T: Real>(&self) -> impl Iterator<Item = (usize, T, T)> {
        let real = |x: f32| T::from_f64(f64::from(x));
        self.at.iter().zip(&self.fy).zip(&self.fx).map(move |((&at, &fy), &fx)| (at as usize, real(fy), real(fx)))
    }

    /// Offsets from `a` to `b` and to `c`: 0 along an axis of length 1.
    fn neighbours(&self) -> (usize, usize) {
        let [height, width] = self.size;
        (usize::from(width > 1), if height > 1 { width } else { 0 })
    }
}

/// Floor of `x` in `0..2^22`. Unlike an `as` cast, which handles NaN and saturates, it needs only plain vector
/// instructions.
fn floor(x: f32) -> i32 {
    const SHIFT: f32 = 8_388_608.0;
    // Between 2^23 and 2^24, f32 holds only integers, and its lowest bits count them.
    let nearest = ((x + SHIFT).to_bits() & 0x7f_ffff) as i32;
    nearest - i32::from(nearest as f32 > x)
}

/// Planes that are interleaved: their values at a pixel fill a short vector.
const TOGETHER: usize = 4;

/// A pixel's values in [`TOGETHER`] planes.
type Pixel<T> = [T; TOGETHER];

/// Rows per parallel task.
const ROWS: usize = 32;

/// Samples the view of an image, all planes.
pub(super) fn apply<T: Real>(linear: Linear, size: [usize; 2], source: &[T], view: &mut [T]) {
    let (area, width) = (size[0] * size[1], size[1]);
    for (source, view) in source.chunks(TOGETHER * area).zip(view.chunks_mut(TOGETHER * area)) {
        let pixels: Vec<Pixel<T>> = interleaved(source, area, 0..area).collect();
        // At most [`ROWS`] rows of every plane.
        let mut blocks: Vec<Vec<&mut [T]>> = Vec::new();
        blocks.resize_with(size[0].div_ceil(ROWS), Vec::new);
        for plane in view.chunks_exact_mut(area) {
            blocks.iter_mut().zip(plane.chunks_mut(ROWS * width)).for_each(|(block, rows)| block.push(rows));
        }
        blocks.into_par_iter().enumerate().for_each(|(block, mut view)| {
            let mut line = Line::new(size);
            let (right, down) = line.neighbours();
            let mut seen = vec![[T::zero(); TOGETHER]; width];
            for row in block * ROWS..size[0].min((block + 1) * ROWS) {
                line.turn_to(row, linear);
                for (seen, (at, fy, fx)) in seen.iter_mut().zip(line.pixels::<T>()) {
                    let (above, below) = (&pixels[at..=at + right], &pixels[at + down..=at + down + right]);
                    let (gy, gx) = (T::one() - fy, T::one() - fx);
                    for (i, seen) in seen.iter_mut().enumerate() {
                        *seen = gy * (gx * above[0][i] + fx * above[right][i])
                            + fy * (gx * below[0][i] + fx * below[right][i]);
                    }
                }
                for (i, rows) in view.iter_mut().enumerate() {
                    let rows = rows[(row - block * ROWS) * width..].iter_mut();
                    rows.zip(&seen).for_each(|(value, pixel)| *value = pixel[i]);
                }
            }
        });
    }
}

/// The adjoint of [`apply`]: adds gradients with respect to the view up in `sink`.
pub(super) fn adjoint<T: Real>(linear: Linear, size: [usize; 2], gradient: &[T], sink: &mut [T]) {
    let (area, width) = (size[0] * size[1], size[1]);
    for (gradient, sink) in gradient.chunks(TOGETHER * area).zip(sink.chunks_mut(TOGETHER * area)) {
        let scattered = |rows: Range<usize>| {
            let mut line = Line::new(size);
            let (right, down) = line.neighbours();
            let mut sums = vec![[T::zero(); TOGETHER]; area];
            for row in rows {
                line.turn_to(row, linear);
                let gradients = interleaved(gradient, area, row * width..(row + 1) * width);
                for (g, (at, fy, fx)) in gradients.zip(line.pixels::<T>()) {
                    let (gy, gx) = (T::one() - fy, T::one() - fx);
                    let above = &mut sums[at..=at + right];
                    add(&mut above[0], gx * gy, g);
                    add(&mut above[right], fx * gy, g);
                    let below = &mut sums[at + down..=at + down + right];
                    add(&mut below[0], gx * fy, g);
                    add(&mut below[right], fx * fy, g);
                }
            }
            sums
        };
        // Always two halves, so that no sum depends on the number of threads.
        let half = size[0] / 2;
        let (above, below) = rayon::join(|| scattered(0..half), || scattered(half..size[0]));
        for (i, plane) in sink.chunks_exact_mut(area).enumerate() {
            plane.iter_mut().zip(above.iter().zip(&below)).for_each(|(value, (a, b))| *value = a[i] + b[i]);
        }
    }
}

#[inline]
fn add<T: Real>(sum: &mut Pixel<T>, share: T, gradient: Pixel<T>) {
    for (sum, g) in sum.iter_mut().zip(gradient) {
        *sum += share * g;
    }
}

/// Interleaves a range of pixels of at most [`TOGETHER`] planes of `area` pixels.
fn interleaved<T: Real>(planes: &[T], area: usize, range: Range<usize>) -> impl Iterator<Item = Pixel<T>> {
    // The first plane replaces missing ones.
    let plane = |i: usize| &planes[if (i + 1) * area <= planes.len() { i * area } else { 0 }..][range.clone()];
    let pixels = plane(0).iter().zip(plane(1)).zip(plane(2)).zip(plane(3));
    pixels.map(|(((&a, &b), &c), &d)| [a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_floors() {
        for i in 0..40_000u16 {
            let x = f32::from(i) / 16.0;
            for x in [x, x.next_up(), x.next_down().max(0.0)] {
                assert_eq!(floor(x), x.floor() as i32, "{x}");
            }
        }
    }
}
