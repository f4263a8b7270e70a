//! Executor: runs an execution plan, one micro-batch after another, with all threads on every step.
#![expect(unsafe_code, reason = "maps of the plan's own memory")]

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::engine::cpu::buffer::{Buffer, SharedPtr};
use crate::engine::cpu::exec::arenas::{ArenaPtrs, MicroBatch};
use crate::engine::cpu::exec::profiler::Profiler;
use crate::engine::cpu::exec::step_runner::StepRunner;
use crate::engine::cpu::exec::tensor_io::{Seed, Selected, load, store, with_values};
use crate::engine::cpu::exec::threads::ThreadPool;
use crate::engine::cpu::kernel::{MICRO_BATCH, ThreadCtx};
use crate::engine::cpu::plan::ExecutionPlan;
use crate::engine::cpu::simd::Instructions;
use crate::engine::subgraph::{Subgraph, SubgraphTarget};
use crate::engine::{EngineError, Forward, Gate, Plan, StepTime};
use crate::network::{Network, NodeId};

/// A plan with the memory that it runs in.
pub(crate) struct Executor {
    threads: Arc<ThreadPool>,
    instructions: Instructions,
    /// See [`ThreadCtx::bf16`].
    bf16: bool,
    subgraph: Subgraph,
    plan: ExecutionPlan,
    micro_batches: Vec<MicroBatch>,
    /// See [`Arena::Transient`](crate::engine::cpu::plan::steps::Arena::Transient).
    transient: Buffer,
    /// Images that each micro-batch has memory for.
    capacity: usize,
    /// One per thread, see [`ExecutionPlan::scratch_len`].
    scratch: Vec<Buffer>,
    shared: Buffer,
    last: Option<ForwardPass>,
    profiler: Option<Profiler>,
}

/// A forward pass over a batch.
#[derive(Clone, Copy)]
struct ForwardPass {
    forward: Forward,
    batch: usize,
    /// Whether it recorded the pre-activations.
    recorded: bool,
}

impl Executor {
    pub(crate) fn new(
        threads: Arc<ThreadPool>,
        instructions: Instructions,
        subgraph: Subgraph,
        plan: ExecutionPlan,
        timed: bool,
    ) -> Self {
        let scratch = (0..threads.count()).map(|_| Buffer::new(plan.scratch_len.iter().sum())).collect();
        Self {
            threads,
            instructions,
            bf16: false,
            subgraph,
            plan,
            micro_batches: Vec::new(),
            transient: Buffer::new(0),
            capacity: 0,
            scratch,
            shared: Buffer::new(0),
            last: None,
            profiler: timed.then(Profiler::default),
        }
    }

    /// Allocates memory for a batch.
    fn reserve(&mut self, batch: usize) {
        let capacity = batch.min(MICRO_BATCH);
        if capacity > self.capacity {
            self.capacity = capacity;
            self.micro_batches.clear();
            self.shared = Buffer::new(self.plan.shared_len(capacity, self.threads.count()));
            self.transient = Buffer::new(self.plan.transient_len * capacity);
        }
        while self.micro_batches.len() < batch.div_ceil(self.capacity.max(1)) {
            let saved = Buffer::new(self.plan.saved_len * self.capacity);
            self.micro_batches.push(MicroBatch { saved, records: None });
        }
    }

    /// Pointers into the memory of a batch, by micro-batch.
    fn arena_ptrs(&mut self, batch: usize, record: bool) -> Vec<ArenaPtrs> {
        let (capacity, record_len) = (self.capacity, self.plan.record_len);
        let transient = self.transient.values_mut().as_mut_ptr();
        let micro_batches = self.micro_batches.iter_mut().enumerate().take(batch.div_ceil(capacity.max(1)));
        let arenas = |(m, micro_batch): (usize, &mut MicroBatch)| {
            let records = record.then(|| {
                let records = micro_batch.records.get_or_insert_with(|| Buffer::new(record_len * capacity));
                records.values_mut().as_mut_ptr()
            });
            let first = m * capacity;
            let saved = micro_batch.saved.values_mut().as_mut_ptr();
            ArenaPtrs { saved, transient, records, capacity, images: capacity.min(batch - first), first }
        };
        micro_batches.map(arenas).collect()
    }

    fn scratch_ptrs(&mut self) -> Vec<SharedPtr> {
        self.scratch.iter_mut().map(SharedPtr::of).collect()
    }

    /// Runs all forward steps, on `images` or, if None, on the images that are in memory, and writes the values of the
    /// targets to `outputs`.
    fn run_forward(&mut self, pass: ForwardPass, images: Option<&[f32]>, outputs: &mut [Vec<f32>]) {
        let ForwardPass { forward, batch, recorded } = pass;
        let (micro_batches, scratch) = (self.arena_ptrs(batch, recorded), self.scratch_ptrs());
        let shared = SharedPtr::of(&mut self.shared);
        let outputs: Vec<SharedPtr> = outputs.iter_mut().map(|output| SharedPtr(output.as_mut_ptr())).collect();
        let Self { threads, plan, instructions, subgraph, profiler, bf16, .. } = self;
        threads.run(|worker| {
            let (scratch, shared) = (scratch[worker.index()].pointer(), shared.pointer());
            let ctx = ThreadCtx { worker, instructions: *instructions, bf16: *bf16, scratch, shared };
            let mut stopwatch = Profiler::start(profiler.as_ref(), worker, false);
            for arenas in &micro_batches {
                if let Some(images) = images {
                    let image = &plan.values[0];
                    let size = image.layout.elements();
                    let part = &images[arenas.first * size..(arenas.first + arenas.images) * size];
                    let to = arenas.map(image.placement, &image.layout);
                    load(worker, part.as_ptr(), &Selected::all(to, &image.layout));
                    stopwatch.lap(Network::INPUT);
                }
                let runner = StepRunner { plan, ctx: &ctx, arenas };
                for group in &plan.forward_groups {
                    runner.forward_group(group, forward);
                    stopwatch.lap(plan.forward_steps[group.range.end - 1].node);
                }
                for ((&value, target), &output) in plan.targets.iter().zip(&subgraph.targets).zip(&outputs) {
                    let value = &plan.values[value];
                    // SAFETY: the output holds the values of the whole batch.
                    let to = unsafe { output.pointer().add(arenas.first * target.shape.elements()) };
                    let from = arenas.map(value.placement, &value.layout);
                    store(worker, &Selected::of(from, &value.layout, target), to);
                    stopwatch.lap(Network::INPUT);
                }
            }
        });
        self.last = Some(pass);
    }
}

impl Plan for Executor {
    fn forward(&mut self, images: &Tensor, forward: Forward) -> Result<Vec<Tensor>, EngineError> {
        self.subgraph.check_images(images)?;
        let batch = images.dims()[0];
        self.reserve(batch);
        let recorded = self.last.is_some_and(|last| last.recorded);
        let pass = ForwardPass { forward, batch, recorded };
        let zeros = |target: &SubgraphTarget| vec![0.0; batch * target.shape.elements()];
        let mut outputs: Vec<Vec<f32>> = self.subgraph.targets.iter().map(zeros).collect();
        with_values(images, |images| self.run_forward(pass, Some(images), &mut outputs))?;
        let tensor = |(data, target): (Vec<f32>, &SubgraphTarget)| {
            let mut dims = vec![batch];
            dims.extend_from_slice(&target.shape);
            Ok(Tensor::from_vec(data, dims, &Device::Cpu)?)
        };
        outputs.into_iter().zip(&self.subgraph.targets).map(tensor).collect()
    }

    fn backward(&mut self, seeds: &[Tensor], gate: Gate) -> Result<Tensor, EngineError> {
        self.subgraph.check_seeds(seeds, self.last.map_or(0, |last| last.batch))?;
        let Some(last) = self.last else {
            return Err(EngineError::Mismatch("a backward pass needs a forward pass before it".into()));
        };
        let soft = matches!(gate, Gate::Soft { temperature } if temperature > 0.0);
        if soft && !last.recorded {
            // From now on forward passes record; this one is repeated from the images in memory.
            self.run_forward(ForwardPass { recorded: true, ..last }, None, &mut []);
        }
        let seeds = seeds.iter().map(|seed| with_values(seed, <[f32]>::to_vec)).collect::<Result<Vec<_>, _>>()?;
        let size = self.subgraph.input.elements();
        let mut data = vec![0.0; last.batch * size];
        let (micro_batches, scratch) = (self.arena_ptrs(last.batch, soft), self.scratch_ptrs());
        let (to, shared) = (SharedPtr(data.as_mut_ptr()), SharedPtr::of(&mut self.shared));
        let Self { threads, plan, instructions, subgraph, profiler, bf16, .. } = self;
        let seeds: Vec<Seed<'_>> =
            seeds.iter().zip(&subgraph.targets).map(|(values, target)| Seed::new(values, target)).collect();
        threads.run(|worker| {
            let (scratch, shared) = (scratch[worker.index()].pointer(), shared.pointer());
            let ctx = ThreadCtx { worker, instructions: *instructions, bf16: *bf16, scratch, shared };
            let mut stopwatch = Profiler::start(profiler.as_ref(), worker, true);
            // The micro-batch that ran last in the forward pass has left the most in the cache.
            for arenas in micro_batches.iter().rev() {
                let runner = StepRunner { plan, ctx: &ctx, arenas };
                for group in &plan.backward_groups {
                    runner.backward_group(group, &seeds, gate);
                    stopwatch.lap(runner.node_of(&plan.backward_steps[group.range.end - 1]));
                }
                if let Some(gradient) = plan.gradient {
                    // SAFETY: the gradient holds the values of the whole batch.
                    let to = unsafe { to.pointer().add(arenas.first * size) };
                    let layout = &plan.values[0].layout;
                    store(worker, &Selected::all(arenas.map(gradient, layout), layout), to);
                    stopwatch.lap(Network::INPUT);
                }
            }
        });
        self.last = Some(ForwardPass { recorded: soft, ..last });
        let mut dims = vec![last.batch];
        dims.extend_from_slice(&self.subgraph.input);
        Ok(Tensor::from_vec(data, dims, &Device::Cpu)?)
    }

    fn allow_reduced_precision(&mut self, allow: bool) {
        self.bf16 = allow;
    }

    fn set_scales(&mut self, scales: &BTreeMap<NodeId, f32>) {
        self.plan.set_scales(scales);
    }

    fn held_bytes(&self) -> Option<u64> {
        let buffers = self.scratch.iter().chain([&self.transient, &self.shared]);
        let buffers: usize = buffers.map(|buffer| size_of_val(buffer.values())).sum();
        let micro_batches: usize = self.micro_batches.iter().map(MicroBatch::held_bytes).sum();
        Some((self.plan.weight_bytes + buffers + micro_batches) as u64)
    }

    fn take_times(&mut self) -> Vec<StepTime> {
        self.profiler.as_mut().map(Profiler::take).unwrap_or_default()
    }
}
