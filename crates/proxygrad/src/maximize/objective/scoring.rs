//! Scores of objectives on the outputs of layers, and their gradients (seeds of the backward pass).
//!
//! The units of a batch's objectives are grouped by layer and kind, and every group is computed as one chain of tensor
//! operations on the device of the outputs: nothing is read back. Gradients that do not depend on the outputs, those of
//! linear units, are computed once.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};

use super::bound::{BoundObjective, BoundTerm};
use super::group::{Group, Kind};
use crate::maximize::ops::Placement;

/// Scores the objectives of a batch on the outputs of a plan's targets, each `[N,C,H,W]` or `[N,K]`, or any other
/// number of axes after the batch: the first of them is the channels, the others are positions; `[N]` has one channel.
#[derive(Debug)]
pub(in crate::maximize) struct Scoring {
    images: usize,
    groups: Vec<Group>,
    /// The constant part of every target's seed.
    fixed: Vec<Tensor>,
}

/// Scores of a batch and their gradients.
pub(in crate::maximize) struct Scored {
    /// `[N]`, f32.
    pub(in crate::maximize) scores: Tensor,
    /// One per target, shaped as its output.
    pub(in crate::maximize) seeds: Vec<Tensor>,
}

impl Scoring {
    /// The objectives of a batch, one per image, on targets with these shapes.
    pub(in crate::maximize) fn new(
        objectives: &[&BoundObjective],
        shapes: &[&[usize]],
        placement: &Placement,
    ) -> Result<Self> {
        let Placement { device, dtype, .. } = placement;
        let images = objectives.len();
        // Sorted, so that the order in which an objective's terms are added does not depend on the batch.
        let mut members: BTreeMap<Kind, Vec<(usize, &BoundTerm)>> = BTreeMap::new();
        for (image, BoundObjective(terms)) in objectives.iter().enumerate() {
            for term in terms {
                members.entry(Kind::of(term, shapes[term.target])).or_default().push((image, term));
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

    /// The scores alone: `[N]`, f32.
    pub(in crate::maximize) fn scores(&self, outputs: &[Tensor]) -> Result<Tensor> {
        let maps = |group: &Group| group.read(&outputs[group.kind.target]);
        self.sum(self.groups.iter().map(|group| maps(group).map(|reading| (group, reading.values))))
    }

    /// The scores and their gradients.
    pub(in crate::maximize) fn scores_and_seeds(&self, outputs: &[Tensor]) -> Result<Scored> {
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
