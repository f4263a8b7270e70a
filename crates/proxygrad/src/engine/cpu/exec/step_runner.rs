//! Runs single steps and fused groups of a plan: builds the epilogue of each step, including the gate, and calls its
//! kernel.
#![expect(unsafe_code, reason = "maps of the plan's own memory")]

use crate::engine::cpu::breakpoints::{Breakpoints, FusedActivation};
use crate::engine::cpu::epilogue::{Epilogue, FusedGate, SmoothActivation};
use crate::engine::cpu::exec::arenas::ArenaPtrs;
use crate::engine::cpu::exec::redirect::{Kept, is_alive, redirect};
use crate::engine::cpu::exec::row_tiling::TiledStep;
use crate::engine::cpu::exec::tensor_io::Seed;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, Direction, ForwardArgs, ThreadCtx};
use crate::engine::cpu::kernels::elementwise::{CopyOf, for_each_vector};
use crate::engine::cpu::plan::ExecutionPlan;
use crate::engine::cpu::plan::row_tiling::FusedGroup;
use crate::engine::cpu::plan::steps::{BackwardStep, GradientSink};
use crate::engine::{Forward, Gate};
use crate::network::NodeId;

/// Runs the steps of a plan for one micro-batch, on one thread of the team.
#[derive(Clone, Copy)]
pub(crate) struct StepRunner<'a> {
    pub(crate) plan: &'a ExecutionPlan,
    pub(crate) ctx: &'a ThreadCtx<'a>,
    pub(crate) arenas: &'a ArenaPtrs,
}

impl<'a> StepRunner<'a> {
    /// Runs a group of forward steps.
    pub(crate) fn forward_group(self, group: &FusedGroup, forward: Forward) {
        let Some(tiling) = &group.tiling else {
            return group.range.clone().for_each(|s| self.forward_step(s, forward));
        };
        let tiled_step = |s: usize| {
            let pass = self.plan.forward_steps[s].kernel.as_ref()?.row_kernel(Direction::Forward)?;
            Some(TiledStep { pass, saved: self.saved(s), epilogue: self.forward_epilogue(s, forward) })
        };
        let tiled_steps: Vec<TiledStep<'_>> = group.range.clone().filter_map(tiled_step).collect();
        let source = self.map(self.plan.forward_steps[group.range.start].inputs[0]);
        tiling.run(self.ctx, source, &tiled_steps, self.row_buffers(), false);
    }

    /// Runs a group of backward steps.
    pub(crate) fn backward_group(self, group: &FusedGroup, seeds: &[Seed<'_>], gate: Gate) {
        let steps = &self.plan.backward_steps[group.range.clone()];
        let one_by_one = || steps.iter().for_each(|step| self.backward_step(step, seeds, gate));
        let (Some(tiling), Some(BackwardStep::Kernel { gradient, forward_step, .. })) = (&group.tiling, steps.first())
        else {
            return one_by_one();
        };
        let redirects = gate == Gate::Redirect;
        let last = steps.last().map(BackwardStep::sink);
        if redirects && last.is_some_and(|sink| sink.addend == Some(sink.to)) {
            return one_by_one();
        }
        if redirects {
            self.ctx.worker.for_each_piece(1, |_| tiling.clear_nonzero());
        }
        let tiled_step = |step: &BackwardStep| {
            let BackwardStep::Kernel { forward_step, sink, .. } = step else { return None };
            let pass = self.plan.forward_steps[*forward_step].kernel.as_ref()?.row_kernel(Direction::Backward)?;
            let epilogue = self.backward_epilogue(sink, if redirects { Gate::Plain } else { gate });
            Some(TiledStep { pass, saved: self.saved(*forward_step), epilogue })
        };
        let tiled_steps: Vec<TiledStep<'_>> = steps.iter().filter_map(tiled_step).collect();
        let source = self.arenas.map(*gradient, &self.plan.values[forward_step + 1].layout);
        tiling.run(self.ctx, source, &tiled_steps, self.row_buffers(), redirects);
        // Dead layers are rare: the plain gate comes first, and all steps are repeated one by one if a layer was dead.
        let alive = |sink: &GradientSink| self.activated_parts(sink).into_iter().all(|(_, to)| is_alive(to));
        if redirects && !(tiling.all_nonzero(self.arenas.images) && last.is_none_or(alive)) {
            // All threads have read the result before it is overwritten.
            self.ctx.worker.barrier();
            one_by_one();
        }
    }

    /// The node that a backward step belongs to.
    pub(crate) fn node_of(self, step: &BackwardStep) -> NodeId {
        match step {
            BackwardStep::Kernel { forward_step, .. } => self.plan.forward_steps[*forward_step].node,
            BackwardStep::Seed { sink, .. } | BackwardStep::Accumulate { sink, .. } => {
                self.plan.values[sink.value].node
            }
        }
    }

    /// This thread's memory for row buffers.
    fn row_buffers(self) -> *mut f32 {
        // SAFETY: the scratch memory has room for a kernel and the row buffers.
        unsafe { self.ctx.scratch.add(self.plan.scratch_len[0]) }
    }

    fn map(self, value: usize) -> FeatureMap {
        self.arenas.map(self.plan.values[value].placement, &self.plan.values[value].layout)
    }

    /// Where the kernel of a forward step saves values for the backward pass.
    fn saved(self, s: usize) -> Option<*mut f32> {
        // SAFETY: the offset lies in the micro-batch's memory.
        self.plan.forward_steps[s].saved.map(|offset| unsafe { self.arenas.saved.add(offset * self.arenas.capacity) })
    }

    fn forward_step(self, s: usize, forward: Forward) {
        let step = &self.plan.forward_steps[s];
        let Some(kernel) = &step.kernel else { return };
        let inputs: Vec<FeatureMap> = step.inputs.iter().map(|&input| self.map(input)).collect();
        let args = ForwardArgs { inputs: &inputs, saved: self.saved(s), forward };
        kernel.forward(self.ctx, &args, &self.forward_epilogue(s, forward));
    }

    fn forward_epilogue(self, s: usize, forward: Forward) -> Epilogue<'a> {
        let step = &self.plan.forward_steps[s];
        let value = &self.plan.values[s + 1];
        let bias = step.kernel.as_ref().and_then(|kernel| kernel.bias());
        let addend = step.residual.map(|residual| self.map(residual));
        let epilogue = Epilogue { bias, addend, ..Epilogue::store_only(self.map(s + 1)) };
        // Nothing is kept of a value that does not depend on the image.
        let keeps = value.activation.is_some();
        match &step.activation {
            None => epilogue,
            Some(FusedActivation::Linear(breakpoints)) => {
                let record = if keeps { self.arenas.record(value) } else { None };
                let mask = keeps.then(|| self.arenas.mask(value, breakpoints));
                let leak = match forward {
                    Forward::Original => breakpoints.leak,
                    Forward::Proxy { slope } => breakpoints.leak.max(slope),
                };
                Epilogue { breakpoints: Some(Breakpoints { leak, ..*breakpoints }), record, mask, ..epilogue }
            }
            Some(FusedActivation::Smooth(activation)) => {
                let record = keeps.then(|| self.arenas.pre_activations(value));
                Epilogue { smooth: Some((SmoothActivation { activation, first: 0 }, forward)), record, ..epilogue }
            }
        }
    }

    fn backward_step(self, step: &BackwardStep, seeds: &[Seed<'_>], gate: Gate) {
        let sink = step.sink();
        let value = &self.plan.values[sink.value];
        if !(value.activation.is_some() && sink.complete && gate == Gate::Redirect) {
            return self.contribute(step, seeds, [gate; 2]);
        }
        let parts = self.activated_parts(sink);
        // Dead layers are rare: the plain gate comes first, and the step is repeated without a gate if the layer was
        // dead.
        if !matches!(step, BackwardStep::Seed { .. }) && sink.addend != Some(sink.to) {
            self.contribute(step, seeds, [gate, Gate::Plain]);
            if parts.iter().all(|&(_, to)| is_alive(to)) {
                return;
            }
            self.ctx.worker.barrier();
        }
        self.contribute(step, seeds, [gate; 2]);
        for (kept, to) in parts {
            redirect(self.ctx, kept, to);
        }
    }

    /// What is kept of the activations of a sink, and their gradients. The parts of a concatenation are redirected
    /// independently.
    fn activated_parts(self, sink: &GradientSink) -> Vec<(Kept<'a>, FeatureMap)> {
        let value = &self.plan.values[sink.value];
        let own = [sink.value];
        let parts = if value.parts.is_empty() { own.as_slice() } else { value.parts.as_slice() };
        let part = |&part: &usize| {
            let part = &self.plan.values[part];
            let kept = match part.activation.as_ref()? {
                FusedActivation::Linear(breakpoints) => {
                    Kept::Branches { mask: self.arenas.mask(part, breakpoints), leak: breakpoints.leak }
                }
                FusedActivation::Smooth(activation) => {
                    Kept::PreActivations { z: self.arenas.pre_activations(part), activation }
                }
            };
            let (first, channels) = (part.placement.first - value.placement.first, part.layout.pixel_len());
            // SAFETY: a part's channels lie in the concatenation.
            let to = unsafe { self.arenas.map(sink.to, &value.layout).slice(first, channels) };
            Some((kept, to))
        };
        parts.iter().filter_map(part).collect()
    }

    /// Computes one contribution under two gates: that of an activation with a separate kernel, and that of the
    /// activation fused into the sink.
    fn contribute(self, step: &BackwardStep, seeds: &[Seed<'_>], [gate, fused]: [Gate; 2]) {
        let sink = step.sink();
        let value = &self.plan.values[sink.value];
        let epilogue = self.backward_epilogue(sink, fused);
        match step {
            BackwardStep::Seed { target, .. } => self.seed(seeds[*target], sink, &epilogue),
            BackwardStep::Kernel { forward_step, input, gradient, .. } => {
                let step = &self.plan.forward_steps[*forward_step];
                let Some(kernel) = &step.kernel else { return };
                let inputs: Vec<FeatureMap> = step.inputs.iter().map(|&input| self.map(input)).collect();
                let args = BackwardArgs {
                    inputs: &inputs,
                    output: self.map(forward_step + 1),
                    saved: self.saved(*forward_step),
                    gradient: self.arenas.map(*gradient, &self.plan.values[forward_step + 1].layout),
                    gate: gate.at_scale(step.scale),
                };
                kernel.backward(self.ctx, *input, &args, &epilogue);
            }
            BackwardStep::Accumulate { gradient, .. } => {
                let from = self.arenas.map(*gradient, &value.layout);
                // SAFETY: both maps have the value's shape.
                unsafe { for_each_vector(self.ctx, &epilogue, CopyOf(from)) };
            }
        }
    }

    fn backward_epilogue(self, sink: &GradientSink, gate: Gate) -> Epilogue<'a> {
        let layout = &self.plan.values[sink.value].layout;
        let addend = sink.addend.map(|addend| self.arenas.map(addend, layout));
        let gate = self.fused_gate(sink, gate);
        Epilogue { addend, gate, ..Epilogue::store_only(self.arenas.map(sink.to, layout)) }
    }

    /// Copies a seed into channels-last order, adds the contributions before it, and gates the sum.
    fn seed(self, seed: Seed<'_>, sink: &GradientSink, epilogue: &Epilogue<'_>) {
        let value = &self.plan.values[sink.value];
        // A second target with the same value has an addend.
        seed.write(self.ctx.worker, self.arenas, epilogue.to, &value.layout, sink.addend.is_some());
        if sink.complete && value.activation.is_some() && !matches!(epilogue.gate, FusedGate::None) {
            let gated = Epilogue { addend: None, ..*epilogue };
            // SAFETY: a map copied onto itself, value by value.
            unsafe { for_each_vector(self.ctx, &gated, CopyOf(self.arenas.map(sink.to, &value.layout))) };
        }
    }

    /// The gate that is fused into the last contribution to a gradient.
    fn fused_gate(self, sink: &GradientSink, gate: Gate) -> FusedGate<'a> {
        let value = &self.plan.values[sink.value];
        let Some(activation) = value.activation.as_ref().filter(|_| sink.complete) else { return FusedGate::None };
        let breakpoints = match activation {
            FusedActivation::Linear(breakpoints) => breakpoints,
            FusedActivation::Smooth(_) if gate == Gate::Redirect => return FusedGate::None,
            FusedActivation::Smooth(activation) => {
                let input = self.arenas.pre_activations(value);
                let activation = SmoothActivation { activation, first: 0 };
                return FusedGate::Smooth { input, activation, gate, inverse_scales: &value.inverse_scales };
            }
        };
        let Breakpoints { low, high, leak } = *breakpoints;
        let masked = |outside| FusedGate::Masked { mask: self.arenas.mask(value, breakpoints), outside };
        match gate {
            Gate::Plain => masked(leak),
            Gate::Proxy { slope } => masked(leak.max(slope)),
            Gate::Soft { temperature } => match self.arenas.record(value) {
                Some(input) if temperature > 0.0 => {
                    let (inverse_scales, inverse_temperature) = (&value.inverse_scales[..], 1.0 / temperature);
                    FusedGate::Soft { input, low, high, leak, inverse_scales, inverse_temperature }
                }
                _ => masked(leak),
            },
            Gate::Redirect | Gate::Identity => FusedGate::None,
        }
    }
}
