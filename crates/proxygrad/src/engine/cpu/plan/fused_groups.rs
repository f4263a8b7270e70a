//! Partition of a plan's steps into fused groups: which steps are row-tiled together.

use std::ops::Range;
use std::sync::Arc;

use crate::engine::cpu::kernel::{Direction, Kernel};
use crate::engine::cpu::plan::row_tiling::{FusedGroup, GroupStep, RowTiling, TilingLimits};
use crate::engine::cpu::plan::steps::{BackwardStep, ForwardStep, Placement, ValueDraft, read_count};

/// Groups of forward steps. A group continues where a large map is read by the next step only.
pub(crate) fn forward(steps: &[ForwardStep], drafts: &[ValueDraft], limits: TilingLimits) -> Vec<FusedGroup> {
    let continues = |s: usize| {
        let value = s;
        let next = steps[s].kernel.is_some() && steps[s].inputs == [value] && steps[s].residual != Some(value);
        next && read_count(steps, value) == 1 && !drafts[value].is_target && is_large(drafts, value, limits)
    };
    let step = |s: usize| group_step(steps, s, &drafts[s + 1]);
    partition(steps.len(), continues, step, Direction::Forward, limits)
}

/// Groups of backward steps, before their placement in memory. A group continues where a large, complete gradient is
/// read by the next step only.
pub(crate) fn backward(
    steps: &[ForwardStep],
    drafts: &[ValueDraft],
    backward_steps: &[BackwardStep],
    limits: TilingLimits,
) -> Vec<FusedGroup> {
    let continues = |b: usize| {
        let (Some(BackwardStep::Kernel { sink, .. }), BackwardStep::Kernel { forward_step, gradient, .. }) =
            (backward_steps.get(b - 1), &backward_steps[b])
        else {
            return false;
        };
        let whole = sink.complete && sink.addend.is_none() && sink.value == forward_step + 1 && sink.to == *gradient;
        let others = steps[*forward_step].residual.is_some() || steps[*forward_step].inputs.len() != 1;
        whole && !others && is_large(drafts, sink.value, limits)
    };
    let step = |b: usize| match &backward_steps[b] {
        // A seed's gradient is zero in all channels but one: the pass over whole maps skips those.
        BackwardStep::Kernel { gradient, .. } if is_seed(backward_steps, gradient) => None,
        BackwardStep::Kernel { forward_step, sink, .. } => group_step(steps, *forward_step, &drafts[sink.value]),
        BackwardStep::Seed { .. } | BackwardStep::Accumulate { .. } => None,
    };
    partition(backward_steps.len(), continues, step, Direction::Backward, limits)
}

fn is_seed(backward_steps: &[BackwardStep], gradient: &Placement) -> bool {
    backward_steps.iter().any(|step| matches!(step, BackwardStep::Seed { sink, .. } if sink.to == *gradient))
}

fn is_large(drafts: &[ValueDraft], value: usize, limits: TilingLimits) -> bool {
    let is_concatenation = || drafts.iter().any(|part| part.within.is_some_and(|(whole, _)| whole == value));
    let large = drafts[value].layout.elements() * size_of::<f32>() >= limits.min_map_bytes;
    large && drafts[value].within.is_none() && !is_concatenation()
}

fn group_step(steps: &[ForwardStep], step: usize, filled: &ValueDraft) -> Option<GroupStep> {
    let kernel = Arc::clone(steps[step].kernel.as_ref()?);
    let [height, width] = filled.layout.is_channels_last().then(|| filled.layout.size())?;
    Some(GroupStep { kernel, height, row_len: width * filled.layout.pixel_len() })
}

/// Partitions steps `0..count` into groups, each as long as a row tiling fits.
fn partition(
    count: usize,
    continues: impl Fn(usize) -> bool,
    group_step: impl Fn(usize) -> Option<GroupStep>,
    direction: Direction,
    limits: TilingLimits,
) -> Vec<FusedGroup> {
    let ends = |kernel: &dyn Kernel| kernel.row_kernel(direction).is_none_or(|pass| pass.ends_group());
    let mut groups = Vec::new();
    let mut first = 0;
    while first < count {
        let mut range: Range<usize> = first..first + 1;
        let mut tiling = None;
        let mut steps: Vec<GroupStep> = group_step(first).into_iter().collect();
        while range.end < count && steps.last().is_some_and(|last| !ends(&*last.kernel)) && continues(range.end) {
            let Some(next) = group_step(range.end) else { break };
            steps.push(next);
            let Some(longer) = RowTiling::fit(&steps, direction, limits) else { break };
            tiling = Some(longer);
            range.end += 1;
        }
        first = range.end;
        groups.push(FusedGroup { range, tiling });
    }
    groups
}
