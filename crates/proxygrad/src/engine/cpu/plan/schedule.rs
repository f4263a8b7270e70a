//! Backward schedule: the order in which gradients are computed, and where each contribution is accumulated.
//!
//! A contribution that equals another gradient is not copied: the sum refers to that gradient's memory until a second
//! contribution arrives.

use crate::engine::cpu::plan::lifetimes::Lifetimes;
use crate::engine::cpu::plan::steps::{Arena, BackwardStep, ForwardStep, GradientSink, Placement, ValueDraft};

/// The backward steps of a plan. The offsets of placements are indices of lifetimes.
pub(crate) struct BackwardSchedule {
    pub(crate) backward_steps: Vec<BackwardStep>,
    /// Gradient with respect to the image.
    pub(crate) gradient: Option<Placement>,
}

/// The sum of the contributions to a gradient so far.
#[derive(Clone, Copy)]
struct PartialGradient {
    placement: Placement,
    /// Whether the memory belongs to this gradient alone, so that it may be written.
    owned: bool,
}

struct ScheduleBuilder<'a> {
    drafts: &'a [ValueDraft],
    lifetimes: &'a mut Lifetimes,
    backward_steps: Vec<BackwardStep>,
    partials: Vec<Option<PartialGradient>>,
    /// Contributions that are still missing.
    missing: Vec<usize>,
}

impl ScheduleBuilder<'_> {
    /// Contributes `gradient` unchanged.
    fn accumulate(&mut self, value: usize, gradient: Placement) {
        self.missing[value] -= 1;
        let complete = self.missing[value] == 0;
        if self.partials[value].is_none() && !(complete && self.drafts[value].activation.is_some()) {
            self.partials[value] = Some(PartialGradient { placement: gradient, owned: false });
            return;
        }
        let sink = self.sink(value, complete);
        self.lifetimes.extend(gradient.offset, self.backward_steps.len());
        self.backward_steps.push(BackwardStep::Accumulate { gradient, sink });
    }

    fn kernel(&mut self, value: usize, forward_step: usize, input: usize, gradient: Placement) {
        self.missing[value] -= 1;
        let sink = self.sink(value, self.missing[value] == 0);
        self.lifetimes.extend(gradient.offset, self.backward_steps.len());
        self.backward_steps.push(BackwardStep::Kernel { forward_step, input, gradient, sink });
    }

    fn seed(&mut self, value: usize, target: usize) {
        self.missing[value] -= 1;
        let sink = self.sink(value, self.missing[value] == 0);
        self.backward_steps.push(BackwardStep::Seed { target, sink });
    }

    /// Where the next step writes its contribution.
    fn sink(&mut self, value: usize, complete: bool) -> GradientSink {
        let time = self.backward_steps.len();
        let partial = self.partials[value];
        let to = match partial {
            Some(PartialGradient { placement, owned: true }) => placement,
            _ => {
                let layout = &self.drafts[value].layout;
                let offset = self.lifetimes.add(layout.elements(), time);
                Placement { arena: Arena::Saved, offset, first: 0, pixel_stride: layout.pixel_len() }
            }
        };
        let addend = partial.map(|partial| partial.placement);
        for placement in [Some(to), addend].into_iter().flatten() {
            self.lifetimes.extend(placement.offset, time);
        }
        self.partials[value] = Some(PartialGradient { placement: to, owned: true });
        GradientSink { value, to, addend, complete }
    }
}

impl BackwardSchedule {
    pub(crate) fn new(
        steps: &[ForwardStep],
        drafts: &[ValueDraft],
        targets: &[usize],
        lifetimes: &mut Lifetimes,
    ) -> Self {
        let mut missing = vec![0; drafts.len()];
        for &target in targets {
            missing[target] += 1;
        }
        for step in steps.iter().filter(|step| step.kernel.is_some()) {
            for &input in step.inputs.iter().chain(&step.residual) {
                missing[input] += usize::from(drafts[input].needs_gradient);
            }
        }
        let partials = vec![None; drafts.len()];
        let mut builder = ScheduleBuilder { drafts, lifetimes, backward_steps: Vec::new(), partials, missing };
        for (target, &value) in targets.iter().enumerate() {
            if drafts[value].needs_gradient {
                builder.seed(value, target);
            }
        }
        for (s, step) in steps.iter().enumerate().rev() {
            let value = s + 1;
            let Some(PartialGradient { placement: gradient, .. }) = builder.partials[value] else { continue };
            let Some(kernel) = &step.kernel else {
                // The gradients of the parts are slices of the gradient of the concatenation.
                for &part in &step.inputs {
                    let first = drafts[part].within.map_or(0, |(_, first)| first);
                    let placement = Placement { first: gradient.first + first, ..gradient };
                    builder.partials[part] = Some(PartialGradient { placement, owned: false });
                }
                continue;
            };
            if let Some(residual) = step.residual.filter(|&residual| drafts[residual].needs_gradient) {
                builder.accumulate(residual, gradient);
            }
            for (i, &input) in step.inputs.iter().enumerate().filter(|(_, input)| drafts[**input].needs_gradient) {
                if kernel.passes_gradient(i) {
                    builder.accumulate(input, gradient);
                } else {
                    builder.kernel(input, s, i, gradient);
                }
            }
        }
        let gradient = builder.partials[0].map(|partial| partial.placement);
        let backward_steps = builder.backward_steps;
        if let Some(gradient) = gradient {
            lifetimes.extend(gradient.offset, backward_steps.len());
        }
        Self { backward_steps, gradient }
    }
}
