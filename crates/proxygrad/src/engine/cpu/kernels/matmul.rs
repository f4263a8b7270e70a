//! Matrix products without vector code.

use crate::engine::cpu::kernel::BackwardNeeds;
use crate::engine::cpu::kernels::memory_order::{for_each_index, offset};
use crate::engine::cpu::kernels::scalar::ScalarOp;
use crate::engine::cpu::layout::Layout;
use crate::network::Array;

/// A matrix applied to every vector along the last axis.
pub(crate) struct ScalarDense {
    /// `[O, I]`.
    weight: Array,
    bias: Option<Array>,
    /// Where each vector starts in the input and in the output.
    starts: [Vec<u32>; 2],
    /// Values from one value of a vector to the next, in the input and in the output.
    steps: [usize; 2],
}

impl ScalarDense {
    pub(crate) fn new(weight: &Array, bias: Option<&Array>, input: &Layout, output: &Layout) -> Self {
        let parts = [input, output].map(|shape| (shape.strides(), shape.len() - 1));
        let starts = parts.each_ref().map(|(strides, last)| {
            let mut starts = Vec::new();
            for_each_index(&input[..*last], |index| starts.push(offset(&strides[..*last], index) as u32));
            starts
        });
        let steps = parts.map(|(strides, last)| strides[last]);
        Self { weight: weight.clone(), bias: bias.cloned(), starts, steps }
    }
}

impl ScalarOp for ScalarDense {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let features = self.weight.shape()[1];
        for (&from, &to) in self.starts[0].iter().zip(&self.starts[1]) {
            for (o, weights) in self.weight.data().chunks_exact(features).enumerate() {
                let mut sum = self.bias.as_ref().map_or(0.0, |bias| bias.data()[o]);
                for (i, weight) in weights.iter().enumerate() {
                    sum += weight * inputs[0][from as usize + i * self.steps[0]];
                }
                output[to as usize + o * self.steps[1]] = sum;
            }
        }
    }

    fn backward(&self, _: usize, _: &[&[f32]], _: &[f32], gradient: &[f32], sink: &mut [f32]) {
        let features = self.weight.shape()[1];
        for (&to, &from) in self.starts[0].iter().zip(&self.starts[1]) {
            for (o, weights) in self.weight.data().chunks_exact(features).enumerate() {
                let factor = gradient[from as usize + o * self.steps[1]];
                for (i, weight) in weights.iter().enumerate() {
                    sink[to as usize + i * self.steps[0]] += factor * weight;
                }
            }
        }
    }
}

/// Matrix products of two inputs, with broadcasting of the axes before the matrices.
pub(crate) struct ScalarMatMul {
    /// Where the matrices of each product start: of both inputs and of the output.
    starts: Vec<[u32; 3]>,
    /// Values from one row, and from one column, to the next, of both inputs and of the output.
    strides: [[usize; 2]; 3],
    /// Rows, inner length and columns.
    size: [usize; 3],
}

impl ScalarMatMul {
    pub(crate) fn new(a: &Layout, b: &Layout, output: &Layout) -> Self {
        let outer = &output[..output.len() - 2];
        let all = [a, b, output].map(|shape| (shape, shape.strides()));
        let mut starts = Vec::new();
        for_each_index(outer, |index| {
            starts.push(all.each_ref().map(|(shape, strides)| {
                let skipped = output.len() - shape.len();
                let repeated = |axis: usize| if shape[axis] == 1 { 0 } else { index[skipped + axis] * strides[axis] };
                (0..shape.len() - 2).map(repeated).sum::<usize>() as u32
            }));
        });
        let strides = all.each_ref().map(|(shape, strides)| [strides[shape.len() - 2], strides[shape.len() - 1]]);
        Self { starts, strides, size: [a[a.len() - 2], a[a.len() - 1], b[b.len() - 1]] }
    }
}

impl ScalarMatMul {
    /// Where the matrices of each product start: of both inputs and of the output.
    pub(crate) fn starts(&self) -> &[[u32; 3]] {
        &self.starts
    }

    /// Rows, inner length and columns.
    pub(crate) fn size(&self) -> [usize; 3] {
        self.size
    }
}

/// Adds `rows x inner` times `inner x columns` to a matrix. Each matrix is a start and the strides of rows and columns.
fn add_product(
    [rows, inner, columns]: [usize; 3],
    (a, a_at, a_strides): (&[f32], usize, [usize; 2]),
    (b, b_at, b_strides): (&[f32], usize, [usize; 2]),
    (to, to_at, to_strides): (&mut [f32], usize, [usize; 2]),
) {
    for row in 0..rows {
        for column in 0..columns {
            let at = to_at + row * to_strides[0] + column * to_strides[1];
            let mut sum = to[at];
            for k in 0..inner {
                let x = a[a_at + row * a_strides[0] + k * a_strides[1]];
                sum += x * b[b_at + k * b_strides[0] + column * b_strides[1]];
            }
            to[at] = sum;
        }
    }
}

impl ScalarOp for ScalarMatMul {
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: true, output: false }
    }

    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        output.fill(0.0);
        for &[a, b, to] in &self.starts {
            let [a, b, to] = [a, b, to].map(|start| start as usize);
            let [a_strides, b_strides, to_strides] = self.strides;
            let (a, b) = ((inputs[0], a, a_strides), (inputs[1], b, b_strides));
            add_product(self.size, a, b, (&mut *output, to, to_strides));
        }
    }

    fn backward(&self, i: usize, inputs: &[&[f32]], _: &[f32], gradient: &[f32], sink: &mut [f32]) {
        let ([rows, inner, columns], turned) = (self.size, |[rows, columns]: [usize; 2]| [columns, rows]);
        let [a_strides, b_strides, to_strides] = self.strides;
        for &[a, b, to] in &self.starts {
            let [a, b, to] = [a, b, to].map(|start| start as usize);
            let gradient = (gradient, to, to_strides);
            if i == 0 {
                let b = (inputs[1], b, turned(b_strides));
                add_product([rows, columns, inner], gradient, b, (&mut *sink, a, a_strides));
            } else {
                let a = (inputs[0], a, turned(a_strides));
                add_product([inner, rows, columns], a, gradient, (&mut *sink, b, b_strides));
            }
        }
    }
}
