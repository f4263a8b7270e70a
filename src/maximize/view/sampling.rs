//! Bilinear sampling of planes at linearly mapped positions; beyond its border the image is mirrored.

use super::linear::{Linear, center, mirror};
use crate::maximize::host::Real;

/// Where one row of the view takes its pixels from.
///
/// A view's pixel is `(1-fy) * ((1-fx) * a + fx * b) + fy * ((1-fx) * c + fx * d)` of the pixels `a b` above `c d`.
struct Line {
    size: [usize; 2],
    /// Source row and column of every pixel.
    positions: Vec<[f32; 2]>,
    /// Index of `a` in the source plane.
    at: Vec<u32>,
    /// `fy` and `fx`, in [0, 1].
    fractions: Vec<[f32; 2]>,
}

impl Line {
    fn new(size: [usize; 2]) -> Self {
        let width = size[1];
        Self { size, positions: vec![[0.0; 2]; width], at: vec![0; width], fractions: vec![[0.0; 2]; width] }
    }

    /// Turns to row `row` of the view.
    fn turn_to(&mut self, row: usize, Linear([[yy, yx], [xy, xx]]): Linear) {
        let [height, width] = self.size;
        let [center_y, center_x] = center(self.size);
        let y = row as f32 - center_y;
        for (column, position) in self.positions.iter_mut().enumerate() {
            let x = column as f32 - center_x;
            *position = [yy * y + yx * x + center_y, xy * y + xx * x + center_x];
        }
        // The row is a straight line: what lies beyond the border are its ends.
        let [last_y, last_x] = [(height - 1) as f32, (width - 1) as f32];
        let outside = |[y, x]: [f32; 2]| !((0.0..=last_y).contains(&y) && (0.0..=last_x).contains(&x));
        let into = |position: &mut [f32; 2]| *position = [mirror(position[0], height), mirror(position[1], width)];
        self.positions.iter_mut().take_while(|position| outside(**position)).for_each(into);
        self.positions.iter_mut().rev().take_while(|position| outside(**position)).for_each(into);
        // At the far border the pair of pixels is the last one there is, with the whole weight on the second.
        let (most_top, most_left) = (height.saturating_sub(2) as i32, width.saturating_sub(2) as i32);
        for ((&[y, x], at), fractions) in self.positions.iter().zip(&mut self.at).zip(&mut self.fractions) {
            let (top, left) = ((y as i32).min(most_top), (x as i32).min(most_left));
            *at = (top * width as i32 + left) as u32;
            *fractions = [y - top as f32, x - left as f32];
        }
    }

    /// Every pixel's index of `a` and its fractions.
    fn pixels<T: Real>(&self) -> impl Iterator<Item = (usize, T, T)> {
        let real = |x: f32| T::from_f64(f64::from(x));
        self.at.iter().zip(&self.fractions).map(move |(&at, &[fy, fx])| (at as usize, real(fy), real(fx)))
    }

    /// Distances from `a` to `b` and to `c`: 0 along an axis of length 1.
    fn neighbours(&self) -> (usize, usize) {
        let [height, width] = self.size;
        (usize::from(width > 1), if height > 1 { width } else { 0 })
    }
}

/// The view of every plane of `source`.
pub(super) fn apply<T: Real>(linear: Linear, size: [usize; 2], source: &[T], view: &mut [T]) {
    let (area, width) = (size[0] * size[1], size[1]);
    let mut line = Line::new(size);
    let (right, down) = line.neighbours();
    for row in 0..size[0] {
        line.turn_to(row, linear);
        for (source, view) in source.chunks_exact(area).zip(view.chunks_exact_mut(area)) {
            for (v, (at, fy, fx)) in view[row * width..][..width].iter_mut().zip(line.pixels::<T>()) {
                let near = &source[at..=at + down + right];
                let (gy, gx) = (T::one() - fy, T::one() - fx);
                *v = gy * (gx * near[0] + fx * near[right]) + fy * (gx * near[down] + fx * near[down + right]);
            }
        }
    }
}

/// The adjoint of [`apply`]: from gradients with respect to the view to `sink`.
pub(super) fn adjoint<T: Real>(linear: Linear, size: [usize; 2], gradient: &[T], sink: &mut [T]) {
    let (area, width) = (size[0] * size[1], size[1]);
    let mut line = Line::new(size);
    let (right, down) = line.neighbours();
    sink.fill(T::zero());
    for row in 0..size[0] {
        line.turn_to(row, linear);
        for (gradient, sink) in gradient.chunks_exact(area).zip(sink.chunks_exact_mut(area)) {
            for (&g, (at, fy, fx)) in gradient[row * width..][..width].iter().zip(line.pixels::<T>()) {
                let near = &mut sink[at..=at + down + right];
                let (top, bottom) = ((T::one() - fy) * g, fy * g);
                let gx = T::one() - fx;
                near[0] += gx * top;
                near[right] += fx * top;
                near[down] += gx * bottom;
                near[down + right] += fx * bottom;
            }
        }
    }
}
