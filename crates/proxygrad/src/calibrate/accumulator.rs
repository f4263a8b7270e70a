//! Running statistics and top images of a layer's units.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use crate::network::Shape;
use crate::network::calibration::{Calibration, LayerRecord, Statistics, TopImage, UnitRecord};

/// Running statistics (Welford 1962), in f64.
#[derive(Debug, Clone, Copy)]
struct RunningStatistics {
    count: u64,
    min: f32,
    max: f32,
    mean: f64,
    /// Sum of squared deviations from the mean.
    squares: f64,
}

impl RunningStatistics {
    const EMPTY: Self = Self { count: 0, min: f32::INFINITY, max: f32::NEG_INFINITY, mean: 0.0, squares: 0.0 };

    fn add(&mut self, value: f64) {
        self.count += 1;
        (self.min, self.max) = (self.min.min(value as f32), self.max.max(value as f32));
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    /// All zero without values.
    fn statistics(self) -> Statistics {
        match self.count {
            0 => Statistics { min: 0.0, max: 0.0, mean: 0.0, std: 0.0 },
            count => {
                let std = (self.squares / count as f64).sqrt() as f32;
                Statistics { min: self.min, max: self.max, mean: self.mean as f32, std }
            }
        }
    }
}

/// Statistics and top images of a unit.
#[derive(Debug)]
struct UnitAccumulator {
    mean: RunningStatistics,
    center: RunningStatistics,
    max: RunningStatistics,
    /// The top images so far, best first.
    top: Vec<TopImage>,
}

impl UnitAccumulator {
    const EMPTY: Self = Self {
        mean: RunningStatistics::EMPTY,
        center: RunningStatistics::EMPTY,
        max: RunningStatistics::EMPTY,
        top: Vec::new(),
    };

    /// Adds one image; returns the sum of squares of the unit's `map`.
    fn add(&mut self, image: usize, map: &[f32], center: usize, max_top: usize) -> f64 {
        let (mut sum, mut squares) = (0.0, 0.0);
        let mut best = (0, f32::NEG_INFINITY);
        for (index, &value) in map.iter().enumerate() {
            sum += f64::from(value);
            squares += f64::from(value) * f64::from(value);
            if value > best.1 {
                best = (index, value);
            }
        }
        // If a value is not finite, the sum is not finite either.
        if !sum.is_finite() {
            return squares;
        }
        let (position_index, score) = best;
        self.mean.add(sum / map.len() as f64);
        self.center.add(f64::from(map[center]));
        self.max.add(f64::from(score));
        // After equal scores: the earlier image wins.
        let rank = self.top.partition_point(|top| top.score >= score);
        if rank < max_top {
            self.top.insert(rank, TopImage { image, score, position_index });
            self.top.truncate(max_top);
        }
        squares
    }
}

/// Statistics and top images of a layer's units.
#[derive(Debug)]
pub(super) struct LayerAccumulator {
    units: Vec<UnitAccumulator>,
    energy: RunningStatistics,
    /// Number of positions of a channel.
    positions: usize,
    /// Index of the center position.
    center: usize,
    /// Images kept per unit.
    max_top: usize,
}

impl LayerAccumulator {
    pub(super) fn new(shape: &Shape, max_top: usize) -> Self {
        Self {
            units: (0..shape.channels()).map(|_| UnitAccumulator::EMPTY).collect(),
            energy: RunningStatistics::EMPTY,
            positions: shape.iter().skip(1).product(),
            center: shape.feature_map().map_or(0, |[_, height, width]| height / 2 * width + width / 2),
            max_top,
        }
    }

    /// Adds the layer's output `[N,C,H,W]` for the images with index `first`, `first + 1`, …
    pub(super) fn add(&mut self, first: usize, output: &[f32]) {
        let Self { units, energy, positions, center, max_top } = self;
        let (positions, center, max_top) = (*positions, *center, *max_top);
        let values = units.len() * positions;
        for (image, maps) in (first..).zip(output.chunks_exact(values)) {
            let maps = maps.par_chunks_exact(positions);
            let squares: Vec<f64> =
                units.par_iter_mut().zip(maps).map(|(unit, map)| unit.add(image, map, center, max_top)).collect();
            let mean = squares.iter().sum::<f64>() / values as f64;
            if mean.is_finite() {
                energy.add(mean);
            }
        }
    }
}

/// The calibration; of all images, with these `names`, it keeps those among some unit's top images.
pub(super) fn finish(
    digest: String,
    size: [usize; 2],
    names: Vec<String>,
    layers: BTreeMap<String, LayerAccumulator>,
) -> Calibration {
    let used = layers.values().flat_map(|layer| &layer.units).flat_map(|unit| &unit.top).map(|top| top.image);
    let used: BTreeSet<usize> = used.collect();
    let index: BTreeMap<usize, usize> = used.iter().enumerate().map(|(kept, &image)| (image, kept)).collect();
    let unit = |unit: UnitAccumulator| UnitRecord {
        mean: unit.mean.statistics(),
        center: unit.center.statistics(),
        max: unit.max.statistics(),
        top: unit.top.iter().map(|top| TopImage { image: index[&top.image], ..*top }).collect(),
    };
    let record = |run: LayerAccumulator| LayerRecord {
        energy: run.energy.statistics(),
        units: run.units.into_iter().map(unit).collect(),
    };
    Calibration {
        digest,
        size,
        images: names.len(),
        kept: used.iter().map(|&image| names[image].clone()).collect(),
        layers: layers.into_iter().map(|(name, run)| (name, record(run))).collect(),
        folder: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn statistics_are_those_of_their_formulas() {
        let values = [3.0, -1.0, 4.0, 1.5, 1e6];
        let mut running = RunningStatistics::EMPTY;
        values.iter().for_each(|&value| running.add(value));
        let mean = values.iter().sum::<f64>() / 5.0;
        let std = (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / 5.0).sqrt();
        let found = running.statistics();
        assert_eq!((found.min, found.max, found.mean, found.std), (-1.0, 1e6, mean as f32, std as f32));
    }

    #[test]
    fn the_top_images_are_kept_earlier_ones_first() {
        // Two channels of 1x3; the center is the second value.
        let mut run = LayerAccumulator::new(&Shape::from([2, 1, 3]), 2);
        run.add(0, &[0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 5.0, 1.0, 5.0, 0.0, 0.0, 0.0]);
        run.add(2, &[f32::NAN, 9.0, 9.0, 0.0, 0.0, -1.0]);
        run.add(3, &[0.0, 5.0, -2.0, 0.0, 0.0, 3.0]);
        let names = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let all = finish("digest".into(), [4, 4], names, BTreeMap::from([("layer".to_owned(), run)]));
        assert_eq!((all.images, &all.kept[..]), (4, &["a".to_owned(), "b".into(), "d".into()][..]));
        let [one, two] = &all.layers["layer"].units[..] else { panic!("two units") };
        let top = |unit: &UnitRecord| unit.top.iter().map(|t| (t.image, t.score, t.position_index)).collect::<Vec<_>>();
        assert_eq!(top(one), [(1, 5.0, 0), (2, 5.0, 1)]);
        assert_eq!(top(two), [(2, 3.0, 2), (0, 0.0, 0)]);
        assert_eq!((one.mean.max, one.center.max, one.max.min), (11.0 / 3.0, 5.0, 2.0));
        // The image that is not finite for the first unit is counted for the second.
        assert_eq!((two.mean.max, two.mean.min), (1.0, -1.0 / 3.0));
        let energy = all.layers["layer"].energy;
        assert!((energy.max - 51.0 / 6.0).abs() < 1e-6, "{energy:?}");
    }
}
