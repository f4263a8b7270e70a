//! Which steps of a program are walked together, band by band.

use std::ops::Range;
use std::sync::Arc;

use super::bands::{Bands, Chain, Limits, Link};
use super::program::{Draft, Place, Step, Task, pixel, reads};
use super::{Heading, Kernel};

/// Steps forward. A chain goes on where a large map is only read by the next step.
pub(super) fn forward(steps: &[Step], drafts: &[Draft], limits: Limits) -> Vec<Chain> {
    let follows = |s: usize| {
        let value = s;
        let next = steps[s].kernel.is_some() && steps[s].inputs == [value] && steps[s].residual != Some(value);
        next && reads(steps, value) == 1 && !drafts[value].is_target && is_large(drafts, value, limits)
    };
    let link = |s: usize| link(steps, s, &drafts[s + 1]);
    chains(steps.len(), follows, link, Heading::Forward, limits)
}

/// Tasks backward, whose places are still intervals. A chain goes on where a large complete gradient is only read by the next task.
pub(super) fn backward(steps: &[Step], drafts: &[Draft], tasks: &[Task], limits: Limits) -> Vec<Chain> {
    let follows = |t: usize| {
        let (Some(Task::Kernel { sink, .. }), Task::Kernel { step, gradient, .. }) = (tasks.get(t - 1), &tasks[t])
        else {
            return false;
        };
        let whole = sink.complete && sink.add.is_none() && sink.value == step + 1 && sink.to == *gradient;
        let others = steps[*step].residual.is_some() || steps[*step].inputs.len() != 1;
        whole && !others && is_large(drafts, sink.value, limits)
    };
    let link = |t: usize| match &tasks[t] {
        // Behind a seed the gradient of one channel is all there is: whole maps leave out the others.
        Task::Kernel { gradient, .. } if is_seed(tasks, gradient) => None,
        Task::Kernel { step, sink, .. } => link(steps, *step, &drafts[sink.value]),
        _ => None,
    };
    chains(tasks.len(), follows, link, Heading::Backward, limits)
}

fn is_seed(tasks: &[Task], gradient: &Place) -> bool {
    tasks.iter().any(|task| matches!(task, Task::Seed { sink, .. } if sink.to == *gradient))
}

fn is_large(drafts: &[Draft], value: usize, limits: Limits) -> bool {
    let is_whole = || drafts.iter().any(|part| part.within.is_some_and(|(whole, _)| whole == value));
    let large = drafts[value].shape.elements() * size_of::<f32>() >= limits.large;
    large && drafts[value].within.is_none() && !is_whole()
}

fn link(steps: &[Step], step: usize, filled: &Draft) -> Option<Link> {
    let kernel = Arc::clone(steps[step].kernel.as_ref()?);
    let [_, height, width] = filled.shape.feature_map()?;
    Some(Link { kernel, height, row: width * pixel(&filled.shape) })
}

/// Cuts `0..count` into chains, as long as bands can be planned for them.
fn chains(
    count: usize,
    follows: impl Fn(usize) -> bool,
    link: impl Fn(usize) -> Option<Link>,
    heading: Heading,
    limits: Limits,
) -> Vec<Chain> {
    let closes = |kernel: &dyn Kernel| kernel.bands(heading).is_none_or(|pass| pass.closes());
    let mut chains = Vec::new();
    let mut first = 0;
    while first < count {
        let mut range: Range<usize> = first..first + 1;
        let mut bands = None;
        let mut links: Vec<Link> = link(first).into_iter().collect();
        while range.end < count && links.last().is_some_and(|last| !closes(&*last.kernel)) && follows(range.end) {
            let Some(next) = link(range.end) else { break };
            links.push(next);
            let Some(longer) = Bands::plan(&links, heading, limits) else { break };
            bands = Some(longer);
            range.end += 1;
        }
        first = range.end;
        chains.push(Chain { range, bands });
    }
    chains
}
