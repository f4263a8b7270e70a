//! One image on its way through a network: all buffers, allocated once.

use super::layout;
use super::{Kernel, Pass, View};
use crate::engine::Gate;
use crate::network::Shape;

/// One planned node.
pub(super) struct Step {
    /// `None` for the input.
    pub(super) kernel: Option<Box<dyn Kernel>>,
    /// Positions of the inputs among the steps.
    pub(super) inputs: Vec<usize>,
    /// Whether the value depends on the image, so that a gradient is wanted.
    pub(super) depends: bool,
    /// Number of values of the output.
    pub(super) elements: usize,
}

/// Buffers of one image.
pub(super) struct Lane {
    /// Outputs of all steps.
    values: Vec<Vec<f32>>,
    /// What kernels remember for the backward pass.
    memories: Vec<Vec<u8>>,
    /// Gradients of outputs that are under way.
    gradients: Vec<Option<Vec<f32>>>,
    /// Gradient buffers that are free again.
    spare: Vec<Vec<f32>>,
}

impl Lane {
    pub(super) fn new(steps: &[Step]) -> Self {
        Self {
            values: steps.iter().map(|step| vec![0.0; step.elements]).collect(),
            memories: vec![Vec::new(); steps.len()],
            gradients: vec![None; steps.len()],
            spare: Vec::new(),
        }
    }

    /// Takes in the image, row-major.
    pub(super) fn load(&mut self, image: &[f32], shape: &Shape) {
        layout::load(image, shape, &mut self.values[0]);
    }

    /// Appends the output of a step, row-major.
    pub(super) fn store(&self, step: usize, shape: &Shape, data: &mut Vec<f32>) {
        layout::store(&self.values[step], shape, data);
    }

    pub(super) fn forward(&mut self, steps: &[Step], pass: Pass) {
        for (i, step) in steps.iter().enumerate() {
            let Some(kernel) = &step.kernel else { continue };
            let (before, rest) = self.values.split_at_mut(i);
            let inputs: Vec<&[f32]> = step.inputs.iter().map(|&input| before[input].as_slice()).collect();
            kernel.forward(&inputs, &mut rest[0], &mut self.memories[i], pass);
        }
    }

    /// Adds to the gradient of a step's output, row-major.
    pub(super) fn seed(&mut self, step: usize, shape: &Shape, seed: &[f32]) {
        let mut ordered = vec![0.0; seed.len()];
        layout::load(seed, shape, &mut ordered);
        let gradient = self.gradients[step].get_or_insert_with(|| vec![0.0; seed.len()]);
        for (sum, part) in gradient.iter_mut().zip(&ordered) {
            *sum += part;
        }
    }

    pub(super) fn backward(&mut self, steps: &[Step], gate: Gate, spread: bool) {
        for (i, step) in steps.iter().enumerate().rev() {
            let Some(kernel) = &step.kernel else { continue };
            let Some(gradient) = self.gradients[i].take() else { continue };
            let inputs: Vec<&[f32]> = step.inputs.iter().map(|&input| self.values[input].as_slice()).collect();
            let (output, memory) = (self.values[i].as_slice(), self.memories[i].as_slice());
            let view = View { inputs: &inputs, output, memory, gradient: &gradient, spread };
            for (k, &input) in step.inputs.iter().enumerate() {
                if !steps[input].depends {
                    continue;
                }
                let mut sink = match self.gradients[input].take() {
                    Some(sink) => sink,
                    None => zeroed(self.spare.pop(), steps[input].elements),
                };
                kernel.backward(k, &view, gate, &mut sink);
                self.gradients[input] = Some(sink);
            }
            self.spare.push(gradient);
        }
    }

    /// Appends the image's gradient, row-major, and frees its buffer.
    pub(super) fn take_gradient(&mut self, shape: &Shape, data: &mut Vec<f32>) {
        match self.gradients[0].take() {
            Some(gradient) => {
                layout::store(&gradient, shape, data);
                self.spare.push(gradient);
            }
            None => data.resize(data.len() + shape.elements(), 0.0),
        }
    }
}

fn zeroed(buffer: Option<Vec<f32>>, length: usize) -> Vec<f32> {
    let mut buffer = buffer.unwrap_or_default();
    buffer.clear();
    buffer.resize(length, 0.0);
    buffer
}
