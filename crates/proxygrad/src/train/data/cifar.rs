//! The binary version of CIFAR-10 and CIFAR-100 (Krizhevsky, <https://www.cs.toronto.edu/~kriz/cifar.html>): records of
//! one label byte (CIFAR-100: a coarse and a fine one) and 3072 bytes, the 32x32 pixels of red, green and blue.

use std::path::{Path, PathBuf};

use super::{DataError, Dataset, numbered, read_file};

/// Bytes of an image.
const IMAGE: usize = 3 * 32 * 32;

pub(super) fn is_here(folder: &Path) -> bool {
    folder.join("data_batch_1.bin").is_file() || folder.join("train.bin").is_file()
}

pub(super) fn read(folder: &Path) -> Result<(Dataset, Option<Dataset>), DataError> {
    let is_ten = folder.join("data_batch_1.bin").is_file();
    let (train, test, names, classes) = if is_ten {
        let batches = (1..=5).map(|batch| folder.join(format!("data_batch_{batch}.bin"))).collect();
        (batches, folder.join("test_batch.bin"), "batches.meta.txt", 10)
    } else {
        (vec![folder.join("train.bin")], folder.join("test.bin"), "fine_label_names.txt", 100)
    };
    let classes = class_names(&folder.join(names), classes);
    let label_bytes = if is_ten { 1 } else { 2 };
    let test = test.is_file().then(|| part(&[test], label_bytes, &classes)).transpose()?;
    Ok((part(&train, label_bytes, &classes)?, test))
}

fn part(files: &[PathBuf], label_bytes: usize, classes: &[String]) -> Result<Dataset, DataError> {
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for path in files {
        let file = read_file(path)?;
        let record = label_bytes + IMAGE;
        if file.is_empty() || !file.len().is_multiple_of(record) {
            let why = format!("has {} bytes, which are not a number of records of {record} bytes", file.len());
            return Err(DataError::new(path, why));
        }
        for (index, record) in file.chunks_exact(record).enumerate() {
            let label = record[label_bytes - 1];
            if usize::from(label) >= classes.len() {
                let why = format!("record {index} has the label {label}; expected at most {}", classes.len() - 1);
                return Err(DataError::new(path, why));
            }
            labels.push(u32::from(label));
            images.extend_from_slice(&record[label_bytes..]);
        }
    }
    let first = files.first().cloned().unwrap_or_default();
    Dataset::new([3, 32, 32], images, labels, classes.to_vec()).map_err(|error| DataError::new(first, error.why))
}

/// One name per line, if the file has them all; otherwise numbers.
fn class_names(path: &Path, count: usize) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    if names.len() == count { names } else { numbered(count) }
}
