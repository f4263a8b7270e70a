//! Safetensors files.

use candle_core::{DType, Device};

use super::state_dict::StateDictBuilder;
use super::{CheckpointError, StateDict, malformed};
use crate::network::Array;

pub(super) fn read(bytes: &[u8]) -> Result<StateDict, CheckpointError> {
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| malformed(e.to_string()))?;
    let mut builder = StateDictBuilder::for_file(bytes);
    for (name, tensor) in tensors {
        if !tensor.dtype().is_float() {
            continue;
        }
        let values = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
        let array = values.map_err(|e| e.to_string()).and_then(|values| Ok(Array::new(tensor.dims(), values)?));
        builder.insert(&name, array.map_err(|why| malformed(format!("{name}: {why}")))?)?;
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn tensors_of_a_saved_file_come_back_as_f32() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights.safetensors");
        let weight = Tensor::new(&[[1.0f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let half = weight.to_dtype(DType::F16).unwrap();
        let counter = Tensor::new(&[7i64], &Device::Cpu).unwrap();
        let tensors = [("weight", weight), ("half", half), ("counter", counter)].map(|(n, t)| (n.to_owned(), t));
        candle_core::safetensors::save(&tensors.into(), &file).unwrap();

        let state = read(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(state.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["half", "weight"]);
        for (_, array) in state.iter() {
            assert_eq!((array.shape(), array.data()), (&[2, 2][..], &[1.0, 2.0, 3.0, 4.0][..]));
        }
    }

    #[test]
    fn damaged_files_are_errors() {
        for bytes in
            [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff{}", b"\x02\0\0\0\0\0\0\0{}", b"not safetensors at all"]
        {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }
}
