//! Constant tensors: values that are known at import.

use std::sync::Arc;

use crate::network::Array;

/// Provenance of a known number. Exporters compute reshape targets and sizes from the shape of the image, so numbers
/// that look constant can depend on the image size. Numbers computed from the batch size are those of a batch of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Provenance {
    /// The same for every image.
    Constant,
    /// The length of the batch axis itself, which is 1.
    Batch,
    /// Computed from the height or width of the image.
    ImageSize,
}

impl Provenance {
    /// Provenance of a result computed from such a number: it is no longer the batch size itself.
    pub fn derived(self) -> Self {
        match self {
            Self::Constant | Self::Batch => Self::Constant,
            Self::ImageSize => Self::ImageSize,
        }
    }
}

/// Values of a [`ConstTensor`] in row-major order.
#[derive(Debug, Clone)]
pub(super) enum ConstData {
    /// All floating-point types.
    Float(Arc<[f32]>),
    /// All integer types.
    Int(Arc<[i64]>),
    /// Truth values.
    Bool(Arc<[bool]>),
}

impl ConstData {
    fn len(&self) -> usize {
        match self {
            Self::Float(data) => data.len(),
            Self::Int(data) => data.len(),
            Self::Bool(data) => data.len(),
        }
    }
}

/// A constant tensor; its shape includes the batch axis.
#[derive(Debug, Clone)]
pub(super) struct ConstTensor {
    shape: Vec<usize>,
    data: ConstData,
    /// One per value; `None` if all are constant.
    provenance: Option<Arc<[Provenance]>>,
    /// Number of the element type in the file; `None` for computed tensors.
    element: Option<i32>,
}

/// An integer with its provenance.
pub(super) type Dim = (i64, Provenance);

/// Provenance of a result whose size is computed from `dims`.
pub(super) fn derived_from(dims: &[Dim]) -> Provenance {
    dims.iter().map(|dim| dim.1).max().unwrap_or(Provenance::Constant).derived()
}

impl ConstTensor {
    /// Wraps `data`, which depends on nothing.
    ///
    /// # Errors
    /// When `data` does not hold the product of `shape` values.
    pub fn new(shape: Vec<usize>, data: ConstData) -> Result<Self, String> {
        match product(&shape) {
            Some(count) if count == data.len() => Ok(Self { shape, data, provenance: None, element: None }),
            _ => Err(format!("a tensor of shape {shape:?} cannot hold {} values", data.len())),
        }
    }

    /// Wraps `data` with the provenance of each value.
    ///
    /// # Errors
    /// When `data` or `provenance` does not hold the product of `shape` values.
    pub fn with_provenance(
        shape: Vec<usize>,
        data: ConstData,
        provenance: Option<Vec<Provenance>>,
    ) -> Result<Self, String> {
        let mut tensor = Self::new(shape, data)?;
        if let Some(all) = provenance.filter(|all| all.iter().any(|&one| one != Provenance::Constant)) {
            if all.len() != tensor.len() {
                return Err(format!("{} provenances for {} values", all.len(), tensor.len()));
            }
            tensor.provenance = Some(all.into());
        }
        Ok(tensor)
    }

    /// A vector of integers, such as a shape.
    pub fn dims(dims: &[Dim]) -> Self {
        let data = ConstData::Int(dims.iter().map(|d| d.0).collect());
        let depends = dims.iter().any(|d| d.1 != Provenance::Constant);
        let provenance = depends.then(|| dims.iter().map(|d| d.1).collect());
        Self { shape: vec![dims.len()], data, provenance, element: None }
    }

    /// Lengths of all axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values.
    pub fn data(&self) -> &ConstData {
        &self.data
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Provenance of value `i`.
    pub fn provenance(&self, i: usize) -> Provenance {
        self.provenance.as_ref().map_or(Provenance::Constant, |all| all[i])
    }

    /// Whether no value is computed from the size of the image or batch.
    pub fn is_constant(&self) -> bool {
        self.provenance.is_none()
    }

    /// Whether some value depends on the height or width of the image.
    pub fn depends_on_image_size(&self) -> bool {
        self.provenance.as_ref().is_some_and(|all| all.contains(&Provenance::ImageSize))
    }

    /// The values at `indices` in row-major order as a tensor of `shape`, which must have as many elements.
    ///
    /// # Errors
    /// When an index does not exist or the numbers differ.
    pub fn pick(&self, shape: Vec<usize>, indices: &[usize]) -> Result<Self, String> {
        if let Some(index) = indices.iter().find(|&&i| i >= self.len()) {
            return Err(format!("index {index} does not exist in a tensor of shape {:?}", self.shape));
        }
        let data = match &self.data {
            ConstData::Float(data) => ConstData::Float(indices.iter().map(|&i| data[i]).collect()),
            ConstData::Int(data) => ConstData::Int(indices.iter().map(|&i| data[i]).collect()),
            ConstData::Bool(data) => ConstData::Bool(indices.iter().map(|&i| data[i]).collect()),
        };
        let provenance = self.provenance.as_ref().map(|all| indices.iter().map(|&i| all[i]).collect());
        Ok(Self { element: self.element, ..Self::with_provenance(shape, data, provenance)? })
    }

    /// The same values with an element type.
    pub fn stored_as(self, element: i32) -> Self {
        Self { element: Some(element), ..self }
    }

    /// Number of the element type, if known.
    pub fn element(&self) -> Option<i32> {
        self.element
    }

    /// The same values under another shape.
    ///
    /// # Errors
    /// When the numbers of elements differ.
    pub fn reshape(&self, shape: Vec<usize>) -> Result<Self, String> {
        match product(&shape) {
            Some(count) if count == self.len() => Ok(Self { shape, ..self.clone() }),
            _ => Err(format!("a tensor of shape {:?} cannot be reshaped to {shape:?}", self.shape)),
        }
    }

    /// Integers with their provenance.
    ///
    /// # Errors
    /// When the values are not integers.
    pub fn int_dims(&self) -> Result<Vec<Dim>, String> {
        match &self.data {
            ConstData::Int(data) => Ok(data.iter().enumerate().map(|(i, &v)| (v, self.provenance(i))).collect()),
            _ => Err(NOT_INTEGERS.into()),
        }
    }

    /// The values as integers.
    ///
    /// # Errors
    /// When they are of another type.
    pub fn ints(&self) -> Result<&[i64], String> {
        match &self.data {
            ConstData::Int(data) => Ok(data),
            _ => Err(NOT_INTEGERS.into()),
        }
    }

    /// The values as floating-point numbers.
    ///
    /// # Errors
    /// When they are of another type.
    pub fn floats(&self) -> Result<&Arc<[f32]>, String> {
        match &self.data {
            ConstData::Float(data) => Ok(data),
            _ => Err("expected floating-point numbers, found values of another type".into()),
        }
    }

    /// The value of a tensor with one floating-point element.
    ///
    /// # Errors
    /// When there is not exactly one floating-point value.
    pub fn scalar(&self) -> Result<f32, String> {
        match self.floats()?.as_ref() {
            [value] => Ok(*value),
            _ => Err(format!("expected one number, found {}", self.len())),
        }
    }

    /// The value of a tensor with one truth value.
    ///
    /// # Errors
    /// When there is not exactly one truth value.
    pub fn truth(&self) -> Result<bool, String> {
        match &self.data {
            ConstData::Bool(values) if values.len() == 1 => Ok(values[0]),
            _ => Err("expected one truth value as its condition".into()),
        }
    }

    /// The same values, marked as valid only at this image size.
    pub fn of_image_size(self) -> Self {
        let provenance = (0..self.len()).map(|i| self.provenance(i).max(Provenance::ImageSize)).collect();
        Self { provenance: Some(provenance), ..self }
    }

    /// The values of any type as numbers; true is 1 and false is 0.
    ///
    /// # Errors
    /// When their number is not the product of the shape, which [`ConstTensor::new`] rules out.
    pub fn numbers(&self) -> Result<Array, String> {
        let data: Vec<f32> = match &self.data {
            ConstData::Float(data) => return Ok(Array::new(self.shape.clone(), Arc::clone(data))?),
            ConstData::Int(data) => data.iter().map(|&v| v as f32).collect(),
            ConstData::Bool(data) => data.iter().map(|&v| f32::from(v)).collect(),
        };
        Ok(Array::new(self.shape.clone(), data)?)
    }

    /// The floating-point values as weights.
    ///
    /// # Errors
    /// When the values are of another type.
    pub fn array(&self) -> Result<Array, String> {
        Ok(Array::new(self.shape.clone(), Arc::clone(self.floats()?))?)
    }
}

const NOT_INTEGERS: &str = "expected integers, found values of another type";

/// Maximum number of axes of a tensor.
pub(super) const MOST_AXES: usize = 16;

/// Number of elements of a shape; `None` if that overflows, even without the axes of length 0.
pub(super) fn product(shape: &[usize]) -> Option<usize> {
    let full = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
    let countable = shape.len() <= MOST_AXES && isize::try_from(full).is_ok();
    countable.then_some(if shape.contains(&0) { 0 } else { full })
}

/// Row-major indices of a strided view: element `[i, j, ...]` of `shape` is at `offset + i*strides[0] + j*strides[1]
/// ...`.
pub(super) fn strided(shape: &[usize], strides: &[isize], offset: usize) -> Vec<usize> {
    let mut indices = vec![offset];
    for (&length, &stride) in shape.iter().zip(strides) {
        let along = |&start: &usize| (0..length).map(move |i| start.wrapping_add_signed(stride * i as isize));
        indices = indices.iter().flat_map(along).collect();
    }
    indices
}

/// Strides of a row-major tensor.
pub(super) fn row_major(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i] as isize;
    }
    strides
}
