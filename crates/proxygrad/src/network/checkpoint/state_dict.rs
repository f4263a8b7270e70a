//! State dicts: weights by name, and their construction from the tensors of a file.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{CheckpointError, malformed};
use crate::network::Array;

/// Named arrays: the content of a weight file.
#[derive(Debug, Clone, Default)]
pub struct StateDict {
    tensors: BTreeMap<String, Array>,
}

impl StateDict {
    /// The array with this name.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.tensors.get(name)
    }

    /// Adds or replaces an array.
    pub fn insert(&mut self, name: impl Into<String>, array: Array) {
        self.tensors.insert(name.into(), array);
    }

    /// All arrays, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Array)> {
        self.tensors.iter().map(|(name, array)| (name.as_str(), array))
    }

    /// The shapes of all arrays.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.iter().map(|(name, array)| (name.to_owned(), array.shape().to_vec())).collect()
    }

    /// The same arrays under other names, without those for which `rename` returns none.
    pub(crate) fn renamed<'s>(&'s self, rename: impl Fn(&'s str) -> Option<Cow<'s, str>>) -> Self {
        let tensors = self.iter().filter_map(|(name, array)| Some((rename(name)?.into_owned(), array.clone())));
        Self { tensors: tensors.collect() }
    }

    /// Number of arrays.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are no arrays.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}

/// Collects the arrays of one file.
///
/// A few bytes of a pickle can refer to one large array any number of times, so the total number of values is limited
/// to the number of bytes in the file. Regular files have at most a quarter of that.
pub(super) struct StateDictBuilder {
    tensors: StateDict,
    budget: usize,
}

impl StateDictBuilder {
    pub(super) fn for_file(bytes: &[u8]) -> Self {
        Self { tensors: StateDict::default(), budget: bytes.len() }
    }

    pub(super) fn insert(&mut self, name: impl Into<String>, array: Array) -> Result<(), CheckpointError> {
        let name = name.into();
        self.budget = self
            .budget
            .checked_sub(array.len())
            .ok_or_else(|| malformed(format!("{name}: the tensors have more values than the file has bytes")))?;
        self.tensors.insert(name, array);
        Ok(())
    }

    pub(super) fn build(self) -> Result<StateDict, CheckpointError> {
        if self.tensors.is_empty() {
            Err(malformed("the file contains no floating-point tensors"))
        } else {
            Ok(self.tensors)
        }
    }
}

/// Copies the values of a strided view into row-major order.
///
/// Strides and offset count values; `value` returns the value at an index. All indices of the view must be less than
/// `available`.
pub(super) fn copy_view(
    shape: &[usize],
    strides: &[usize],
    offset: usize,
    available: usize,
    value: impl Fn(usize) -> f32,
) -> Result<Array, String> {
    let describe = || format!("shape {shape:?}, strides {strides:?}, offset {offset}, {available} values stored");
    if shape.len() != strides.len() {
        return Err(format!("the number of strides differs from the number of axes: {}", describe()));
    }
    let count = shape.iter().try_fold(1usize, |count, &length| count.checked_mul(length));
    let count =
        count.filter(|&count| count <= available).ok_or_else(|| format!("the view is too large: {}", describe()))?;
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(offset, |last, (&length, &stride)| last.checked_add(length.saturating_sub(1).checked_mul(stride)?));
    if count > 0 && last.is_none_or(|last| last >= available) {
        return Err(format!("the view exceeds its storage: {}", describe()));
    }
    let mut data = Vec::with_capacity(count);
    let mut index = vec![0usize; shape.len()];
    let mut position = offset;
    while data.len() < count {
        data.push(value(position));
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            // Intermediate positions may be out of range, because the stride of an axis of length 1 is arbitrary.
            position = position.wrapping_add(strides[axis]);
            if index[axis] < shape[axis] {
                break;
            }
            position = position.wrapping_sub(strides[axis].wrapping_mul(shape[axis]));
            index[axis] = 0;
        }
    }
    Ok(Array::new(shape, data)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_transposed_view_is_copied_into_row_major_order() {
        // [[0, 1, 2], [3, 4, 5]] seen through swapped axes.
        let array = copy_view(&[3, 2], &[1, 3], 0, 6, |i| i as f32).unwrap();
        assert_eq!(array.shape(), [3, 2]);
        assert_eq!(array.data(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn a_view_that_exceeds_its_storage_is_rejected() {
        assert!(copy_view(&[2, 3], &[3, 1], 1, 6, |_| 0.0).unwrap_err().contains("exceeds its storage"));
        assert!(copy_view(&[2], &[usize::MAX], 1, 6, |_| 0.0).unwrap_err().contains("exceeds its storage"));
        assert!(copy_view(&[1 << 40, 1 << 40], &[0, 0], 0, 6, |_| 0.0).unwrap_err().contains("too large"));
        assert!(copy_view(&[7], &[0], 0, 6, |_| 0.0).unwrap_err().contains("too large"));
        assert!(copy_view(&[2, 3], &[1], 0, 6, |_| 0.0).unwrap_err().contains("number of strides"));
    }

    #[test]
    fn scalars_and_empty_tensors_are_views_too() {
        assert_eq!(copy_view(&[], &[], 2, 3, |i| i as f32).unwrap().data(), [2.0]);
        assert_eq!(copy_view(&[1, 2], &[usize::MAX, 1], 0, 2, |i| i as f32).unwrap().data(), [0.0, 1.0]);
        assert!(copy_view(&[0, 4], &[4, 1], 0, 0, |_| 0.0).unwrap().is_empty());
    }

    #[test]
    fn the_values_of_all_tensors_cannot_outnumber_the_bytes_of_the_file() {
        let mut builder = StateDictBuilder::for_file(&[0; 5]);
        builder.insert("a", Array::vector(vec![0.0; 3])).unwrap();
        let error = builder.insert("b", Array::vector(vec![0.0; 3])).unwrap_err().to_string();
        assert!(error.contains("b: the tensors have more values"), "{error}");
    }
}
