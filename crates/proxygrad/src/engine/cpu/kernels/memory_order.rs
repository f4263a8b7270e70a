//! Memory order of scalar kernels, which find values by the strides of a [`Layout`].

use crate::engine::cpu::layout::Layout;

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
pub(crate) fn load(row_major: &[f32], layout: &Layout, memory: &mut [f32]) {
    let [height, width] = layout.size();
    if !layout.is_channels_last() || layout.pixel_len() == 1 {
        return memory.copy_from_slice(row_major);
    }
    for (c, plane) in row_major.chunks_exact((height * width).max(1)).enumerate() {
        for (p, &value) in plane.iter().enumerate() {
            memory[p * layout.pixel_len() + c] = value;
        }
    }
}
