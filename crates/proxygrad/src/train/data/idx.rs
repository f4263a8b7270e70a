//! IDX files, the format of MNIST: a big-endian header (two zeros, the element type 8 for bytes, the number of axes, and
//! their lengths), then the values.

use std::path::{Path, PathBuf};

use super::{DataError, Dataset, numbered, read_file};

/// Class names of Fashion-MNIST, whose labels are numbers.
const FASHION: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// The file with this name in a folder, plain or compressed.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    // Some archives use a dot instead of the last hyphen but one.
    let names = [name.to_owned(), name.replace("-idx", ".idx")];
    let candidates = names.iter().flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))]);
    candidates.into_iter().find(|path| path.is_file())
}

pub(super) fn is_here(folder: &Path) -> bool {
    find(folder, "train-images-idx3-ubyte").is_some()
}

pub(super) fn read(folder: &Path) -> Result<(Dataset, Option<Dataset>), DataError> {
    let is_fashion = folder.to_string_lossy().to_lowercase().contains("fashion");
    let train = part(folder, "train", is_fashion)?;
    let test = find(folder, "t10k-images-idx3-ubyte").map(|_| part(folder, "t10k", is_fashion)).transpose()?;
    Ok((train, test))
}

fn part(folder: &Path, name: &str, is_fashion: bool) -> Result<Dataset, DataError> {
    let path = |file: &str| {
        let missing = || DataError::new(folder.join(file), "the file is missing");
        find(folder, file).ok_or_else(missing)
    };
    let image_path = path(&format!("{name}-images-idx3-ubyte"))?;
    let label_path = path(&format!("{name}-labels-idx1-ubyte"))?;
    let (image_file, label_file) = (read_file(&image_path)?, read_file(&label_path)?);
    let ([count, height, width], images) = parse::<3>(&image_file).map_err(|why| DataError::new(&image_path, why))?;
    let ([labels], values) = parse::<1>(&label_file).map_err(|why| DataError::new(&label_path, why))?;
    if labels != count {
        return Err(DataError::new(label_path, format!("has {labels} labels for {count} images")));
    }
    let largest = values.iter().copied().max().unwrap_or(0);
    let classes = match is_fashion && largest < 10 {
        true => FASHION.map(String::from).to_vec(),
        // A part that lacks the last classes does not have fewer: digits and letters have at least ten.
        false => numbered((usize::from(largest) + 1).max(10)),
    };
    let labels = values.iter().map(|&label| u32::from(label)).collect();
    Dataset::new([1, height, width], images.to_vec(), labels, classes)
        .map_err(|error| DataError::new(image_path, error.why))
}

/// Lengths of the axes, and the values.
fn parse<const AXES: usize>(file: &[u8]) -> Result<([usize; AXES], &[u8]), String> {
    let header = 4 + 4 * AXES;
    match file {
        [0, 0, 8, axes, ..] if usize::from(*axes) == AXES && file.len() >= header => {}
        [0, 0, 8, axes, ..] => return Err(format!("has {axes} axes; expected {AXES}")),
        [0, 0, kind, ..] => return Err(format!("has elements of type {kind}; expected 8, bytes")),
        _ => return Err("is not an IDX file: it does not begin with two zero bytes".into()),
    }
    let length = |axis: usize| {
        let at = 4 + 4 * axis;
        let bytes = [file[at], file[at + 1], file[at + 2], file[at + 3]];
        u32::from_be_bytes(bytes) as usize
    };
    let lengths: [usize; AXES] = std::array::from_fn(length);
    let expected = lengths.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
    let values = &file[header..];
    if expected != Some(values.len()) {
        return Err(format!("has {} bytes of values; its header {lengths:?} describes another number", values.len()));
    }
    Ok((lengths, values))
}
