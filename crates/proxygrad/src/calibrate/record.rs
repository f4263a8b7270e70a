//! What is remembered of a layer while images pass.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use crate::network::Shape;
use crate::network::calibration::{Calibration, Exciting, LayerRecord, Statistics, UnitRecord};

/// Running statistics (Welford 1962), in f64.
#[derive(Debug, Clone, Copy)]
struct Running {
    count: u64,
    min: f32,
    max: f32,
    mean: f64,
    /// Sum of squared distances from the mean.
    spread: f64,
}

impl Running {
    const NONE: Self = Self { count: 0, min: f32::INFINITY, max: f32::NEG_INFINITY, mean: 0.0, spread: 0.0 };

    fn add(&mut self, value: f64) {
        self.count += 1;
        (self.min, self.max) = (self.min.min(value as f32), self.max.max(value as f32));
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.spread += before * (value - self.mean);
    }

    /// All zero when there was no value.
    fn statistics(self) -> Statistics {
        match self.count {
            0 => Statistics { min: 0.0, max: 0.0, mean: 0.0, std: 0.0 },
            count => {
                let std = (self.spread / count as f64).sqrt() as f32;
                Statistics { min: self.min, max: self.max, mean: self.mean as f32, std }
            }
        }
    }
}

/// What is remembered of a unit.
#[derive(Debug)]
struct UnitRun {
    mean: Running,
    center: Running,
    max: Running,
    /// The best images so far, the best first.
    top: Vec<Exciting>,
}

impl UnitRun {
    const NONE: Self = Self { mean: Running::NONE, center: Running::NONE, max: Running::NONE, top: Vec::new() };

    /// Takes note of one image; gives the sum of the squares of the unit's `map`.
    fn show(&mut self, image: usize, map: &[f32], center: usize, most: usize) -> f64 {
        let (mut sum, mut squares) = (0.0, 0.0);
        let mut best = (0, f32::NEG_INFINITY);
        for (place, &value) in map.iter().enumerate() {
            sum += f64::from(value);
            squares += f64::from(value) * f64::from(value);
            if value > best.1 {
                best = (place, value);
            }
        }
        // One value that is not finite makes a sum that is not.
        if !sum.is_finite() {
            return squares;
        }
        let (place, score) = best;
        self.mean.add(sum / map.len() as f64);
        self.center.add(f64::from(map[center]));
        self.max.add(f64::from(score));
        // Behind its equals: the first image counts.
        let rank = self.top.partition_point(|top| top.score >= score);
        if rank < most {
            self.top.insert(rank, Exciting { image, score, place });
            self.top.truncate(most);
        }
        squares
    }
}

/// What is remembered of a layer.
#[derive(Debug)]
pub(super) struct LayerRun {
    units: Vec<UnitRun>,
    energy: Running,
    /// Positions of a channel.
    positions: usize,
    /// The one that `center` reads.
    center: usize,
    /// Images kept for each unit.
    most: usize,
}

impl LayerRun {
    pub(super) fn new(shape: &Shape, most: usize) -> Self {
        Self {
            units: (0..shape.channels()).map(|_| UnitRun::NONE).collect(),
            energy: Running::NONE,
            positions: shape.iter().skip(1).product(),
            center: shape.feature_map().map_or(0, |[_, height, width]| height / 2 * width + width / 2),
            most,
        }
    }

    /// Takes note of the layer's output `[N,C,H,W]` for images of the indices `first`, `first + 1`, …
    pub(super) fn show(&mut self, first: usize, output: &[f32]) {
        let Self { units, energy, positions, center, most } = self;
        let (positions, center, most) = (*positions, *center, *most);
        let values = units.len() * positions;
        for (image, maps) in (first..).zip(output.chunks_exact(values)) {
            let maps = maps.par_chunks_exact(positions);
            let squares: Vec<f64> =
                units.par_iter_mut().zip(maps).map(|(unit, map)| unit.show(image, map, center, most)).collect();
            let mean = squares.iter().sum::<f64>() / values as f64;
            if mean.is_finite() {
                energy.add(mean);
            }
        }
    }
}

/// The calibration: of all images, whose `names` are given, only those that some unit needs are kept.
pub(super) fn finish(
    digest: String,
    size: [usize; 2],
    names: Vec<String>,
    layers: BTreeMap<String, LayerRun>,
) -> Calibration {
    let used = layers.values().flat_map(|layer| &layer.units).flat_map(|unit| &unit.top).map(|top| top.image);
    let used: BTreeSet<usize> = used.collect();
    let index: BTreeMap<usize, usize> = used.iter().enumerate().map(|(kept, &image)| (image, kept)).collect();
    let unit = |unit: UnitRun| UnitRecord {
        mean: unit.mean.statistics(),
        center: unit.center.statistics(),
        max: unit.max.statistics(),
        top: unit.top.iter().map(|top| Exciting { image: index[&top.image], ..*top }).collect(),
    };
    let record = |run: LayerRun| LayerRecord {
        energy: run.energy.statistics(),
        units: run.units.into_iter().map(unit).collect(),
    };
    Calibration {
        digest,
        size,
        images: names.len(),
        kept: used.iter().map(|&image| names[image].clone()).collect(),
        layers: layers.into_iter().map(|(name, run)| (name, record(run))).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn statistics_are_those_of_their_formulas() {
        let values = [3.0, -1.0, 4.0, 1.5, 1e6];
        let mut running = Running::NONE;
        values.iter().for_each(|&value| running.add(value));
        let mean = values.iter().sum::<f64>() / 5.0;
        let std = (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / 5.0).sqrt();
        let found = running.statistics();
        assert_eq!((found.min, found.max, found.mean, found.std), (-1.0, 1e6, mean as f32, std as f32));
    }

    #[test]
    fn the_best_images_are_kept_the_first_of_equals_first() {
        // Two channels of 1x3; the center is the second value.
        let mut run = LayerRun::new(&Shape::from([2, 1, 3]), 2);
        run.show(0, &[0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 5.0, 1.0, 5.0, 0.0, 0.0, 0.0]);
        run.show(2, &[f32::NAN, 9.0, 9.0, 0.0, 0.0, -1.0]);
        run.show(3, &[0.0, 5.0, -2.0, 0.0, 0.0, 3.0]);
        let names = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let all = finish("digest".into(), [4, 4], names, BTreeMap::from([("layer".to_owned(), run)]));
        assert_eq!((all.images, &all.kept[..]), (4, &["a".to_owned(), "b".into(), "d".into()][..]));
        let [one, two] = &all.layers["layer"].units[..] else { panic!("two units") };
        let top = |unit: &UnitRecord| unit.top.iter().map(|t| (t.image, t.score, t.place)).collect::<Vec<_>>();
        assert_eq!(top(one), [(1, 5.0, 0), (2, 5.0, 1)]);
        assert_eq!(top(two), [(2, 3.0, 2), (0, 0.0, 0)]);
        assert_eq!((one.mean.max, one.center.max, one.max.min), (11.0 / 3.0, 5.0, 2.0));
        // The image that gives the first unit no number counts for the second.
        assert_eq!((two.mean.max, two.mean.min), (1.0, -1.0 / 3.0));
        let energy = all.layers["layer"].energy;
        assert!((energy.max - 51.0 / 6.0).abs() < 1e-6, "{energy:?}");
    }
}
