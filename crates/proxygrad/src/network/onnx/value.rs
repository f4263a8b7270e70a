//! Tensors whose values are known while the network is imported.

use std::sync::Arc;

use crate::network::Array;

/// Where a known number comes from. Exporters compute reshape targets and sizes from the shape of the image, so numbers
/// that look constant can depend on the image's size or on the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The same for every input.
    Constant,
    /// Computed from the height or width of the image.
    Size,
    /// The length of the batch axis itself.
    Batch,
    /// Computed from the length of the batch axis.
    Mixed,
}

/// Values of a [`Value`] in row-major order.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// All floating-point types.
    Float(Arc<[f32]>),
    /// All integer types.
    Int(Arc<[i64]>),
    /// Truth values.
    Bool(Arc<[bool]>),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::Float(data) => data.len(),
            Self::Int(data) => data.len(),
            Self::Bool(data) => data.len(),
        }
    }
}

/// A tensor whose values are known; all axes are counted.
#[derive(Debug, Clone)]
pub(super) struct Value {
    shape: Vec<usize>,
    data: Data,
    /// One per value; `None` when all are constant.
    origins: Option<Arc<[Origin]>>,
}

/// An integer with its origin.
pub(super) type Dim = (i64, Origin);

impl Value {
    /// Wraps constant `data`.
    ///
    /// # Errors
    /// When `data` does not hold the product of `shape` values.
    pub fn new(shape: Vec<usize>, data: Data) -> Result<Self, String> {
        match product(&shape) {
            Some(count) if count == data.len() => Ok(Self { shape, data, origins: None }),
            _ => Err(format!("a tensor of shape {shape:?} cannot hold {} values", data.len())),
        }
    }

    /// Wraps `data` whose values have `origins`.
    ///
    /// # Errors
    /// When `data` or `origins` does not hold the product of `shape` values.
    pub fn with_origins(shape: Vec<usize>, data: Data, origins: Option<Vec<Origin>>) -> Result<Self, String> {
        let mut value = Self::new(shape, data)?;
        if let Some(origins) = origins.filter(|origins| origins.iter().any(|&o| o != Origin::Constant)) {
            if origins.len() != value.len() {
                return Err(format!("{} origins for {} values", origins.len(), value.len()));
            }
            value.origins = Some(origins.into());
        }
        Ok(value)
    }

    /// A vector of integers, such as a shape.
    pub fn dims(dims: &[Dim]) -> Self {
        let data = Data::Int(dims.iter().map(|d| d.0).collect());
        let origins = dims.iter().any(|d| d.1 != Origin::Constant).then(|| dims.iter().map(|d| d.1).collect());
        Self { shape: vec![dims.len()], data, origins }
    }

    /// Lengths of all axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Where value `i` comes from.
    pub fn origin(&self, i: usize) -> Origin {
        self.origins.as_ref().map_or(Origin::Constant, |origins| origins[i])
    }

    /// Whether no value depends on the image.
    pub fn is_constant(&self) -> bool {
        self.origins.is_none()
    }

    /// Whether some value depends on the height or width of the image.
    pub fn is_sized(&self) -> bool {
        self.origins.as_ref().is_some_and(|origins| origins.contains(&Origin::Size))
    }

    /// Whether some value depends on the batch.
    fn is_batched(&self) -> bool {
        self.origins.as_ref().is_some_and(|origins| origins.iter().any(|&o| o >= Origin::Batch))
    }

    /// The values at `indices` in row-major order, under `shape`, which must have as many elements.
    ///
    /// # Errors
    /// When an index does not exist or the numbers differ.
    pub fn pick(&self, shape: Vec<usize>, indices: &[usize]) -> Result<Self, String> {
        if let Some(index) = indices.iter().find(|&&i| i >= self.len()) {
            return Err(format!("index {index} does not exist in a tensor of {:?}", self.shape));
        }
        let data = match &self.data {
            Data::Float(data) => Data::Float(indices.iter().map(|&i| data[i]).collect()),
            Data::Int(data) => Data::Int(indices.iter().map(|&i| data[i]).collect()),
            Data::Bool(data) => Data::Bool(indices.iter().map(|&i| data[i]).collect()),
        };
        let origins = self.origins.as_ref().map(|origins| indices.iter().map(|&i| origins[i]).collect());
        Self::with_origins(shape, data, origins)
    }

    /// The same values under another shape.
    ///
    /// # Errors
    /// When the numbers of elements differ.
    pub fn reshape(&self, shape: Vec<usize>) -> Result<Self, String> {
        match product(&shape) {
            Some(count) if count == self.len() => Ok(Self { shape, ..self.clone() }),
            _ => Err(format!("cannot view a tensor of {:?} as {shape:?}", self.shape)),
        }
    }

    /// Integers with their origins.
    ///
    /// # Errors
    /// When the values are no integers.
    pub fn int_dims(&self) -> Result<Vec<Dim>, String> {
        match &self.data {
            Data::Int(data) => Ok(data.iter().enumerate().map(|(i, &v)| (v, self.origin(i))).collect()),
            _ => Err("holds numbers that are no integers".into()),
        }
    }

    /// Integers that do not depend on the batch.
    ///
    /// # Errors
    /// When the values are no integers or depend on the batch.
    pub fn ints(&self) -> Result<&[i64], String> {
        match &self.data {
            Data::Int(data) if !self.is_batched() => Ok(data),
            Data::Int(_) => Err("holds numbers computed from the batch size".into()),
            _ => Err("holds numbers that are no integers".into()),
        }
    }

    /// Floating-point values that do not depend on the batch.
    ///
    /// # Errors
    /// When the values are of another type or depend on the batch.
    pub fn floats(&self) -> Result<&Arc<[f32]>, String> {
        match &self.data {
            Data::Float(data) if !self.is_batched() => Ok(data),
            Data::Float(_) => Err("holds numbers computed from the batch size".into()),
            _ => Err("holds no floating-point numbers".into()),
        }
    }

    /// The only value of a tensor with one floating-point element.
    ///
    /// # Errors
    /// When there is not exactly one floating-point value.
    pub fn scalar(&self) -> Result<f32, String> {
        match self.floats()?.as_ref() {
            [value] => Ok(*value),
            _ => Err(format!("holds {} numbers where one is expected", self.len())),
        }
    }

    /// The floating-point values as weights.
    ///
    /// # Errors
    /// When the values are of another type or depend on the batch.
    pub fn array(&self) -> Result<Array, String> {
        Ok(Array::new(self.shape.clone(), Arc::clone(self.floats()?))?)
    }
}

/// Most axes of a tensor.
pub(super) const MOST_AXES: usize = 16;

/// Number of elements of a shape; `None` when it is beyond counting, even of the axes beside an empty one.
pub(super) fn product(shape: &[usize]) -> Option<usize> {
    let full = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
    let countable = shape.len() <= MOST_AXES && isize::try_from(full).is_ok();
    countable.then_some(if shape.contains(&0) { 0 } else { full })
}

/// Row-major indices of a strided view: element `[i, j, ...]` of `shape` lies at `offset + i*steps[0] + j*steps[1] ...`.
pub(super) fn strided(shape: &[usize], steps: &[isize], offset: usize) -> Vec<usize> {
    let mut indices = vec![offset];
    for (&length, &step) in shape.iter().zip(steps) {
        let along = |&start: &usize| (0..length).map(move |i| start.wrapping_add_signed(step * i as isize));
        indices = indices.iter().flat_map(along).collect();
    }
    indices
}

/// Distances of neighbours along each axis of a row-major tensor.
pub(super) fn row_major(shape: &[usize]) -> Vec<isize> {
    let mut steps = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        steps[i - 1] = steps[i] * shape[i] as isize;
    }
    steps
}
