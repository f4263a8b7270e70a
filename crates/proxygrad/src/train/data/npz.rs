//! Numpy archives (`numpy.savez`): a zip archive of arrays `x_train`, `y_train`, `x_test`, `y_test`, with images
//! `[N,H,W]`, `[N,H,W,C]` or `[N,C,H,W]` of bytes and labels of integers.
//!
//! The format of an array: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{DataError, Dataset, MOST_BYTES, numbered};

/// An array of an archive.
struct Stored {
    shape: Vec<usize>,
    /// Such as `u1` or `<i8`.
    element: String,
    values: Vec<u8>,
}

pub(super) fn read(path: &Path) -> Result<(Dataset, Option<Dataset>), DataError> {
    let wrong = |why: String| DataError::new(path, why);
    let file = File::open(path).map_err(|why| wrong(why.to_string()))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|why| wrong(format!("is not an npz archive: {why}")))?;
    let mut array = |name: &str| array(&mut archive, name).map_err(|why| wrong(format!("{name}: {why}")));
    let train = (array("x_train")?, array("y_train")?);
    let (Some(x), Some(y)) = train else {
        return Err(wrong("expected arrays x_train and y_train, and optionally x_test and y_test".into()));
    };
    let test = match (array("x_test")?, array("y_test")?) {
        (Some(x), Some(y)) => Some((x, y)),
        (None, None) => None,
        _ => return Err(wrong("has only one of x_test and y_test".into())),
    };
    let train_labels = labels(&y).map_err(|why| wrong(format!("y_train: {why}")))?;
    let test_labels =
        test.as_ref().map(|(_, y)| labels(y)).transpose().map_err(|why| wrong(format!("y_test: {why}")))?;
    let all = train_labels.iter().chain(test_labels.iter().flatten());
    let classes = numbered(all.max().map_or(0, |&largest| largest as usize + 1));
    let part = |x: &Stored, labels: Vec<u32>| {
        let (size, images) = images(x).map_err(wrong)?;
        Dataset::new(size, images, labels, classes.clone()).map_err(|error| DataError::new(path, error.why))
    };
    let train = part(&x, train_labels)?;
    let test = test.zip(test_labels).map(|((x, _), labels)| part(&x, labels)).transpose()?;
    Ok((train, test))
}

fn array(archive: &mut zip::ZipArchive<File>, name: &str) -> Result<Option<Stored>, String> {
    let entry = match archive.by_name(&format!("{name}.npy")) {
        Ok(entry) => entry,
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        Err(why) => return Err(why.to_string()),
    };
    let mut bytes = Vec::new();
    entry.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|why| why.to_string())?;
    if bytes.len() > MOST_BYTES {
        return Err(format!("holds more than {MOST_BYTES} bytes"));
    }
    parse(&bytes).map(Some)
}

fn parse(bytes: &[u8]) -> Result<Stored, String> {
    let damaged = || "is not an array file (npy)".to_owned();
    let (length, start): (usize, usize) = match bytes {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), 10),
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
            (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12)
        }
        _ => return Err(damaged()),
    };
    let header = bytes.get(start..start.saturating_add(length)).ok_or_else(damaged)?;
    let header = std::str::from_utf8(header).map_err(|_| damaged())?;
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start());
    let element = after("'descr':").and_then(|rest| rest.strip_prefix('\'')?.split_once('\'')).ok_or_else(damaged)?.0;
    if after("'fortran_order':").is_none_or(|rest| !rest.starts_with("False")) {
        return Err("is stored in Fortran order; expected C order".into());
    }
    let shape = after("'shape':").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).ok_or_else(damaged)?.0;
    let shape = shape.split(',').map(str::trim).filter(|length| !length.is_empty());
    let shape: Vec<usize> = shape.map(str::parse).collect::<Result<_, _>>().map_err(|_| damaged())?;
    let values = bytes[start + length..].to_vec();
    Ok(Stored { shape, element: element.to_owned(), values })
}

impl Stored {
    /// Checks that there are as many values of `width` bytes as the shape says.
    fn check(&self, width: usize) -> Result<(), String> {
        let count = self.shape.iter().try_fold(width, |product, &length| product.checked_mul(length));
        match count == Some(self.values.len()) {
            true => Ok(()),
            false => Err(format!("has {} bytes for the shape {:?}", self.values.len(), self.shape)),
        }
    }
}

/// Size `[C,H,W]` and values `[N,C,H,W]`.
fn images(array: &Stored) -> Result<([usize; 3], Vec<u8>), String> {
    if !matches!(array.element.as_str(), "|u1" | "u1") {
        return Err(format!("images have elements of type {}; expected bytes, u1", array.element));
    }
    array.check(1)?;
    match array.shape[..] {
        [_, height, width] => Ok(([1, height, width], array.values.clone())),
        [_, channels @ (1 | 3), height, width] if width != 1 && width != 3 => {
            Ok(([channels, height, width], array.values.clone()))
        }
        [_, height, width, channels @ (1 | 3)] => {
            let mut planar = Vec::with_capacity(array.values.len());
            for image in array.values.chunks_exact((height * width * channels).max(1)) {
                (0..channels).for_each(|c| planar.extend(image.iter().skip(c).step_by(channels)));
            }
            Ok(([channels, height, width], planar))
        }
        _ => Err(format!("images have the shape {:?}; expected [N,H,W], [N,H,W,C] or [N,C,H,W]", array.shape)),
    }
}

fn labels(array: &Stored) -> Result<Vec<u32>, String> {
    let element = array.element.trim_start_matches(['<', '|', '=']);
    let width = match element {
        "u1" | "i1" => 1,
        "u2" | "i2" => 2,
        "u4" | "i4" => 4,
        "u8" | "i8" => 8,
        _ => return Err(format!("labels have elements of type {}; expected little-endian integers", array.element)),
    };
    array.check(width)?;
    let is_vector = array.shape.iter().skip(1).all(|&length| length == 1);
    if !is_vector {
        return Err(format!("labels have the shape {:?}; expected [N]", array.shape));
    }
    let value = |bytes: &[u8]| {
        let value = bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        u16::try_from(value).map(u32::from).map_err(|_| format!("the label {value} is not from 0 to 65535"))
    };
    array.values.chunks_exact(width).map(value).collect()
}
