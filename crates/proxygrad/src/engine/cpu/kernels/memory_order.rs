//! Memory order of scalar kernels: feature maps `[C,H,W]` are channels-last (`H`, `W`, then `C`), everything else
//! row-major.

use crate::network::Shape;

/// Strides of a shape without the batch axis.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    if let &[channels, _, width] = shape {
        return vec![1, width * channels, channels];
    }
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Calls `f` with the index of every value of a tensor, in row-major order.
pub(crate) fn for_each_index(shape: &[usize], mut f: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    loop {
        f(&index);
        let Some(axis) = (0..shape.len()).rev().find(|&axis| index[axis] + 1 < shape[axis]) else { return };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

/// Position in memory of the value at `index`.
pub(crate) fn offset(strides: &[usize], index: &[usize]) -> usize {
    strides.iter().zip(index).map(|(stride, i)| stride * i).sum()
}

/// Copies row-major values into memory order.
pub(crate) fn load(row_major: &[f32], shape: &Shape, memory: &mut [f32]) {
    match shape.feature_map() {
        Some([channels, height, width]) if channels > 1 => {
            for (c, plane) in row_major.chunks_exact((height * width).max(1)).enumerate() {
                for (p, &value) in plane.iter().enumerate() {
                    memory[p * channels + c] = value;
                }
            }
        }
        _ => memory.copy_from_slice(row_major),
    }
}
