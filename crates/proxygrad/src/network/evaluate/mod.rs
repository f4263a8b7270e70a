//! Evaluation: the values of every operation on known tensors, in f64, straight from its definition and without regard
//! to speed.
//!
//! The importer computes with it what a file computes from constants alone, and tests compare the engines with it.

mod arithmetic;
mod movement;
mod statistics;
mod windows;

use super::array::Array;
use super::error::ShapeError;
use super::op::Op;
use super::quantize::DynamicLevels;
use super::shape::Shape;

/// A known tensor of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    shape: Shape,
    /// Row-major.
    data: Vec<f64>,
}

impl Values {
    /// Wraps `data` in row-major order.
    ///
    /// # Errors
    /// When `data` does not hold exactly the product of `shape` values.
    pub fn new(shape: Shape, data: Vec<f64>) -> Result<Self, ShapeError> {
        if shape.elements() != data.len() {
            return Err(ShapeError::Parameter(format!("has {} values for the shape {shape}", data.len())));
        }
        Ok(Self { shape, data })
    }

    /// The values of a constant.
    pub fn of(array: &Array) -> Self {
        let data = array.data().iter().map(|&value| f64::from(value)).collect();
        Self { shape: array.shape().to_vec().into(), data }
    }

    /// Lengths of the axes, without the batch.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The values in row-major order.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    /// The value at an index of a tensor that this one broadcasts to.
    fn at(&self, index: &[usize]) -> f64 {
        let own = &index[index.len() - self.shape.len()..];
        let position = own
            .iter()
            .zip(self.shape.iter())
            .fold(0, |at, (&i, &length)| at * length + if length == 1 { 0 } else { i });
        self.data[position]
    }
}

impl Op {
    /// The output for these inputs.
    ///
    /// # Errors
    /// When the operation does not accept the inputs, and for [`Op::Input`], which has no values of its own.
    pub fn evaluate(&self, inputs: &[&Values]) -> Result<Values, ShapeError> {
        let shapes: Vec<&Shape> = inputs.iter().map(|input| &input.shape).collect();
        let shape = self.infer(&shapes)?;
        let data = match self {
            // `infer` has rejected it.
            Self::Input => Vec::new(),
            Self::Constant(array) => Values::of(array).data,
            Self::Conv(conv) => windows::convolution(conv, inputs[0], &shape),
            Self::Dense { weight, bias } => arithmetic::dense(weight, bias.as_ref(), inputs[0], &shape),
            Self::MatMul => arithmetic::mat_mul(inputs[0], inputs[1], &shape),
            Self::Affine { scale, shift } => {
                let (scale, shift) = (scale.data(), shift.data());
                arithmetic::per_channel(inputs[0], |x, c| f64::from(scale[c]) * x + f64::from(shift[c]))
            }
            Self::Activation(activation) => arithmetic::per_channel(inputs[0], |x, c| activation.value(x, c)),
            Self::Unary(function) => inputs[0].data.iter().map(|&x| function.value(x)).collect(),
            Self::Binary(kind) => positions(&shape, |at| kind.value(inputs[0].at(at), inputs[1].at(at))),
            Self::Select => positions(&shape, |at| inputs[if inputs[0].at(at) != 0.0 { 1 } else { 2 }].at(at)),
            Self::Concat { axis } => movement::concat(*axis, inputs),
            Self::MaxPool(window) => windows::max_pool(window, inputs[0], &shape),
            Self::AveragePool { window, count_padding } => {
                windows::average_pool(window, *count_padding, inputs[0], &shape)
            }
            Self::Reduce { kind, axes, .. } => statistics::reduce(*kind, axes, inputs[0]),
            Self::Pad { before, mode, .. } => movement::pad(before, *mode, inputs[0], &shape),
            Self::Reshape(_) => inputs[0].data.clone(),
            Self::Transpose(order) => movement::transpose(order, inputs[0], &shape),
            Self::Slice { axis, start, step, .. } => movement::along(*axis, inputs[0], &shape, |i| start + i * step),
            Self::Gather { axis, indices } => movement::along(*axis, inputs[0], &shape, |i| indices[i] as usize),
            Self::Resize(resize) => windows::resize(resize, inputs[0], &shape),
            Self::Normalize(normalize) => statistics::normalize(normalize, inputs[0]),
            Self::LocalResponse(norm) => statistics::local_response(norm, inputs[0]),
            Self::Softmax { axis } => statistics::softmax(*axis, false, inputs[0]),
            Self::LogSoftmax { axis } => statistics::softmax(*axis, true, inputs[0]),
            Self::DynamicQuantize => {
                DynamicLevels::<f64>::of(inputs[0].data.iter().copied()).quantized(&inputs[0].data)
            }
        };
        Values::new(shape, data)
    }

    /// Roughly how many multiplications [`Op::evaluate`] takes for an output of shape `output`.
    pub(crate) fn work(&self, inputs: &[&Shape], output: &Shape) -> usize {
        let per_value = match self {
            Self::Conv(conv) => conv.weight.len() / conv.out_channels().max(1),
            Self::Dense { weight, .. } => weight.shape().last().copied().unwrap_or(1),
            Self::MatMul => inputs[0].last().copied().unwrap_or(1),
            Self::MaxPool(window) | Self::AveragePool { window, .. } => {
                window.kernel[0].saturating_mul(window.kernel[1])
            }
            Self::Resize(resize) => {
                let taps = |axis: usize| resize.most_taps(axis, inputs[0][axis + 1], output[axis + 1]);
                taps(0).saturating_mul(taps(1))
            }
            Self::LocalResponse(norm) => norm.size.min(inputs[0].channels()),
            _ => 1,
        };
        let read = inputs.iter().map(|shape| shape.elements()).fold(0, usize::saturating_add);
        output.elements().saturating_mul(per_value).saturating_add(read)
    }
}

/// The value of `f` at every index of a tensor, in row-major order.
fn positions<T>(shape: &Shape, mut f: impl FnMut(&[usize]) -> T) -> Vec<T> {
    let mut index = vec![0; shape.len()];
    let mut values = Vec::with_capacity(shape.elements());
    for _ in 0..shape.elements() {
        values.push(f(&index));
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    values
}
