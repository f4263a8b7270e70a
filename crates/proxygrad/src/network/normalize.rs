//! Normalization: values are divided by the spread, or the norm, of the group of values that they belong to.

use super::array::Array;
use super::error::ShapeError;
use super::op::broadcast;
use super::shape::Shape;

/// `scale * normalized(x) + shift`, where [`Norm`] says how a group of values is normalized.
///
/// A layer normalization has the trailing axes, an instance normalization all axes but the channels, a group
/// normalization all axes, and groups of channels.
#[derive(Debug, Clone)]
pub struct Normalize {
    /// Axes along which values are normalized together, ascending, not counting the batch; at least one.
    pub axes: Vec<usize>,
    /// Number of equal parts of the first of these axes that are normalized apart from each other; 1 for none.
    pub groups: usize,
    /// What the values are divided by.
    pub kind: Norm,
    /// Lower bound of the divisor; see [`Norm`]. Finite and at least 0.
    pub epsilon: f32,
    /// Factors; they broadcast over the input, as in NumPy.
    pub scale: Option<Array>,
    /// Summands; they broadcast over the input.
    pub shift: Option<Array>,
}

/// What the values `x` of a group are divided by. Where the divisor is 0, the normalized values are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Norm {
    /// `sqrt(variance(x) + epsilon)`, after the mean was subtracted. The variance divides by the number of values.
    Deviation,
    /// `sqrt(mean(x²) + epsilon)`
    RootMeanSquare,
    /// `max(sum(|x|), epsilon)`
    L1,
    /// `max(sqrt(sum(x²)), epsilon)`
    L2,
}

/// How the values of one group are normalized: to `y = (x - center) * factor`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Statistics {
    /// What is subtracted.
    pub(crate) center: f64,
    /// What is multiplied.
    pub(crate) factor: f64,
    /// With the gradient `g` by `y`, the gradient by `x` is `factor * (g - mean(g) - direction * feedback * sum(g * y))`.
    /// There is a mean only for [`Norm::Deviation`], and the direction is that of [`Norm::direction`].
    pub(crate) feedback: f64,
}

impl Norm {
    /// Whether the mean is subtracted.
    pub(crate) fn is_centered(self) -> bool {
        self == Self::Deviation
    }

    /// See [`Statistics::feedback`].
    pub(crate) fn direction(self, x: f64, y: f64) -> f64 {
        match self {
            Self::Deviation | Self::RootMeanSquare | Self::L2 => y,
            Self::L1 if x == 0.0 => 0.0,
            Self::L1 => x.signum(),
        }
    }

    /// Statistics of a group of `count` values, given their mean (0 unless [`Norm::is_centered`]) and the sum of their
    /// squares, after subtraction of the mean, or of their absolute values ([`Norm::L1`]).
    pub(crate) fn statistics(self, epsilon: f64, count: usize, center: f64, sum: f64) -> Statistics {
        let count = count as f64;
        let (factor, feedback) = match self {
            Self::Deviation | Self::RootMeanSquare => (1.0 / (sum / count + epsilon).sqrt(), 1.0 / count),
            Self::L1 | Self::L2 => {
                let norm = if self == Self::L1 { sum } else { sum.sqrt() };
                if norm > epsilon { (1.0 / norm, 1.0) } else { (1.0 / epsilon, 0.0) }
            }
        };
        let factor = if factor.is_infinite() { 0.0 } else { factor };
        Statistics { center, factor, feedback }
    }
}

impl Normalize {
    /// Name as in layer listings.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Norm::Deviation if self.groups > 1 => "group-norm",
            Norm::Deviation if self.axes == [1, 2] => "instance-norm",
            Norm::Deviation => "layer-norm",
            Norm::RootMeanSquare => "rms-norm",
            Norm::L1 => "l1-norm",
            Norm::L2 => "l2-norm",
        }
    }

    /// The shape of the output, which is that of the input.
    pub(crate) fn infer(&self, input: &Shape) -> Result<Shape, ShapeError> {
        let Some(&first) = self.axes.first() else {
            return Err(ShapeError::Parameter("normalizes along no axis".into()));
        };
        if let Some(&axis) = self.axes.iter().find(|&&axis| axis >= input.len()) {
            return Err(ShapeError::Axis { axis, shape: input.clone() });
        }
        if !self.axes.is_sorted_by(|a, b| a < b) {
            return Err(ShapeError::Parameter(format!("has the axes {:?}, which are not ascending", self.axes)));
        }
        if self.groups == 0 || !input[first].is_multiple_of(self.groups) {
            let why = format!("cannot divide axis {first} of {input} into {} groups", self.groups);
            return Err(ShapeError::Parameter(why));
        }
        if !(self.epsilon >= 0.0 && self.epsilon.is_finite()) {
            return Err(ShapeError::Parameter(format!("has the epsilon {}, not a number from 0 on", self.epsilon)));
        }
        for (name, values) in [("scale", &self.scale), ("shift", &self.shift)] {
            let fits = |values: &Array| broadcast(&values.shape().to_vec().into(), input).as_ref() == Ok(input);
            if let Some(values) = values.as_ref().filter(|values| !fits(values)) {
                let why = format!("has a {name} of shape {:?}, which does not broadcast to {input}", values.shape());
                return Err(ShapeError::Weights(why));
            }
        }
        Ok(input.clone())
    }

    /// Number of values of each group of an input of this shape.
    pub(crate) fn group_len(&self, input: &Shape) -> usize {
        self.axes.iter().map(|&axis| input[axis]).product::<usize>() / self.groups.max(1)
    }

    /// This normalization followed by `scale * y + shift`, where both broadcast over its output; `None` if that needs
    /// arrays larger than those that there are.
    pub(crate) fn then_affine(&self, scale: &Array, shift: &Array) -> Option<Self> {
        let (first, summand) = (self.scale.clone().unwrap_or_else(one), self.shift.as_ref());
        let summand = match summand {
            Some(summand) => combined(&combined(summand, scale, |a, b| a * b)?, shift, |a, b| a + b)?,
            None => shift.clone(),
        };
        let factor = combined(&first, scale, |a, b| a * b)?;
        let is_trivial = |array: &Array, value: f32| array.data().iter().all(|&v| v == value);
        Some(Self {
            scale: (!is_trivial(&factor, 1.0)).then_some(factor),
            shift: (!is_trivial(&summand, 0.0)).then_some(summand),
            ..self.clone()
        })
    }
}

/// The number 1, which broadcasts over everything.
fn one() -> Array {
    Array::vector([1.0])
}

/// Combines two arrays with broadcasting, in f64; `None` if the result is larger than both.
fn combined(a: &Array, b: &Array, f: impl Fn(f64, f64) -> f64) -> Option<Array> {
    let shape = broadcast(&a.shape().to_vec().into(), &b.shape().to_vec().into()).ok()?;
    if shape.elements() > a.len().max(b.len()) {
        return None;
    }
    let at = |array: &Array, index: &[usize]| {
        let axes = index[shape.len() - array.shape().len()..].iter().zip(array.shape());
        let at = axes.fold(0, |at, (&i, &length)| at * length + if length == 1 { 0 } else { i });
        f64::from(array.data()[at])
    };
    let mut index = vec![0; shape.len()];
    let values = (0..shape.elements()).map(|position| {
        let mut rest = position;
        for axis in (0..shape.len()).rev() {
            (index[axis], rest) = (rest % shape[axis], rest / shape[axis]);
        }
        f(at(a, &index), at(b, &index)) as f32
    });
    let values: Vec<f32> = values.collect();
    Array::new(shape.to_vec(), values).ok()
}
