//! Padding of a plane.

use super::linear::mirror;
use crate::maximize::ops::host::Real;

/// Pads a plane of height and width `size` with middle grey, or else by reflection.
pub(super) fn pad<T: Real>(margin: usize, grey: bool, [height, width]: [usize; 2], source: &[T], padded: &mut [T]) {
    if grey {
        padded.fill(T::from_f64(0.5));
        let rows = padded.chunks_exact_mut(width + 2 * margin).skip(margin);
        rows.zip(source.chunks_exact(width)).for_each(|(row, source)| row[margin..][..width].copy_from_slice(source));
        return;
    }
    let columns = mirrored(margin, width);
    for (row, y) in padded.chunks_exact_mut(width + 2 * margin).zip(mirrored(margin, height)) {
        let source = &source[y * width..][..width];
        row.iter_mut().zip(&columns).for_each(|(value, &x)| *value = source[x]);
    }
}

/// The adjoint of the linear part of [`pad`].
pub(super) fn adjoint<T: Real>(margin: usize, grey: bool, size: [usize; 2], gradient: &[T], sink: &mut [T]) {
    let [height, width] = size;
    if grey {
        return cut(margin, size, gradient, sink);
    }
    sink.fill(T::zero());
    let columns = mirrored(margin, width);
    for (row, y) in gradient.chunks_exact(width + 2 * margin).zip(mirrored(margin, height)) {
        let sink = &mut sink[y * width..][..width];
        row.iter().zip(&columns).for_each(|(&g, &x)| sink[x] += g);
    }
}

/// Removes a margin; the result has height and width `size`.
pub(super) fn cut<T: Copy>(margin: usize, [_, width]: [usize; 2], source: &[T], inside: &mut [T]) {
    let rows = source.chunks_exact(width + 2 * margin).skip(margin);
    inside.chunks_exact_mut(width).zip(rows).for_each(|(inside, row)| inside.copy_from_slice(&row[margin..][..width]));
}

/// The adjoint of [`cut`].
pub(super) fn uncut<T: Real>(margin: usize, [_, width]: [usize; 2], gradient: &[T], sink: &mut [T]) {
    sink.fill(T::zero());
    let rows = sink.chunks_exact_mut(width + 2 * margin).skip(margin);
    rows.zip(gradient.chunks_exact(width)).for_each(|(row, g)| row[margin..][..width].copy_from_slice(g));
}

/// Source index of every position along an axis with reflected margins.
fn mirrored(margin: usize, length: usize) -> Vec<usize> {
    (0..length + 2 * margin).map(|i| mirror(i as f32 - margin as f32, length) as usize).collect()
}
