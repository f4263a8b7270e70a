//! Values of objectives on the outputs of layers, and their gradients there.
//!
//! The units of all searches of a batch are grouped by layer and kind, and every group is computed as one chain of tensor
//! operations on the device of the outputs: nothing is read back. Gradients that do not depend on the outputs, those of
//! linear units, are made once.

mod group;
mod likeness;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};

use self::group::{Group, Kind};
use super::objective::Objective;
use super::placement::Placement;
use crate::network::{ImageSource, Selection};

/// One term of an objective, aimed at one of a plan's targets.
#[derive(Debug, Clone)]
struct Aim {
    /// Position of the layer among the plan's targets.
    target: usize,
    selection: Selection,
    weight: f32,
    /// The target's values `[C,H,W]` or `[K]` on the image that a unit compares with.
    reference: Option<Tensor>,
}

impl Aim {
    /// The image that the unit compares with, if any.
    fn image(&self) -> Option<&ImageSource> {
        match &self.selection {
            Selection::Caricature { image, .. } | Selection::Inversion { image } => Some(image),
            _ => None,
        }
    }
}

/// An objective, aimed at the targets of a plan.
#[derive(Debug, Clone)]
pub(super) struct Aims(Vec<Aim>);

impl Aims {
    /// `target_of` gives a layer's position among the targets.
    pub(super) fn new(objective: &Objective, target_of: impl Fn(&str) -> Option<usize>) -> Self {
        let aim = |term: &super::Term| {
            let selection = term.unit.selection.clone();
            Some(Aim { target: target_of(&term.unit.layer)?, selection, weight: term.weight, reference: None })
        };
        Self(objective.terms.iter().filter_map(aim).collect())
    }

    /// Images that units compare with.
    pub(super) fn images(&self) -> impl Iterator<Item = &ImageSource> {
        self.0.iter().filter_map(Aim::image)
    }

    /// Lays the values of images beside the units that compare with them: `values(image, target)` are those of a target.
    pub(super) fn refer(&mut self, values: impl Fn(&ImageSource, usize) -> Result<Tensor>) -> Result<()> {
        for aim in &mut self.0 {
            if let Some(image) = aim.image() {
                aim.reference = Some(values(image, aim.target)?);
            }
        }
        Ok(())
    }
}

/// The objectives of a batch at work on the outputs of a plan's targets, each `[N,C,H,W]` or `[N,K]`, or any other number
/// of axes after the batch: the first of them is the channels, the others are positions; `[N]` has one channel.
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
    pub(super) fn new(objectives: &[&Aims], shapes: &[&[usize]], placement: &Placement) -> Result<Self> {
        let Placement { device, dtype, .. } = placement;
        let images = objectives.len();
        // Sorted, so that the terms of an objective are added in the same order whatever its neighbours are.
        let mut members: BTreeMap<Kind, Vec<(usize, &Aim)>> = BTreeMap::new();
        for (image, Aims(aims)) in objectives.iter().enumerate() {
            for aim in aims {
                members.entry(Kind::of(aim, shapes[aim.target])).or_default().push((image, aim));
            }
        }
        let groups = members.iter().map(|(kind, members)| Group::new(*kind, members, shapes[kind.target], placement));
        let groups = groups.collect::<Result<Vec<_>>>()?;
        let zeros = shapes.iter().map(|shape| Tensor::zeros([&[images], *shape].concat(), *dtype, device));
        let mut fixed = zeros.collect::<Result<Vec<_>>>()?;
        for group in &groups {
            let seed = &mut fixed[group.kind.target];
            *seed = group.add_fixed(seed)?;
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
            let output = &outputs[group.kind.target];
            let reading = group.read(output)?;
            let seed = &mut seeds[group.kind.target];
            *seed = group.add_changing(seed, &reading, output)?;
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
