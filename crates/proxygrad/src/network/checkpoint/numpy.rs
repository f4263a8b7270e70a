//! Pickled dicts of numpy arrays.
//!
//! A pickled array is `_reconstruct(ndarray, (0,), b"b")` with the state `(version, shape, dtype, is_fortran, data)`
//! (`array_setstate` in numpy's `methods.c`); a pickled dtype is `dtype(code, align, copy)` with the state
//! `(version, byte order, …)` (`arraydescr_setstate` in `descriptor.c`).

use super::pickle::{Global, Object, ObjectId, Pickle};
use super::state_dict::{StateDictBuilder, copy_view};
use super::{CheckpointError, StateDict, malformed};
use crate::network::Array;

/// A dict of arrays keeps its names; a list of two arrays under `name` becomes `name.weight` and `name.bias`.
pub(super) fn read(bytes: &[u8]) -> Result<StateDict, CheckpointError> {
    let (pickle, _) = Pickle::read(bytes, 0)?;
    let Object::Dict(entries) = pickle.root() else {
        return Err(malformed(format!("expected a pickled dict of arrays, found {}", pickle.root().kind())));
    };
    let mut builder = StateDictBuilder::for_file(bytes);
    for &(key, value) in entries {
        let name = pickle.text(key).map_err(|why| malformed(format!("key of the dict: {why}")))?;
        match pickle.get(value) {
            Object::List(items) | Object::Tuple(items) => {
                let &[weight, bias] = items.as_slice() else {
                    return Err(malformed(format!("{name}: expected [weight, bias], found {} values", items.len())));
                };
                insert(&mut builder, &pickle, format!("{name}.weight"), weight)?;
                insert(&mut builder, &pickle, format!("{name}.bias"), bias)?;
            }
            _ => insert(&mut builder, &pickle, name.to_owned(), value)?,
        }
    }
    builder.build()
}

fn insert(
    builder: &mut StateDictBuilder,
    pickle: &Pickle<'_>,
    name: String,
    value: ObjectId,
) -> Result<(), CheckpointError> {
    match array(pickle, value) {
        Ok(Some(array)) => builder.insert(name, array),
        Ok(None) => Ok(()),
        Err(why) => Err(malformed(format!("{name}: {why}"))),
    }
}

/// The array; `None` if its elements are integers.
fn array(pickle: &Pickle<'_>, id: ObjectId) -> Result<Option<Array>, String> {
    let &Object::Call { function: Global::NumpyReconstruct, state: Some(state), .. } = pickle.get(id) else {
        return Err(format!("expected a numpy array, found {}", pickle.get(id).kind()));
    };
    let [_version, shape, dtype, fortran, data] = pickle.tuple(state)?;
    let Some(element) = Element::read(pickle, dtype)? else { return Ok(None) };
    let shape = pickle.sizes(shape)?;
    let &Object::Bool(fortran) = pickle.get(fortran) else {
        return Err(format!("expected the Fortran order flag, found {}", pickle.get(fortran).kind()));
    };
    let data = pickle.bytes(data)?;
    let count = shape.iter().try_fold(1usize, |count, &length| count.checked_mul(length));
    if count.and_then(|count| count.checked_mul(element.width)) != Some(data.len()) {
        return Err(format!("shape {shape:?} does not match the {} bytes stored", data.len()));
    }
    let mut strides = vec![1; shape.len()];
    let mut step = 1;
    for position in 0..shape.len() {
        let axis = if fortran { position } else { shape.len() - 1 - position };
        strides[axis] = step;
        step *= shape[axis];
    }
    copy_view(&shape, &strides, 0, data.len() / element.width, |index| element.value(&data, index)).map(Some)
}

/// A floating-point element type.
#[derive(Debug, Clone, Copy)]
struct Element {
    width: usize,
    little_endian: bool,
}

impl Element {
    fn read(pickle: &Pickle<'_>, dtype: ObjectId) -> Result<Option<Self>, String> {
        let &Object::Call { function: Global::NumpyDtype, arguments, state: Some(state) } = pickle.get(dtype) else {
            return Err(format!("expected a dtype, found {}", pickle.get(dtype).kind()));
        };
        let [code, _align, _copy] = pickle.tuple(arguments)?;
        let width = match pickle.text(code)? {
            "f4" => 4,
            "f8" => 8,
            code if code.starts_with(['i', 'u', 'b']) => return Ok(None),
            code => return Err(format!("expected elements f4 or f8, found {code:?}")),
        };
        let order = match pickle.get(state) {
            Object::Tuple(items) if items.len() >= 2 => pickle.text(items[1])?,
            other => return Err(format!("expected the state of a dtype, found {}", other.kind())),
        };
        let little_endian = match order {
            "<" => true,
            ">" => false,
            order => return Err(format!("expected the byte order < or >, found {order:?}")),
        };
        Ok(Some(Self { width, little_endian }))
    }

    fn value(self, data: &[u8], index: usize) -> f32 {
        super::torch::decode_float(&data[index * self.width..][..self.width], self.little_endian)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/data/checkpoints/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    /// Every fixture holds `conv`: a 2x3 array counting from 0 in row-major order with a bias of [-1, 0.5].
    fn assert_counts(state: &StateDict) {
        let weight = state.get("conv.weight").unwrap();
        assert_eq!(weight.shape(), [2, 3]);
        assert_eq!(weight.data(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(state.get("conv.bias").unwrap().data(), [-1.0, 0.5]);
        assert_eq!(state.len(), 2);
    }

    #[test]
    fn order_width_and_protocol_do_not_change_the_values() {
        for name in [
            "numpy-protocol2.pkl",
            "numpy-protocol3.pkl",
            "numpy-protocol4.pkl",
            "numpy-big-endian.pkl",
            "numpy-fortran.pkl",
            "numpy-f8.pkl",
        ] {
            let state = read(&fixture(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_counts(&state);
        }
    }

    #[test]
    fn a_dict_of_single_arrays_keeps_its_names_and_leaves_integers_out() {
        let state = read(&fixture("numpy-flat.pkl")).unwrap();
        assert_eq!(state.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["scale"]);
        assert_eq!(state.get("scale").unwrap().shape(), [0usize; 0]);
        assert_eq!(state.get("scale").unwrap().data(), [2.5]);
    }

    #[test]
    fn every_truncation_of_a_good_file_is_an_error() {
        let good = fixture("numpy-protocol3.pkl");
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "the first {length} bytes of {} passed", good.len());
        }
    }

    #[test]
    fn arrays_of_other_types_are_rejected_by_name() {
        let objects = read(&fixture("numpy-complex.pkl")).unwrap_err().to_string();
        assert!(objects.contains("conv: expected elements f4 or f8"), "{objects}");
        let list = read(&fixture("plain-list.pkl")).unwrap_err().to_string();
        assert!(list.contains("expected a pickled dict of arrays, found a list"), "{list}");
        let three = read(&fixture("numpy-three.pkl")).unwrap_err().to_string();
        assert!(three.contains("conv: expected [weight, bias], found 3 values"), "{three}");
    }

    #[test]
    fn a_shape_that_does_not_match_its_bytes_is_an_error() {
        let mut file = fixture("numpy-protocol3.pkl");
        // The shape tuple (2, 3): BININT1 2, BININT1 3, TUPLE2.
        let at = file.windows(5).position(|w| w == [b'K', 2, b'K', 3, 0x86]).unwrap();
        file[at + 1] = 200;
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("conv.weight: shape [200, 3] does not match the"), "{error}");
    }

    #[test]
    fn one_array_under_many_names_cannot_fill_the_memory() {
        let error = read(&fixture("numpy-shared.pkl")).unwrap_err().to_string();
        assert!(error.contains("more values than the file has bytes"), "{error}");
    }
}
