//! Circular shift of a plane.

/// Rolls a plane down by `shift[0]` rows and right by `shift[1]` columns.
pub(super) fn roll<T: Copy>(shift: [i32; 2], [height, width]: [usize; 2], source: &[T], rolled: &mut [T]) {
    let (down, right) = (wrap(shift[0], height), wrap(shift[1], width));
    for (y, rolled) in rolled.chunks_exact_mut(width).enumerate() {
        let source = &source[(y + height - down) % height * width..][..width];
        rolled[right..].copy_from_slice(&source[..width - right]);
        rolled[..right].copy_from_slice(&source[width - right..]);
    }
}

/// A shift modulo the length of its axis, not negative.
pub(super) fn wrap(shift: i32, length: usize) -> usize {
    (i64::from(shift)).rem_euclid(length as i64) as usize
}
