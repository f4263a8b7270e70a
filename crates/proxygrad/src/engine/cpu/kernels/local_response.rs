//! Local response normalization.

use crate::engine::cpu::kernel::BackwardNeeds;
use crate::engine::cpu::kernels::scalar::ScalarOp;
use crate::engine::cpu::layout::Layout;
use crate::network::LocalResponse;

/// Local response normalization of a tensor whose channels are `stride` values apart.
pub(crate) struct ScalarLocalResponse {
    norm: LocalResponse,
    channels: usize,
    stride: usize,
}

impl ScalarLocalResponse {
    pub(crate) fn new(norm: LocalResponse, input: &Layout) -> Self {
        Self { norm, channels: input.channels(), stride: input.strides()[0] }
    }

    /// Calls `f` with the index of the first channel of every position.
    fn for_each_position(&self, values: usize, mut f: impl FnMut(usize)) {
        let block = self.channels * self.stride;
        (0..values).step_by(block).for_each(|start| (start..start + self.stride).for_each(&mut f));
    }

    /// For every channel of a position, `bias + alpha / size * sum(x²)`.
    fn bases(&self, x: &[f32], first: usize, squares: &mut [f32], bases: &mut [f32]) {
        let share = self.norm.alpha / self.norm.size as f32;
        for (c, square) in squares.iter_mut().enumerate() {
            let value = x[first + c * self.stride];
            *square = value * value;
        }
        for (c, base) in bases.iter_mut().enumerate() {
            let sum: f32 = squares[self.norm.window(c, self.channels)].iter().sum();
            *base = self.norm.bias + share * sum;
        }
    }

    /// `base^-beta`; the exponent of nearly all networks is 0.75.
    fn power(&self, base: f32) -> f32 {
        if self.norm.beta == 0.75 { 1.0 / (base.sqrt() * base.sqrt().sqrt()) } else { base.powf(-self.norm.beta) }
    }
}

impl ScalarOp for ScalarLocalResponse {
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: true, output: false }
    }

    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let x = inputs[0];
        let (mut squares, mut bases) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        self.for_each_position(x.len(), |first| {
            self.bases(x, first, &mut squares, &mut bases);
            for (c, &base) in bases.iter().enumerate() {
                let at = first + c * self.stride;
                output[at] = x[at] * self.power(base);
            }
        });
    }

    fn backward(&self, _: usize, inputs: &[&[f32]], _: &[f32], gradient: &[f32], sink: &mut [f32]) {
        let x = inputs[0];
        let factor = 2.0 * self.norm.beta * self.norm.alpha / self.norm.size as f32;
        let (mut squares, mut bases) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        let (mut powers, mut through) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        self.for_each_position(x.len(), |first| {
            self.bases(x, first, &mut squares, &mut bases);
            for (c, &base) in bases.iter().enumerate() {
                let at = first + c * self.stride;
                powers[c] = self.power(base);
                through[c] = gradient[at] * x[at] * powers[c] / base;
            }
            for (c, &power) in powers.iter().enumerate() {
                let at = first + c * self.stride;
                // A channel also acts through the sums of all channels near it.
                let sum: f32 = through[self.norm.readers(c, self.channels)].iter().sum();
                sink[at] += gradient[at] * power - factor * x[at] * sum;
            }
        });
    }
}
