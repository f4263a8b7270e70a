//! Datasets: labelled 8-bit images, and their readers.
//!
//! | source | recognized by |
//! |---|---|
//! | IDX (MNIST, Fashion-MNIST), plain or gzip | `train-images-idx3-ubyte` and its siblings in the folder |
//! | CIFAR-10 and CIFAR-100, binary version | `data_batch_1.bin` or `train.bin` in the folder |
//! | numpy archive | a file `.npz` with `x_train`, `y_train`, `x_test`, `y_test` |
//! | images | one subfolder per class, or such folders in `train` and `test` (or `val`) |

mod cifar;
mod folder;
mod idx;
mod npz;
mod root;

use std::path::{Path, PathBuf};

pub use root::DatasetRoot;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Largest number of values of a dataset: 8 GB.
const MOST_BYTES: usize = 8 << 30;

/// Random stream of [`Dataset::sample`].
const SAMPLE_STREAM: u64 = 1 << 40;

/// Labelled images of one size.
#[derive(Clone, PartialEq, Eq)]
pub struct Dataset {
    size: [usize; 3],
    images: Vec<u8>,
    labels: Vec<u32>,
    classes: Vec<String>,
}

/// A training part and a test part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splits {
    /// What the weights are trained on.
    pub train: Dataset,
    /// What accuracies are measured on.
    pub test: Dataset,
}

impl Splits {
    /// SHA-256 of the images, labels and names of classes, in hexadecimal digits.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.train, &self.test] {
            hash.update(format!("{:?} {} {:?}", part.size(), part.len(), part.classes()));
            (0..part.len()).for_each(|index| {
                hash.update(part.label(index).to_le_bytes());
                hash.update(part.image(index));
            });
        }
        hex::encode(hash.finalize())
    }
}

/// Data that cannot be used. Names the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct DataError {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong, and what would be right.
    pub why: String,
}

impl DataError {
    pub(super) fn new(path: impl Into<PathBuf>, why: impl Into<String>) -> Self {
        Self { path: path.into(), why: why.into() }
    }
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dataset({} images of {:?}, classes {:?})", self.len(), self.size, self.classes)
    }
}

impl Dataset {
    /// `images` `[N,C,H,W]` of `size` `[C,H,W]` with 1 or 3 channels, and a label, an index into `classes`, for each.
    ///
    /// # Errors
    /// When these do not fit each other.
    pub fn new(size: [usize; 3], images: Vec<u8>, labels: Vec<u32>, classes: Vec<String>) -> Result<Self, DataError> {
        let wrong = |why: String| DataError::new("", why);
        let image = size.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
        if !matches!(size[0], 1 | 3) || image.is_none_or(|values| values == 0) {
            return Err(wrong(format!(
                "images of [C,H,W] = {size:?}; expected 1 or 3 channels and at least one pixel"
            )));
        }
        if image.and_then(|values| values.checked_mul(labels.len())) != Some(images.len()) {
            return Err(wrong(format!("{} values do not fit {} images of {size:?}", images.len(), labels.len())));
        }
        if labels.is_empty() {
            return Err(wrong("there are no images".into()));
        }
        if let Some((index, label)) = labels.iter().enumerate().find(|(_, label)| **label as usize >= classes.len()) {
            let most = classes.len().saturating_sub(1);
            return Err(wrong(format!("image {index} has the label {label}; expected a label from 0 to {most}")));
        }
        Ok(Self { size, images, labels, classes })
    }

    /// `[C,H,W]` of every image.
    pub fn size(&self) -> [usize; 3] {
        self.size
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Index of the class of an image.
    pub fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    /// Values of an image, row-major `[C,H,W]`.
    pub fn image(&self, index: usize) -> &[u8] {
        let length: usize = self.size.iter().product();
        &self.images[index * length..(index + 1) * length]
    }

    /// Mean and standard deviation of each channel over all pixels, with white as 1. A channel that is the same
    /// everywhere has the deviation 1.
    pub fn statistics(&self) -> (Vec<f32>, Vec<f32>) {
        let [channels, height, width] = self.size;
        let mut sums = vec![[0u64; 2]; channels];
        for (plane, values) in self.images.chunks_exact(height * width).enumerate() {
            let [sum, squares] = &mut sums[plane % channels];
            for &value in values {
                *sum += u64::from(value);
                *squares += u64::from(value).pow(2);
            }
        }
        let count = (self.len() * height * width) as f64;
        let of = |[sum, squares]: [u64; 2]| {
            let mean = sum as f64 / count / 255.0;
            let deviation = (squares as f64 / count / 255f64.powi(2) - mean * mean).max(0.0).sqrt();
            (mean as f32, if deviation > 0.0 { deviation as f32 } else { 1.0 })
        };
        sums.into_iter().map(of).unzip()
    }

    /// This number of images, at most all, drawn with a seed.
    pub fn sample(&self, count: usize, seed: u64) -> Self {
        let order = shuffled(self.len(), seed, SAMPLE_STREAM);
        self.select(&order[..count.min(order.len())])
    }

    /// The images with these indices.
    pub(super) fn select(&self, indices: &[usize]) -> Self {
        Self {
            size: self.size,
            images: indices.iter().flat_map(|&index| self.image(index)).copied().collect(),
            labels: indices.iter().map(|&index| self.labels[index]).collect(),
            classes: self.classes.clone(),
        }
    }

    /// Checks that every class has an image.
    fn check_classes(&self, path: &Path) -> Result<(), DataError> {
        let missing = (0..self.classes.len()).find(|&class| !self.labels.contains(&(class as u32)));
        match missing {
            Some(class) => Err(DataError::new(path, format!("the class {} has no images", self.classes[class]))),
            None => Ok(()),
        }
    }
}

/// Indices `0..count` in random order.
pub(super) fn shuffled(count: usize, seed: u64, stream: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, rng.random_range(0..=last));
    }
    order
}

/// How data is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataOptions {
    /// Height and width of the images of a folder; others are scaled and cropped to it. Default: all images must have
    /// the size of the first.
    pub size: Option<[usize; 2]>,
    /// Whether the images of a folder are read as grey.
    pub grey: bool,
    /// Share of the training images that becomes the test part, where the data has none.
    pub test_share: f64,
    /// Seed of that split.
    pub seed: u64,
    /// Limit of the values of all images together, in bytes.
    #[serde(skip, default = "most_bytes")]
    pub most_bytes: usize,
}

fn most_bytes() -> usize {
    MOST_BYTES
}

impl Default for DataOptions {
    fn default() -> Self {
        Self { size: None, grey: false, test_share: 0.1, seed: 0, most_bytes: MOST_BYTES }
    }
}

/// Reads a dataset; the format is recognized as in the table above.
///
/// # Errors
/// When a file is missing, damaged, or does not fit the others.
pub fn load(path: &Path, options: &DataOptions) -> Result<Splits, DataError> {
    let (train, test) = if path.is_file() {
        if path.extension().is_none_or(|extension| extension != "npz") {
            return Err(DataError::new(path, "expected a folder or a file .npz"));
        }
        npz::read(path)?
    } else if !path.is_dir() {
        return Err(DataError::new(path, "no such file or folder"));
    } else if idx::is_here(path) {
        idx::read(path)?
    } else if cifar::is_here(path) {
        cifar::read(path)?
    } else {
        folder::read(path, options)?
    };
    let bytes = train.images.len() + test.as_ref().map_or(0, |test| test.images.len());
    if bytes > options.most_bytes {
        let most = options.most_bytes;
        return Err(DataError::new(path, format!("the images need {bytes} bytes; at most {most} are allowed")));
    }
    train.check_classes(path)?;
    let test = match test {
        Some(test) => test,
        None => return split(train, path, options),
    };
    if test.size != train.size {
        let why = format!("test images are {:?}, training images {:?}", test.size, train.size);
        return Err(DataError::new(path, why));
    }
    Ok(Splits { train, test })
}

/// Splits off a test part, with the same share of every class.
fn split(all: Dataset, path: &Path, options: &DataOptions) -> Result<Splits, DataError> {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for class in 0..all.classes.len() {
        let of_class: Vec<usize> = (0..all.len()).filter(|&index| all.labels[index] as usize == class).collect();
        let order = shuffled(of_class.len(), options.seed, class as u64);
        let count = (of_class.len() as f64 * options.test_share).round() as usize;
        if count == of_class.len() || of_class.len() < 2 {
            let why = format!("the class {} has {} images, too few to split", all.classes[class], of_class.len());
            return Err(DataError::new(path, why));
        }
        for (position, &index) in order.iter().enumerate() {
            let part = if position < count.max(1) { &mut test } else { &mut train };
            part.push(of_class[index]);
        }
    }
    train.sort_unstable();
    test.sort_unstable();
    Ok(Splits { train: all.select(&train), test: all.select(&test) })
}

/// Reads a file, decompressed if it is gzip.
fn read_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let bytes = std::fs::read(path).map_err(|why| DataError::new(path, why.to_string()))?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut content = Vec::new();
    let mut decoder = std::io::Read::take(flate2::read::GzDecoder::new(&bytes[..]), MOST_BYTES as u64 + 1);
    std::io::Read::read_to_end(&mut decoder, &mut content)
        .map_err(|why| DataError::new(path, format!("damaged gzip file: {why}")))?;
    if content.len() > MOST_BYTES {
        return Err(DataError::new(path, format!("holds more than {MOST_BYTES} bytes")));
    }
    Ok(content)
}

/// `0`, `1`, ...
fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|class| class.to_string()).collect()
}
