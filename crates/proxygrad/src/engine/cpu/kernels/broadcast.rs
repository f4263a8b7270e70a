//! Broadcasting of tensors that are not feature maps.

use crate::engine::cpu::kernel::BackwardNeeds;
use crate::engine::cpu::kernels::memory_order::{for_each_index, offset};
use crate::engine::cpu::kernels::scalar::ScalarOp;
use crate::engine::cpu::layout::Layout;
use crate::network::Binary;

/// An elementwise operation with broadcasting.
pub(crate) struct ScalarBroadcast {
    kind: Binary,
    /// For each input, the index that every output value reads; None if it has the output's shape.
    sources: [Option<Vec<u32>>; 2],
}

impl ScalarBroadcast {
    pub(crate) fn new(kind: Binary, a: &Layout, b: &Layout, output: &Layout) -> Self {
        Self { kind, sources: [sources(a, output), sources(b, output)] }
    }

    fn source(&self, i: usize, at: usize) -> usize {
        self.sources[i].as_ref().map_or(at, |sources| sources[at] as usize)
    }

    fn forward_by_definition(&self, kind: Binary, inputs: &[&[f32]], output: &mut [f32]) {
        for (at, out) in output.iter_mut().enumerate() {
            let (a, b) = (inputs[0][self.source(0, at)], inputs[1][self.source(1, at)]);
            *out = kind.value(f64::from(a), f64::from(b)) as f32;
        }
    }
}

/// Index that every value of `output` reads in a tensor of shape `input`, which repeats along axes of length 1.
fn sources(input: &Layout, output: &Layout) -> Option<Vec<u32>> {
    if input == output {
        return None;
    }
    let (from, to) = (input.strides(), output.strides());
    let lead = output.len() - input.len();
    let mut sources = vec![0; output.elements()];
    for_each_index(output, |index| {
        let repeated = |(&i, &length): (&usize, &usize)| if length == 1 { 0 } else { i };
        let source: Vec<usize> = index[lead..].iter().zip(input.iter()).map(repeated).collect();
        sources[offset(&to, index)] = offset(&from, &source) as u32;
    });
    Some(sources)
}

impl ScalarOp for ScalarBroadcast {
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: self.kind.reads_inputs(), output: self.kind == Binary::Div }
    }

    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let combine = match self.kind {
            Binary::Add => |a: f32, b: f32| a + b,
            Binary::Sub => |a: f32, b: f32| a - b,
            Binary::Mul => |a: f32, b: f32| a * b,
            Binary::Div => |a: f32, b: f32| a / b,
            kind => return self.forward_by_definition(kind, inputs, output),
        };
        for (at, out) in output.iter_mut().enumerate() {
            *out = combine(inputs[0][self.source(0, at)], inputs[1][self.source(1, at)]);
        }
    }

    fn backward(&self, i: usize, inputs: &[&[f32]], output: &[f32], gradient: &[f32], sink: &mut [f32]) {
        let (a, b) = (inputs[0], inputs[1]);
        for (at, gradient) in gradient.iter().enumerate() {
            let slope = match (self.kind, i) {
                (Binary::Add, _) | (Binary::Sub, 0) => 1.0,
                (Binary::Sub, _) => -1.0,
                (Binary::Mul, 0) => b[self.source(1, at)],
                (Binary::Mul, _) => a[self.source(0, at)],
                (Binary::Div, 0) => 1.0 / b[self.source(1, at)],
                (Binary::Div, _) => -output[at] / b[self.source(1, at)],
                (Binary::Less | Binary::LessOrEqual | Binary::Equal, _) => return,
                (kind @ (Binary::Min | Binary::Max | Binary::Pow), i) => {
                    let (a, b) = (a[self.source(0, at)], b[self.source(1, at)]);
                    kind.derivative(i, f64::from(a), f64::from(b)) as f32
                }
            };
            sink[self.source(i, at)] += gradient * slope;
        }
    }
}

/// Elementwise selection with broadcasting.
pub(crate) struct ScalarSelect {
    /// As [`ScalarBroadcast::sources`].
    sources: [Option<Vec<u32>>; 3],
}

impl ScalarSelect {
    pub(crate) fn new(inputs: &[&Layout], output: &Layout) -> Self {
        Self { sources: [0, 1, 2].map(|i| sources(inputs[i], output)) }
    }

    fn source(&self, i: usize, at: usize) -> usize {
        self.sources[i].as_ref().map_or(at, |sources| sources[at] as usize)
    }

    /// The input that an output value is read from.
    fn chosen(&self, condition: &[f32], at: usize) -> usize {
        if condition[self.source(0, at)] != 0.0 { 1 } else { 2 }
    }
}

impl ScalarOp for ScalarSelect {
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: true, output: false }
    }

    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        for (at, out) in output.iter_mut().enumerate() {
            let chosen = self.chosen(inputs[0], at);
            *out = inputs[chosen][self.source(chosen, at)];
        }
    }

    fn backward(&self, i: usize, inputs: &[&[f32]], _: &[f32], gradient: &[f32], sink: &mut [f32]) {
        for (at, gradient) in gradient.iter().enumerate() {
            if i == self.chosen(inputs[0], at) {
                sink[self.source(i, at)] += gradient;
            }
        }
    }
}
