//! Values of objectives on the outputs of layers, and their gradients there.
//!
//! The units of all searches of a batch are grouped by layer and kind, and every group is computed as one chain of tensor
//! operations on the device of the outputs: nothing is read back. Gradients that do not depend on the outputs, those of
//! linear units, are made once.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};

use super::objective::Objective;
use crate::network::{Reduction, Selection};

/// One term of an objective, aimed at one of a plan's targets.
#[derive(Debug, Clone)]
struct Aim {
    /// Position of the layer among the plan's targets.
    target: usize,
    selection: Selection,
    weight: f32,
}

/// An objective, aimed at the targets of a plan.
#[derive(Debug, Clone)]
pub(super) struct Aims(Vec<Aim>);

impl Aims {
    /// `target_of` gives a layer's position among the targets.
    pub(super) fn new(objective: &Objective, target_of: impl Fn(&str) -> Option<usize>) -> Self {
        let aim = |term: &super::Term| {
            let selection = term.unit.selection.clone();
            Some(Aim { target: target_of(&term.unit.layer)?, selection, weight: term.weight })
        };
        Self(objective.terms.iter().filter_map(aim).collect())
    }
}

/// The objectives of a batch at work on the outputs of a plan's targets, each `[N,C,H,W]` or `[N,K]`.
#[derive(Debug)]
pub(super) struct Scoring {
    images: usize,
    groups: Vec<Group>,
    /// The part of every target's seed that is always the same.
    fixed: Vec<Tensor>,
}

/// Scores of a batch and their gradients.
pub(super) struct Scored {
    /// `[N]`, f32.
    pub(super) scores: Tensor,
    /// One per target, shaped as its output.
    pub(super) seeds: Vec<Tensor>,
}

impl Scoring {
    /// The objectives of a batch, one per image, on targets with these shapes.
    pub(super) fn new(objectives: &[&Aims], shapes: &[&[usize]], device: &Device, dtype: DType) -> Result<Self> {
        let images = objectives.len();
        // Sorted, so that the terms of an objective are added in the same order whatever its neighbours are.
        let mut members: BTreeMap<Kind, Vec<(usize, &Aim)>> = BTreeMap::new();
        for (image, Aims(aims)) in objectives.iter().enumerate() {
            for aim in aims {
                members.entry(Kind::of(aim, shapes[aim.target])).or_default().push((image, aim));
            }
        }
        let groups =
            members.iter().map(|(kind, members)| Group::new(*kind, members, shapes[kind.target], device, dtype));
        let groups = groups.collect::<Result<Vec<_>>>()?;
        let zeros = shapes.iter().map(|shape| Tensor::zeros([&[images], *shape].concat(), dtype, device));
        let mut fixed = zeros.collect::<Result<Vec<_>>>()?;
        for group in &groups {
            if let Some(slopes) = group.fixed_slopes()? {
                let seed = &mut fixed[group.kind.target];
                *seed = group.add_seed(seed, &slopes)?;
            }
        }
        Ok(Self { images, groups, fixed })
    }

    /// The values alone: `[N]`, f32.
    pub(super) fn scores(&self, outputs: &[Tensor]) -> Result<Tensor> {
        let maps = |group: &Group| group.read(&outputs[group.kind.target]);
        self.sum(self.groups.iter().map(|group| maps(group).map(|reading| (group, reading.values))))
    }

    /// The values and their gradients.
    pub(super) fn scores_and_seeds(&self, outputs: &[Tensor]) -> Result<Scored> {
        let mut seeds = self.fixed.clone();
        let mut values = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let reading = group.read(&outputs[group.kind.target])?;
            if let Some(slopes) = group.slopes(&reading)? {
                let seed = &mut seeds[group.kind.target];
                *seed = group.add_seed(seed, &slopes)?;
            }
            values.push(Ok((group, reading.values)));
        }
        Ok(Scored { scores: self.sum(values)?, seeds })
    }

    fn sum<'a>(&self, values: impl IntoIterator<Item = Result<(&'a Group, Tensor)>>) -> Result<Tensor> {
        let mut sums: Option<Tensor> = None;
        for value in values {
            let (group, values) = value?;
            let before = match sums {
                Some(sums) => sums,
                None => Tensor::zeros(self.images, values.dtype(), values.device())?,
            };
            sums = Some(before.index_add(&group.images, &(values * &group.weights)?, 0)?);
        }
        match sums {
            Some(sums) => sums.to_dtype(DType::F32),
            None => Tensor::zeros(self.images, DType::F32, &Device::Cpu),
        }
    }
}

/// What the units of a group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    target: usize,
    source: Source,
    rule: Rule,
}

/// What a unit's map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Channel,
    Direction,
    Layer,
}

/// How a map becomes one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Mean,
    /// The value at a place that each unit has for itself.
    Place,
    /// Mean of so many largest values.
    Largest(usize),
    MeanSquare,
}

impl Kind {
    fn of(aim: &Aim, shape: &[usize]) -> Self {
        let (source, rule) = match &aim.selection {
            Selection::Channel { reduction, .. } => (Source::Channel, Rule::of(*reduction, shape)),
            Selection::Neuron { .. } => (Source::Channel, Rule::Place),
            Selection::Direction { reduction, .. } => (Source::Direction, Rule::of(*reduction, shape)),
            Selection::Energy => (Source::Layer, Rule::MeanSquare),
        };
        Self { target: aim.target, source, rule }
    }
}

impl Rule {
    fn of(reduction: Reduction, shape: &[usize]) -> Self {
        let count = positions(shape);
        match reduction {
            Reduction::Mean => Self::Mean,
            Reduction::Center => Self::Place,
            Reduction::Max => Self::Largest(1),
            Reduction::TopFraction(share) => {
                // Slightly less, so that a share such as 0.1, which f32 rounds up, keeps 40 of 400 values and not 41.
                let kept = (f64::from(share) * count as f64 * (1.0 - 1e-6)).ceil() as usize;
                Self::Largest(kept.clamp(1, count))
            }
        }
    }
}

/// Number of positions of a channel.
fn positions(shape: &[usize]) -> usize {
    shape.iter().skip(1).product()
}

/// The place of a unit that is read at one place.
fn place(selection: &Selection, shape: &[usize]) -> usize {
    match (selection, shape) {
        (Selection::Neuron { position: [y, x], .. }, &[_, _, width]) => y * width + x,
        (Selection::Neuron { position: [y, x], .. }, _) => y + x,
        (_, &[_, height, width]) => height / 2 * width + width / 2,
        _ => 0,
    }
}

/// Units of one kind.
#[derive(Debug)]
struct Group {
    kind: Kind,
    /// Shape of the target for one image.
    shape: Vec<usize>,
    /// Which image each unit belongs to: `[G]`.
    images: Tensor,
    /// `[G]`, in the precision of sums.
    weights: Tensor,
    maps: Maps,
    /// Of units with [`Rule::Place`]: `[G,1]`.
    places: Tensor,
    dtype: DType,
}

/// Where the maps of a group's units are found.
#[derive(Debug)]
enum Maps {
    /// Rows `[G]` of the target seen as `[N*C, P]`, or for whole layers as `[N, C*P]`.
    Rows(Tensor),
    /// Each unit's image, and its weights over channels `[1,C]`.
    Directions(Vec<(usize, Tensor)>),
}

/// What a group's units read.
struct Reading {
    /// `[G,P]`, in the precision of sums.
    maps: Tensor,
    /// Positions `[G,k]` of the largest values, for [`Rule::Largest`].
    largest: Option<Tensor>,
    /// `[G]`, in the precision of sums.
    values: Tensor,
}

/// Sums run in f64 where the device has it: a mean over a large map stays exact to f32.
fn precision(device: &Device) -> DType {
    if device.is_metal() { DType::F32 } else { DType::F64 }
}

impl Group {
    fn new(kind: Kind, members: &[(usize, &Aim)], shape: &[usize], device: &Device, dtype: DType) -> Result<Self> {
        let count = members.len();
        let indices = |of: &dyn Fn(usize, &Aim) -> usize, shape: &[usize]| {
            let indices = members.iter().map(|(image, aim)| of(*image, aim) as u32).collect();
            Tensor::from_vec::<_, u32>(indices, shape, device)
        };
        let channels = shape[0];
        let direction = |(image, aim): &(usize, &Aim)| match &aim.selection {
            Selection::Direction { weights, .. } => {
                Some(Tensor::from_slice(weights, (1, channels), device).and_then(|w| Ok((*image, w.to_dtype(dtype)?))))
            }
            _ => None,
        };
        let row = |image: usize, aim: &Aim| match &aim.selection {
            Selection::Channel { channel, .. } | Selection::Neuron { channel, .. } => image * channels + channel,
            Selection::Direction { .. } | Selection::Energy => image,
        };
        let maps = match kind.source {
            Source::Direction => Maps::Directions(members.iter().filter_map(direction).collect::<Result<_>>()?),
            Source::Channel | Source::Layer => Maps::Rows(indices(&row, &[count])?),
        };
        let weights = members.iter().map(|(_, aim)| aim.weight).collect();
        Ok(Self {
            kind,
            shape: shape.to_vec(),
            images: indices(&|image, _| image, &[count])?,
            weights: Tensor::from_vec::<_, f32>(weights, count, device)?.to_dtype(precision(device))?,
            maps,
            places: indices(&|_, aim| place(&aim.selection, shape), &[count, 1])?,
            dtype,
        })
    }

    /// A target's values in rows: one row per map (or per image, where directions and whole layers are looked at).
    fn rows(&self, output: &Tensor) -> Result<Tensor> {
        let images = output.dim(0)?;
        match self.kind.source {
            Source::Channel => output.contiguous()?.reshape((images * self.shape[0], positions(&self.shape))),
            Source::Direction | Source::Layer => output.contiguous()?.reshape((images, ())),
        }
    }

    /// Positions of a unit's map.
    fn map_size(&self) -> usize {
        match self.kind.source {
            Source::Channel | Source::Direction => positions(&self.shape),
            Source::Layer => self.shape.iter().product(),
        }
    }

    fn maps(&self, output: &Tensor) -> Result<Tensor> {
        let maps = match &self.maps {
            Maps::Rows(rows) => self.rows(output)?.index_select(rows, 0)?,
            Maps::Directions(directions) => {
                // One by one: a product of matrices may be computed differently in a batch.
                let map = |(image, weights): &(usize, Tensor)| {
                    weights.matmul(&output.get(*image)?.contiguous()?.reshape((self.shape[0], ()))?)
                };
                Tensor::cat(&directions.iter().map(map).collect::<Result<Vec<_>>>()?, 0)?
            }
        };
        maps.to_dtype(precision(output.device()))
    }

    fn read(&self, output: &Tensor) -> Result<Reading> {
        let maps = self.maps(output)?;
        let count = maps.dim(1)?;
        let (largest, values) = match self.kind.rule {
            Rule::Mean => (None, maps.sum(1)?.affine(1.0 / count as f64, 0.0)?),
            Rule::Place => (None, maps.gather(&self.places, 1)?.squeeze(1)?),
            Rule::MeanSquare => (None, maps.sqr()?.sum(1)?.affine(1.0 / count as f64, 0.0)?),
            Rule::Largest(kept) => {
                let largest = largest(&maps, kept)?;
                let mean = maps.gather(&largest, 1)?.sum(1)?.affine(1.0 / kept as f64, 0.0)?;
                // Not a number among the values is overlooked when they are compared, but makes this sum one.
                (Some(largest), (mean + maps.sum(1)?.affine(0.0, 0.0)?)?)
            }
        };
        Ok(Reading { maps, largest, values })
    }

    /// Derivatives `[G,P]` of the units by their maps, if they are always the same.
    fn fixed_slopes(&self) -> Result<Option<Tensor>> {
        let (units, count) = (self.weights.dim(0)?, self.map_size());
        match self.kind.rule {
            Rule::Mean => {
                let ones = Tensor::ones((units, count), self.weights.dtype(), self.weights.device())?;
                Ok(Some(ones.affine(1.0 / count as f64, 0.0)?))
            }
            Rule::Place => self.share(&self.places).map(Some),
            Rule::Largest(_) | Rule::MeanSquare => Ok(None),
        }
    }

    /// Derivatives `[G,P]` of the units by their maps, if they depend on what was read.
    fn slopes(&self, reading: &Reading) -> Result<Option<Tensor>> {
        match (self.kind.rule, &reading.largest) {
            (Rule::Largest(_), Some(largest)) => self.share(largest).map(Some),
            (Rule::MeanSquare, _) => Ok(Some(reading.maps.affine(2.0 / reading.maps.dim(1)? as f64, 0.0)?)),
            _ => Ok(None),
        }
    }

    /// One, shared between the `chosen` positions `[G,k]` of every map: `[G,P]`.
    fn share(&self, chosen: &Tensor) -> Result<Tensor> {
        let (units, kept) = chosen.dims2()?;
        let zeros = Tensor::zeros((units, self.map_size()), self.weights.dtype(), self.weights.device())?;
        let share = Tensor::ones((units, kept), self.weights.dtype(), self.weights.device())?;
        zeros.scatter(chosen, &share.affine(1.0 / kept as f64, 0.0)?, 1)
    }

    /// The target's seed with the weighted slopes `[G,P]` of this group added.
    fn add_seed(&self, seed: &Tensor, slopes: &Tensor) -> Result<Tensor> {
        let slopes = slopes.broadcast_mul(&self.weights.unsqueeze(1)?)?.to_dtype(self.dtype)?;
        let added = match &self.maps {
            Maps::Rows(rows) => self.rows(seed)?.index_add(rows, &slopes, 0)?,
            Maps::Directions(directions) => {
                let spread = |(g, (_, weights)): (usize, &(usize, Tensor))| {
                    weights.t()?.contiguous()?.matmul(&slopes.narrow(0, g, 1)?.contiguous()?)?.reshape((1, ()))
                };
                let spread = directions.iter().enumerate().map(spread).collect::<Result<Vec<_>>>()?;
                self.rows(seed)?.index_add(&self.images, &Tensor::cat(&spread, 0)?, 0)?
            }
        };
        added.reshape(seed.shape())
    }
}

/// Largest map that devices sort themselves: their sort works in the memory of one block of threads.
const SORTED_ON_DEVICE: usize = 4096;

/// Positions `[G,kept]` of the largest values of every map `[G,P]`. On the CPU, of equal values the first are taken.
fn largest(maps: &Tensor, kept: usize) -> Result<Tensor> {
    if kept == 1 {
        return maps.argmax_keepdim(1);
    }
    // Sorting needs values that compare.
    let lowest = Tensor::full(f64::NEG_INFINITY, maps.shape(), maps.device())?.to_dtype(maps.dtype())?;
    let comparable = maps.eq(maps)?.where_cond(maps, &lowest)?;
    let device = maps.device();
    let near = if maps.dim(1)? > SORTED_ON_DEVICE { &Device::Cpu } else { device };
    let order = comparable.to_device(near)?.arg_sort_last_dim(false)?;
    order.narrow(1, 0, kept)?.contiguous()?.to_device(device)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn aims(unit: &str) -> Aims {
        Aims::new(&unit.parse().unwrap(), |_| Some(0))
    }

    /// One image's score of `aims` on `output` `[C,H,W]`, and its seed.
    fn scored(aims: &Aims, output: &Tensor) -> (f32, Tensor) {
        let scoring = Scoring::new(&[aims], &[output.dims()], &Device::Cpu, DType::F64).unwrap();
        let outputs = [output.unsqueeze(0).unwrap()];
        let Scored { scores, seeds } = scoring.scores_and_seeds(&outputs).unwrap();
        let bits = |scores: Tensor| scores.to_vec1::<f32>().unwrap()[0].to_bits();
        let score = bits(scores);
        assert_eq!(bits(scoring.scores(&outputs).unwrap()), score);
        (f32::from_bits(score), seeds[0].get(0).unwrap())
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn output() -> Tensor {
        Tensor::new(&[[[1f64, -2.0, 3.0], [4.0, 9.0, 0.5]], [[7.0, 1.0, 1.0], [1.0, 1.0, 2.5]]], &Device::Cpu).unwrap()
    }

    #[test]
    fn reductions_of_a_channel() {
        for (unit, expected) in [
            ("a:0", 15.5 / 6.0),
            ("a:0@center", 9.0),
            ("a:0@max", 9.0),
            ("a:0@top0.5", 16.0 / 3.0),
            ("a:0@0,1", -2.0),
            ("a:1@top0.01", 7.0),
            ("a@energy", (1.0 + 4.0 + 9.0 + 16.0 + 81.0 + 0.25 + 49.0 + 4.0 + 6.25) / 12.0),
        ] {
            let (score, _) = scored(&aims(unit), &output());
            assert!((f64::from(score) - expected).abs() < 1e-6, "{unit}: {score}, not {expected}");
        }
    }

    #[test]
    fn a_share_keeps_as_many_values_as_its_decimals_say() {
        let values: Vec<f64> = (0..400).map(f64::from).collect();
        let output = Tensor::from_vec(values, (1, 20, 20), &Device::Cpu).unwrap();
        for (share, kept) in [("0.1", 40), ("0.07", 28), ("0.2", 80), ("0.25", 100), ("0.101", 41), ("1", 400)] {
            let (score, _) = scored(&aims(&format!("a:0@top{share}")), &output);
            let mean = (400 - kept..400).map(f64::from).sum::<f64>() / f64::from(kept);
            assert_eq!(f64::from(score), mean, "{share}");
        }
    }

    #[test]
    fn seeds_are_the_slope_of_the_score() {
        let sum: super::super::Objective = serde_json::from_str(
            r#"{"sum": ["a:0@top0.5", {"layer": "a", "direction": [0.5, -2.0], "weight": -1.5},
                        {"layer": "a", "reduce": "energy", "weight": 0.25}]}"#,
        )
        .unwrap();
        let objectives = ["a:0", "a:1@center", "a:0@max", "a:1@1,2", "a@energy"].map(aims);
        for aims in objectives.into_iter().chain([Aims::new(&sum, |_| Some(0))]) {
            let at_rest = values(&output());
            let seed = values(&scored(&aims, &output()).1);
            for i in 0..at_rest.len() {
                let at = |step: f64| {
                    let mut moved = at_rest.clone();
                    moved[i] += step;
                    f64::from(scored(&aims, &Tensor::from_vec(moved, (2, 2, 3), &Device::Cpu).unwrap()).0)
                };
                let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!((seed[i] - slope).abs() < 1e-4, "{aims:?} at {i}: {}, not {slope}", seed[i]);
            }
        }
    }

    #[test]
    fn objectives_of_a_batch_do_not_mix() {
        let mixed: super::super::Objective = serde_json::from_str(
            r#"{"sum": ["a:1@max", "a:0", {"layer": "a", "direction": [0.5, -2.0], "reduce": "max"}, "a@energy", "a:0@0,1"]}"#,
        )
        .unwrap();
        let mixed = Aims::new(&mixed, |_| Some(0));
        let objectives = [aims("a@energy"), aims("a:0@top0.5"), mixed, aims("a:1"), aims("a:0@max")];
        let outputs: Vec<Tensor> = (0..5).map(|i| output().affine(1.0 + f64::from(i), -0.3).unwrap()).collect();
        let all: Vec<&Aims> = objectives.iter().collect();
        let scoring = Scoring::new(&all, &[&[2, 2, 3]], &Device::Cpu, DType::F64).unwrap();
        let together = scoring.scores_and_seeds(&[Tensor::stack(&outputs, 0).unwrap()]).unwrap();
        let scores = together.scores.to_vec1::<f32>().unwrap();
        for (i, (aims, output)) in objectives.iter().zip(&outputs).enumerate() {
            let (score, seed) = scored(aims, output);
            assert_eq!(score.to_bits(), scores[i].to_bits(), "score {i}");
            assert_eq!(values(&seed), values(&together.seeds[0].get(i).unwrap()), "seed {i}");
        }
    }

    #[test]
    fn a_value_that_is_not_a_number_makes_a_score_that_is_not_one() {
        let mut broken = values(&output());
        broken[2] = f64::NAN;
        let broken = Tensor::from_vec(broken, (2, 2, 3), &Device::Cpu).unwrap();
        for unit in ["a:0", "a:0@max", "a:0@top0.5", "a:0@0,2", "a@energy"] {
            assert!(scored(&aims(unit), &broken).0.is_nan(), "{unit}");
        }
        assert!(scored(&aims("a:1@max"), &broken).0.is_finite());
    }
}
