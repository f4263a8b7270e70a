//! Constant f32 tensors: weights and biases.

use std::fmt;
use std::sync::Arc;

use super::error::ArrayError;

/// An immutable, dense, row-major f32 tensor; clones share the data.
#[derive(Clone, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    data: Arc<[f32]>,
}

impl Array {
    /// Wraps `data` in row-major order.
    ///
    /// # Errors
    /// When `data` does not hold exactly the product of `shape` values.
    pub fn new(shape: impl Into<Vec<usize>>, data: impl Into<Arc<[f32]>>) -> Result<Self, ArrayError> {
        let (shape, data) = (shape.into(), data.into());
        let expected = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if expected != Some(data.len()) {
            return Err(ArrayError { shape, values: data.len() });
        }
        Ok(Self { shape, data })
    }

    /// A one-dimensional array.
    pub fn vector(data: impl Into<Arc<[f32]>>) -> Self {
        let data = data.into();
        Self { shape: vec![data.len()], data }
    }

    /// Lengths of the axes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values in row-major order.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether some axis has length zero.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Selects entries of the first axis, in the order given.
    pub(crate) fn rows(&self, entries: &[usize]) -> Self {
        let size: usize = self.shape[1..].iter().product();
        let data: Vec<f32> =
            entries.iter().flat_map(|&entry| &self.data[entry * size..(entry + 1) * size]).copied().collect();
        let shape = [&[entries.len()], &self.shape[1..]].concat();
        Self { shape, data: data.into() }
    }

    /// The same values in another shape of equal size.
    ///
    /// # Errors
    /// When the sizes differ.
    pub fn reshape(&self, shape: impl Into<Vec<usize>>) -> Result<Self, ArrayError> {
        Self::new(shape, Arc::clone(&self.data))
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array{:?}", self.shape)
    }
}
