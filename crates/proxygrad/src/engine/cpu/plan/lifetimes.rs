//! Lifetime analysis: from which step to which each tensor of a plan is in use.

use crate::engine::cpu::activation_mask::ActivationMask;
use crate::engine::cpu::breakpoints::FusedActivation;
use crate::engine::cpu::plan::memory::{Lifetime, assign_offsets};
use crate::engine::cpu::plan::row_tiling::FusedGroup;
use crate::engine::cpu::plan::steps::{Arena, ForwardStep, ValueDraft};

/// Lifetimes of all tensors. Time counts the forward steps, then the backward steps.
pub(crate) struct Lifetimes {
    /// First those of the values, at their index; a value that is computed in place within another has length 0.
    list: Vec<Lifetime>,
    /// Lifetime of what each forward step saves, if anything.
    pub(crate) saved: Vec<Option<usize>>,
    /// Lifetime of what is kept for each value's fused activation, if it has one.
    pub(crate) kept: Vec<Option<usize>>,
    /// Time of the first backward step.
    turn: usize,
}

impl Lifetimes {
    /// Those of the forward pass.
    pub(crate) fn new(steps: &[ForwardStep], drafts: &[ValueDraft]) -> Self {
        let turn = steps.len() + 2;
        let root = |value: usize| drafts[value].within.map_or(value, |(root, _)| root);
        let mut list: Vec<Lifetime> = drafts
            .iter()
            .enumerate()
            .map(|(v, draft)| {
                let length = if draft.within.is_some() { 0 } else { draft.layout.elements() };
                Lifetime { length, start: v, end: if draft.is_target { turn - 1 } else { v } }
            })
            .collect();
        list[0].end = Lifetime::FOREVER;
        for v in 0..drafts.len() {
            let lifetime = &mut list[root(v)];
            lifetime.start = lifetime.start.min(v);
        }
        for (s, step) in steps.iter().enumerate() {
            let needs = step.kernel.as_ref().map(|kernel| kernel.backward_needs()).unwrap_or_default();
            for &input in step.inputs.iter().chain(&step.residual) {
                let end = if needs.inputs { Lifetime::FOREVER } else { s + 1 };
                let lifetime = &mut list[root(input)];
                lifetime.end = lifetime.end.max(end);
            }
            if needs.output {
                list[root(s + 1)].end = Lifetime::FOREVER;
            }
        }
        let mut saved = Vec::new();
        for (s, step) in steps.iter().enumerate() {
            let length = step.kernel.as_ref().map_or(0, |kernel| kernel.saved_len());
            saved.push((length > 0).then_some(list.len()));
            if length > 0 {
                list.push(Lifetime { length, start: s + 1, end: Lifetime::FOREVER });
            }
        }
        let mut kept = Vec::new();
        for (v, draft) in drafts.iter().enumerate() {
            let activation = draft.activation.as_ref().filter(|_| draft.within.is_none());
            kept.push(activation.is_some().then_some(list.len()));
            if let Some(activation) = activation {
                let elements = draft.layout.elements();
                let length = match activation {
                    FusedActivation::Smooth(_) => elements,
                    FusedActivation::Linear(breakpoints) => {
                        let channels = draft.layout.pixel_len();
                        let mask = ActivationMask::bytes(channels, breakpoints);
                        let bytes = elements / channels.max(1) * mask + ActivationMask::SLACK_BYTES;
                        bytes.div_ceil(size_of::<f32>())
                    }
                };
                list.push(Lifetime { length, start: list[v].start, end: Lifetime::FOREVER });
            }
        }
        Self { list, saved, kept, turn }
    }

    /// Treats the steps of a group as one point in time.
    pub(crate) fn merge(&mut self, forward_groups: &[FusedGroup], backward_groups: &[FusedGroup]) {
        let times = |group: &FusedGroup, zero: usize| zero + group.range.start..zero + group.range.end;
        let forward = forward_groups.iter().map(|group| times(group, 1));
        let all = forward.chain(backward_groups.iter().map(|group| times(group, self.turn)));
        for time in all.collect::<Vec<_>>() {
            for lifetime in &mut self.list {
                if time.contains(&lifetime.start) {
                    lifetime.start = time.start;
                }
                if time.contains(&lifetime.end) {
                    lifetime.end = time.end - 1;
                }
            }
        }
        // Values between the steps of a group exist only in row buffers.
        for group in forward_groups {
            (group.range.start + 1..group.range.end).for_each(|value| self.list[value].length = 0);
        }
    }

    /// Places all tensors in the two arenas.
    pub(crate) fn place(&self) -> Placed {
        let is_transient = |lifetime: &Lifetime| lifetime.end < self.turn || lifetime.start >= self.turn;
        let mut at = vec![(Arena::Saved, 0); self.list.len()];
        let [saved_len, transient_len] = [Arena::Saved, Arena::Transient].map(|arena| {
            let is_in = |&i: &usize| is_transient(&self.list[i]) == (arena == Arena::Transient);
            let chosen: Vec<usize> = (0..self.list.len()).filter(is_in).collect();
            let lifetimes: Vec<Lifetime> = chosen.iter().map(|&i| self.list[i]).collect();
            let (offsets, length) = assign_offsets(&lifetimes);
            for (i, offset) in chosen.into_iter().zip(offsets) {
                at[i] = (arena, offset);
            }
            length
        });
        Placed { at, saved_len, transient_len }
    }

    /// Adds a tensor that is first written by a backward step.
    pub(crate) fn add(&mut self, length: usize, backward_step: usize) -> usize {
        let time = self.turn + backward_step;
        self.list.push(Lifetime { length, start: time, end: time });
        self.list.len() - 1
    }

    /// Extends a lifetime to a backward step.
    pub(crate) fn extend(&mut self, lifetime: usize, backward_step: usize) {
        let lifetime = &mut self.list[lifetime];
        lifetime.end = lifetime.end.max(self.turn + backward_step);
    }
}

/// Result of [`Lifetimes::place`].
pub(crate) struct Placed {
    /// Arena and offset of each lifetime.
    pub(crate) at: Vec<(Arena, usize)>,
    /// Values per image in [`Arena::Saved`].
    pub(crate) saved_len: usize,
    /// Values per image in [`Arena::Transient`].
    pub(crate) transient_len: usize,
}
