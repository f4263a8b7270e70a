//! Folders of images with one subfolder per class.

use std::path::{Path, PathBuf};

use image::DynamicImage;
use image::imageops::FilterType;

use super::{DataError, DataOptions, Dataset};
use crate::image_file::{ImageHeader, Transparency};

/// Names of folders with test images.
const TEST: [&str; 4] = ["test", "val", "valid", "validation"];

pub(super) fn read(folder: &Path, options: &DataOptions) -> Result<(Dataset, Option<Dataset>), DataError> {
    let train = folder.join("train");
    if !train.is_dir() {
        let classes = class_names(folder)?;
        return Ok((part(folder, &classes, options, None)?, None));
    }
    let classes = class_names(&train)?;
    let test = TEST.iter().map(|name| folder.join(name)).find(|test| test.is_dir());
    let train = part(&train, &classes, options, None)?;
    let size = Some([train.size[1], train.size[2]]);
    let test = test.map(|test| {
        let others = class_names(&test)?;
        match others.iter().find(|name| !classes.contains(name)) {
            Some(name) => Err(DataError::new(test.join(name), "the training images have no such class")),
            None => part(&test, &classes, options, size),
        }
    });
    Ok((train, test.transpose()?))
}

/// Entries of a folder in alphabetical order, without hidden ones.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let wrong = |why: std::io::Error| DataError::new(folder, why.to_string());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn class_names(folder: &Path) -> Result<Vec<String>, DataError> {
    let folders = entries(folder)?.into_iter().filter(|path| path.is_dir());
    let names: Vec<String> =
        folders.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    match names.len() {
        0 | 1 => {
            let why = "no dataset was recognized here; expected one subfolder of images for each of at least two \
                       classes, or the files of MNIST or CIFAR";
            Err(DataError::new(folder, why))
        }
        _ => Ok(names),
    }
}

/// All images below the folders of the classes. `size` is that of another part, which images must have without
/// [`DataOptions::size`].
fn part(
    folder: &Path,
    classes: &[String],
    options: &DataOptions,
    size: Option<[usize; 2]>,
) -> Result<Dataset, DataError> {
    let channels = if options.grey { 1 } else { 3 };
    let (mut size, mut images, mut labels) = (options.size.or(size), Vec::new(), Vec::new());
    for (label, class) in classes.iter().enumerate() {
        for path in image_files(&folder.join(class))? {
            let image = decode(&path)?;
            let image = match options.size {
                Some([height, width]) => image.resize_to_fill(width as u32, height as u32, FilterType::Triangle),
                None => image,
            };
            let found = [image.height() as usize, image.width() as usize];
            let expected = *size.get_or_insert(found);
            if found != expected {
                let [[height, width], [rows, columns]] = [found, expected];
                let why = format!(
                    "the image is {width}x{height}, others are {columns}x{rows}; set a size that all are scaled to"
                );
                return Err(DataError::new(path, why));
            }
            let pixels = if options.grey { image.to_luma8().into_raw() } else { image.to_rgb8().into_raw() };
            (0..channels).for_each(|c| images.extend(pixels.iter().skip(c).step_by(channels)));
            labels.push(label as u32);
            if images.len() > options.most_bytes {
                let why = format!("the images need more than {} bytes", options.most_bytes);
                return Err(DataError::new(folder, why));
            }
        }
    }
    let [height, width] = size.unwrap_or_default();
    Dataset::new([channels, height, width], images, labels, classes.to_vec())
        .map_err(|error| DataError::new(folder, error.why))
}

/// PNG and JPEG files of a folder and its subfolders.
fn image_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for path in entries(folder)? {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        if path.is_dir() {
            files.extend(image_files(&path)?);
        } else if matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg")) {
            files.push(path);
        }
    }
    Ok(files)
}

fn decode(path: &Path) -> Result<DynamicImage, DataError> {
    let wrong = |why: String| DataError::new(path, why);
    let bytes = std::fs::read(path).map_err(|why| wrong(why.to_string()))?;
    let decoded = ImageHeader::read(&bytes).and_then(|header| header.decode(&bytes, Transparency::White));
    decoded.map_err(|invalid| wrong(format!("expected {}, found {}", invalid.expected, invalid.value)))
}
