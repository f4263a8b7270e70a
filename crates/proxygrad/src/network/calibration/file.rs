//! Calibration files: an index in JSON, and the statistics of all layers in one safetensors file.
//!
//! `statistics.safetensors` contains for layer `i` of the index: `i.units` `[K,3,4]` (reductions mean, center, max by
//! minimum, maximum, mean, standard deviation), `i.energy` `[4]`, `i.top.score` `[K,T]` (f32), and `i.top.where`
//! `[K,T,2]` (u32: kept image, position index). If a unit has fewer than `T` images, the rest is [`NO_IMAGE`].

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, WithDType};
use serde::{Deserialize, Serialize};

use super::{Calibration, LayerRecord, Statistics, TopImage, UnitRecord};

/// Why a calibration cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// A file cannot be read or written.
    #[error("{}: {why}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The I/O error.
        #[source]
        why: io::Error,
    },
    /// A file is damaged.
    #[error("{}: {why}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Version of the file format; others are not read.
const VERSION: u32 = 1;
pub(super) const INDEX: &str = "index.json";
const NUMBERS: &str = "statistics.safetensors";
/// Image index for a missing entry.
const NO_IMAGE: u32 = u32::MAX;
/// Number of values in [`Statistics`].
const NUMBERS_OF_STATISTICS: usize = 4;
/// Number of reductions in [`UnitRecord`].
const REDUCTIONS: usize = 3;

#[derive(Serialize, Deserialize)]
struct Index {
    version: u32,
    digest: String,
    size: [usize; 2],
    images: usize,
    kept: Vec<String>,
    layers: Vec<LayerLine>,
}

#[derive(Serialize, Deserialize)]
struct LayerLine {
    name: String,
    units: usize,
}

impl Statistics {
    fn numbers(self) -> [f32; NUMBERS_OF_STATISTICS] {
        [self.min, self.max, self.mean, self.std]
    }

    fn of([min, max, mean, std]: [f32; NUMBERS_OF_STATISTICS]) -> Self {
        Self { min, max, mean, std }
    }
}

pub(super) fn write(calibration: &Calibration, folder: &Path) -> Result<(), CalibrationError> {
    let mut tensors = HashMap::new();
    for (i, record) in calibration.layers.values().enumerate() {
        let numbers = |e: candle_core::Error| damaged(folder.join(NUMBERS), e);
        tensors.extend(tensors_of(i, record).map_err(numbers)?);
    }
    let file = folder.join(NUMBERS);
    candle_core::safetensors::save(&tensors, &file).map_err(|e| damaged(file, e))?;
    let line = |(name, record): (&String, &LayerRecord)| LayerLine { name: name.clone(), units: record.units.len() };
    let index = Index {
        version: VERSION,
        digest: calibration.digest.clone(),
        size: calibration.size,
        images: calibration.images,
        kept: calibration.kept.clone(),
        layers: calibration.layers.iter().map(line).collect(),
    };
    let file = folder.join(INDEX);
    let json = serde_json::to_vec(&index).map_err(|e| damaged(file.clone(), e))?;
    fs::write(&file, json).map_err(|why| CalibrationError::File { file, why })
}

fn tensors_of(i: usize, record: &LayerRecord) -> candle_core::Result<[(String, Tensor); 4]> {
    let count = record.units.len();
    let most = record.units.iter().map(|unit| unit.top.len()).max().unwrap_or(0);
    let units: Vec<f32> =
        record.units.iter().flat_map(|u| [u.mean, u.center, u.max]).flat_map(Statistics::numbers).collect();
    let padded = |unit: &UnitRecord| (0..most).map(|n| unit.top.get(n).copied()).collect::<Vec<_>>();
    let top: Vec<Option<TopImage>> = record.units.iter().flat_map(padded).collect();
    let scores: Vec<f32> = top.iter().map(|top| top.map_or(0.0, |top| top.score)).collect();
    let places: Vec<u32> = top
        .iter()
        .flat_map(|top| top.map_or([NO_IMAGE, 0], |top| [top.image as u32, top.position_index as u32]))
        .collect();
    Ok([
        (key(i, "units"), Tensor::from_vec(units, (count, REDUCTIONS, NUMBERS_OF_STATISTICS), &Device::Cpu)?),
        (key(i, "energy"), Tensor::new(&record.energy.numbers(), &Device::Cpu)?),
        (key(i, "top.score"), Tensor::from_vec(scores, (count, most), &Device::Cpu)?),
        (key(i, "top.where"), Tensor::from_vec(places, (count, most, 2), &Device::Cpu)?),
    ])
}

fn key(layer: usize, what: &str) -> String {
    format!("{layer}.{what}")
}

pub(super) fn read(folder: &Path) -> Result<Calibration, CalibrationError> {
    let bytes = |name: &str| {
        let file = folder.join(name);
        fs::read(&file).map_err(|why| CalibrationError::File { file, why })
    };
    let index = folder.join(INDEX);
    let Index { version, digest, size, images, kept, layers } =
        serde_json::from_slice(&bytes(INDEX)?).map_err(|e| damaged(index.clone(), e))?;
    if version != VERSION {
        return Err(damaged(index, format!("has version {version}; expected version {VERSION}")));
    }
    let numbers = |why: String| damaged(folder.join(NUMBERS), why);
    let mut tensors =
        candle_core::safetensors::load_buffer(&bytes(NUMBERS)?, &Device::Cpu).map_err(|e| numbers(e.to_string()))?;
    let mut records = BTreeMap::new();
    for (i, LayerLine { name, units }) in layers.into_iter().enumerate() {
        let record = record_of(i, units, kept.len(), &mut tensors).map_err(|why| numbers(format!("{name}: {why}")))?;
        records.insert(name, record);
    }
    Ok(Calibration { digest, size, images, kept, layers: records, folder: Some(folder.to_owned()) })
}

fn record_of(
    i: usize,
    units: usize,
    kept: usize,
    tensors: &mut HashMap<String, Tensor>,
) -> Result<LayerRecord, String> {
    let statistics: Vec<f32> = values(i, "units", tensors)?;
    let energy: Vec<f32> = values(i, "energy", tensors)?;
    let scores: Vec<f32> = values(i, "top.score", tensors)?;
    let places: Vec<u32> = values(i, "top.where", tensors)?;
    let most = scores.len().checked_div(units).unwrap_or(0);
    let fit = statistics.len() == units * REDUCTIONS * NUMBERS_OF_STATISTICS
        && scores.len() == units * most
        && places.len() == 2 * scores.len();
    let energy = <[f32; NUMBERS_OF_STATISTICS]>::try_from(energy).ok().filter(|_| fit && units > 0);
    let energy = energy.map(Statistics::of).ok_or("has the wrong number of values")?;
    let (statistics, _) = statistics.as_chunks::<NUMBERS_OF_STATISTICS>();
    let (statistics, _) = statistics.as_chunks::<REDUCTIONS>();
    let (places, _) = places.as_chunks::<2>();
    let unit = |(u, &reductions): (usize, &[[f32; NUMBERS_OF_STATISTICS]; REDUCTIONS])| {
        let [mean, center, max] = reductions.map(Statistics::of);
        let there = u * most..(u + 1) * most;
        let entries = scores[there.clone()].iter().zip(&places[there]);
        let top = entries.filter(|(_, [image, _])| *image != NO_IMAGE).map(|(&score, &[image, index])| TopImage {
            image: image as usize,
            score,
            position_index: index as usize,
        });
        UnitRecord { mean, center, max, top: top.collect() }
    };
    let units: Vec<UnitRecord> = statistics.iter().enumerate().map(unit).collect();
    if units.iter().flat_map(|unit| &unit.top).any(|top| top.image >= kept) {
        return Err(format!("refers to an image beyond the {kept} kept ones"));
    }
    Ok(LayerRecord { units, energy })
}

fn values<T: WithDType>(i: usize, what: &str, tensors: &mut HashMap<String, Tensor>) -> Result<Vec<T>, String> {
    let tensor = tensors.remove(&key(i, what)).ok_or_else(|| format!("{what} is missing"))?;
    tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).map_err(|e| format!("{what}: {e}"))
}

fn damaged(file: PathBuf, why: impl ToString) -> CalibrationError {
    CalibrationError::Damaged { file, why: why.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn some() -> Calibration {
        let at = |x: f32| Statistics { min: -x, max: x, mean: x / 2.0, std: x / 3.0 };
        let unit = |x: f32, top: usize| UnitRecord {
            mean: at(x),
            center: at(x + 1.0),
            max: at(x + 2.0),
            top: (0..top).map(|n| TopImage { image: n % 2, score: x - n as f32, position_index: n * 7 }).collect(),
        };
        let layer = |x: f32| LayerRecord { units: vec![unit(x, 3), unit(x * 2.0, 1), unit(9.0, 0)], energy: at(x) };
        Calibration {
            digest: "ab".repeat(32),
            size: [28, 30],
            images: 5,
            kept: vec!["a/b.png".into(), "c.jpeg".into()],
            layers: [("layer1/Relu_1", 1.5), ("logits", 2.5)].map(|(name, x)| (name.to_owned(), layer(x))).into(),
            folder: None,
        }
    }

    #[test]
    fn a_calibration_survives_its_files() {
        let folder = tempfile::tempdir().unwrap();
        some().write(folder.path()).unwrap();
        let read = Calibration { folder: Some(folder.path().to_owned()), ..some() };
        assert_eq!(Calibration::read(folder.path()).unwrap(), read);
    }

    #[test]
    fn damaged_files_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = || Calibration::read(folder.path()).unwrap_err().to_string();
        assert!(refusal().contains(INDEX));
        some().write(folder.path()).unwrap();
        let index = fs::read_to_string(folder.path().join(INDEX)).unwrap();
        for (from, to, why) in [
            ("\"version\":1", "\"version\":2", "version 2"),
            ("\"units\":3", "\"units\":4", "wrong number"),
            ("\"a/b.png\",", "", "beyond the 1"),
            ("{", "", INDEX),
        ] {
            fs::write(folder.path().join(INDEX), index.replacen(from, to, 1)).unwrap();
            assert!(refusal().contains(why), "{}", refusal());
        }
        fs::write(folder.path().join(INDEX), index).unwrap();
        fs::write(folder.path().join(NUMBERS), b"no tensors").unwrap();
        assert!(refusal().contains(NUMBERS));
    }
}
