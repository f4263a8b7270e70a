//! Passes over a trainable network: all nodes one after another over the whole batch, with all threads on each.
#![expect(unsafe_code, reason = "maps of the plan's own memory")]

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::engine::cpu::Cpu;
use crate::engine::cpu::buffer::{Buffer, SharedPtr};
use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::exec::tensor_io::{Selected, load, store};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, ForwardArgs, Kernel, KernelConfig, ThreadCtx};
use crate::engine::cpu::layout::Layout;
use crate::engine::cpu::training::batch_norm::NormPass;
use crate::engine::cpu::training::channel_sums::{Summand, channel_sums, partial_len};
use crate::engine::cpu::training::steps::{NormStep, Step, lower_with, steps};
use crate::engine::cpu::training::surrogate::{Slope, backward as gate_backward, gate, rectify};
use crate::engine::training::{Gradients, Mode, Surrogate, TrainingEngine, TrainingPlan, batch_size};
use crate::engine::{EngineError, Forward};
use crate::network::Array;
use crate::network::trainable::{Parameters, TensorId, TrainableNetwork, TrainableNode, TrainableOp};

impl TrainingEngine for Cpu {
    fn training_plan(&self, network: &TrainableNetwork) -> Result<Box<dyn TrainingPlan>, EngineError> {
        Ok(Box::new(CpuTraining::new(self.clone(), network)?))
    }
}

/// A trainable network with the memory of its passes.
struct CpuTraining {
    engine: Cpu,
    network: TrainableNetwork,
    /// Layouts of the nodes' outputs: feature maps are channels-last.
    layouts: Vec<Layout>,
    steps: Vec<Step>,
    /// Which nodes need the gradient of their output.
    needs_gradient: Vec<bool>,
    /// Images that the memory is for.
    capacity: usize,
    memory: Memory,
    /// Images of the last forward pass, and whether it was one of training.
    last: Option<(usize, bool)>,
    norms: Vec<Option<NormPass>>,
}

/// Memory of the passes over one batch size.
#[derive(Default)]
struct Memory {
    values: Vec<Buffer>,
    gradients: Vec<Option<Buffer>>,
    /// What kernels save for the backward pass.
    saved: Vec<Option<Buffer>>,
    scratch: Vec<Buffer>,
    shared: Option<Buffer>,
    partial: Option<Buffer>,
}

/// A result of one worker for the caller.
type Slot<T> = Mutex<Option<T>>;

fn put<T>(slot: &Slot<T>, value: T) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
}

fn take<T>(slot: Slot<T>) -> Option<T> {
    slot.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A node's output, as maps of `images` images.
fn map_of(data: *mut f32, layout: &Layout, images: usize) -> FeatureMap {
    let ([height, width], channels) = (layout.size(), layout.pixel_len());
    FeatureMap { data, images, height, width, channels, pixel_stride: channels }
}

/// A batch of vectors as one row of pixels.
fn as_row(map: FeatureMap) -> FeatureMap {
    FeatureMap { images: 1, height: 1, width: map.pixels(), ..map }
}

/// Some images of a dense map.
fn images_of(map: &FeatureMap, images: &Range<usize>) -> FeatureMap {
    FeatureMap { data: map.at(images.start * map.size()), images: images.len(), ..*map }
}

/// Where a kernel saves values of the images from `first` on.
fn saved_of(saved: Option<SharedPtr>, kernel: &dyn Kernel, first: usize) -> Option<*mut f32> {
    saved.map(|saved| saved.pointer().wrapping_add(first * kernel.saved_len()))
}

impl CpuTraining {
    fn new(engine: Cpu, network: &TrainableNetwork) -> Result<Self, EngineError> {
        // Weights change in every step: they are not packed a second time.
        let engine = Cpu { config: KernelConfig { bf16: false, ..engine.config }, ..engine };
        let nodes = network.nodes();
        let layouts: Vec<Layout> = nodes.iter().map(|node| Layout::channels_last(node.shape.clone())).collect();
        let steps = steps(network, &layouts, engine.config)?;
        // Neither the gradient of the images nor that of maps below which everything is frozen is needed.
        let mut needs_gradient = vec![false; nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            let reads = node.inputs.iter().any(|&input| needs_gradient[input]);
            let trains = node.op.tensors().iter().any(|&id| network.tensors()[id].is_trained());
            needs_gradient[index] = reads || trains;
        }
        Ok(Self {
            engine,
            network: network.clone(),
            layouts,
            steps,
            needs_gradient,
            capacity: 0,
            memory: Memory::default(),
            last: None,
            norms: Vec::new(),
        })
    }

    /// Builds the kernels that depend on weights.
    fn build_kernels(&mut self, parameters: &Parameters) -> Result<(), EngineError> {
        let Self { engine, network, layouts, steps, .. } = self;
        let nodes = network.nodes();
        let weighted = steps.iter().enumerate().filter(|(_, step)| matches!(step, Step::Weighted { .. }));
        let weighted: Vec<usize> = weighted.map(|(index, _)| index).collect();
        let build = |index: usize| -> Result<_, EngineError> {
            let node = &nodes[index];
            let array = |id: TensorId| -> Result<Array, EngineError> {
                parameters.array(network, id).map_err(|why| EngineError::Mismatch(why.to_string()))
            };
            let inputs: Vec<&Layout> = node.inputs.iter().map(|&input| &layouts[input]).collect();
            lower_with(&node.op.with_values(array)?, &inputs, &layouts[index], engine.config)
        };
        let built: Vec<Slot<Result<_, EngineError>>> = weighted.iter().map(|_| Mutex::new(None)).collect();
        engine.threads.run(|worker| worker.for_each_piece(weighted.len(), |i| put(&built[i], build(weighted[i]))));
        for (&index, slot) in weighted.iter().zip(built) {
            if let (Step::Weighted { kernel, .. }, Some(built)) = (&mut steps[index], take(slot)) {
                *kernel = built?;
            }
        }
        Ok(())
    }

    /// Allocates memory for a batch.
    fn reserve(&mut self, images: usize) {
        let nodes = self.network.nodes();
        let threads = self.engine.threads.count();
        let kernels = || self.steps.iter().zip(nodes).filter_map(|(step, node)| Some((step.kernel()?, node)));
        let scratch = kernels().map(|(kernel, _)| kernel.scratch_len()).max().unwrap_or(0);
        let shared = self.steps.iter().zip(nodes).zip(&self.layouts).filter_map(|((step, node), layout)| {
            let input = node.inputs.first().map_or([1, 1], |&input| self.layouts[input].size());
            Some(step.kernel()?.shared_len(images, [input, layout.size()], threads))
        });
        // Fewer images may need more, where the threads then divide the work in another way.
        let shared = shared.max().unwrap_or(0);
        if images > self.capacity {
            let value = |(step, node): (&Step, &TrainableNode)| {
                Buffer::new(if matches!(step, Step::Fused) { 0 } else { images * node.shape.elements() })
            };
            self.memory.values = self.steps.iter().zip(nodes).map(value).collect();
            self.memory.gradients = nodes.iter().map(|_| None).collect();
            let saved = |step: &Step| {
                let len = step.kernel().map_or(0, Kernel::saved_len);
                (len > 0).then(|| Buffer::new(images * len))
            };
            self.memory.saved = self.steps.iter().map(saved).collect();
            let widest = self.layouts.iter().map(Layout::pixel_len).max().unwrap_or(0);
            self.memory.partial = Some(Buffer::new(partial_len(images, widest)));
            self.capacity = images;
        }
        if self.memory.shared.as_ref().is_none_or(|buffer| buffer.values().len() < shared) {
            self.memory.shared = Some(Buffer::new(shared));
        }
        if self.memory.scratch.len() != threads || self.memory.scratch.iter().any(|b| b.values().len() < scratch) {
            self.memory.scratch = (0..threads).map(|_| Buffer::new(scratch)).collect();
        }
    }

    /// Output of a node, in channels-last order.
    fn map(&mut self, node: usize, images: usize) -> FeatureMap {
        map_of(self.memory.values[node].values_mut().as_mut_ptr(), &self.layouts[node], images)
    }
}

impl TrainingPlan for CpuTraining {
    fn forward(
        &mut self,
        images: &[f32],
        parameters: &mut Parameters,
        mode: Mode,
        forward: Forward,
    ) -> Result<Vec<f64>, EngineError> {
        let batch = batch_size(&self.network, images)?;
        self.last = None;
        self.build_kernels(parameters)?;
        self.reserve(batch);
        let count = self.network.nodes().len();
        let maps: Vec<FeatureMap> = (0..count).map(|node| self.map(node, batch)).collect();
        let saved: Vec<Option<SharedPtr>> =
            self.memory.saved.iter_mut().map(|saved| saved.as_mut().map(SharedPtr::of)).collect();
        let scratch: Vec<SharedPtr> = self.memory.scratch.iter_mut().map(SharedPtr::of).collect();
        let shared = self.memory.shared.as_mut().map(SharedPtr::of);
        let partial = self.memory.partial.as_mut().map(SharedPtr::of);
        let norms: Vec<Slot<NormPass>> = (0..count).map(|_| Mutex::new(None)).collect();
        let (Self { engine, network, layouts, steps, .. }, read) = (&*self, &*parameters);
        let (Some(shared), Some(partial)) = (shared, partial) else { return Ok(Vec::new()) };
        engine.threads.run(|worker| {
            let (scratch, shared) = (scratch[worker.index()].pointer(), shared.pointer());
            let ctx = ThreadCtx { worker, instructions: engine.instructions, bf16: false, scratch, shared };
            for (index, (step, node)) in steps.iter().zip(network.nodes()).enumerate() {
                let to = maps[index];
                let inputs: Vec<FeatureMap> = step.reads(node).into_iter().map(|input| maps[input]).collect();
                match step {
                    Step::Fused => {}
                    Step::Input => load(worker, images.as_ptr(), &Selected::all(to, &layouts[index])),
                    Step::Fixed(_) | Step::Weighted { .. } => {
                        let Some(kernel) = step.kernel() else { continue };
                        for part in step.parts(batch) {
                            let inputs: Vec<FeatureMap> = inputs.iter().map(|map| images_of(map, &part)).collect();
                            let saved = saved_of(saved[index], kernel, part.start);
                            let args = ForwardArgs { inputs: &inputs, saved, forward };
                            let epilogue = Epilogue::store_only(images_of(&to, &part));
                            kernel.forward(&ctx, &args, &Epilogue { bias: kernel.bias(), ..epilogue });
                        }
                    }
                    // SAFETY: maps of this plan have the shapes of their nodes; this step is their only user.
                    Step::Rectifier(leak) => unsafe { rectify(&ctx, inputs[0], to, rectified_leak(*leak, forward)) },
                    Step::Norm(step) => {
                        // SAFETY: as above.
                        let pass = unsafe { NormPass::new(&ctx, &step.norm, inputs[0], read, mode, partial) };
                        let leak = step.leak.map(|leak| rectified_leak(leak, forward));
                        // SAFETY: as above.
                        unsafe { pass.apply(inputs[0], inputs.get(1).copied()).write(&ctx, to, leak) };
                        if worker.index() == 0 {
                            put(&norms[index], pass);
                        }
                    }
                }
            }
        });
        self.norms = norms.into_iter().map(take).collect();
        if mode == (Mode::Training { update: true }) {
            self.update_running(parameters, batch);
        }
        self.last = Some((batch, matches!(mode, Mode::Training { .. })));
        let logits = self.memory.values.last().map_or(&[][..], Buffer::values);
        Ok(logits[..batch * self.network.classes()].iter().map(|&value| f64::from(value)).collect())
    }

    fn backward(&mut self, seeds: &[f32], surrogate: Surrogate) -> Result<Gradients, EngineError> {
        let classes = self.network.classes();
        let Some((batch, true)) = self.last.filter(|(batch, _)| batch * classes == seeds.len()) else {
            let why = format!("a backward pass needs a forward pass of training and {classes} seeds for each image");
            return Err(EngineError::Mismatch(why));
        };
        let count = self.network.nodes().len();
        let maps: Vec<FeatureMap> = (0..count).map(|node| self.map(node, batch)).collect();
        for node in 0..count {
            let kept = self.needs_gradient[node] && !matches!(self.steps[node], Step::Fused);
            if kept && self.memory.gradients[node].is_none() {
                let len = self.capacity * self.network.nodes()[node].shape.elements();
                self.memory.gradients[node] = Some(Buffer::new(len));
            }
        }
        let nodes = self.network.nodes();
        let gradient_maps = self.memory.gradients.iter_mut().zip(&self.layouts).map(|(buffer, layout)| {
            buffer.as_mut().map(|buffer| map_of(buffer.values_mut().as_mut_ptr(), layout, batch))
        });
        let gradient_maps: Vec<Option<FeatureMap>> = gradient_maps.collect();
        if let Some(Some(last)) = self.memory.gradients.last_mut() {
            last.values_mut()[..seeds.len()].copy_from_slice(seeds);
        }
        let saved: Vec<Option<SharedPtr>> =
            self.memory.saved.iter_mut().map(|saved| saved.as_mut().map(SharedPtr::of)).collect();
        let scratch: Vec<SharedPtr> = self.memory.scratch.iter_mut().map(SharedPtr::of).collect();
        let shared = self.memory.shared.as_mut().map(SharedPtr::of);
        let partial = self.memory.partial.as_mut().map(SharedPtr::of);
        let (Some(shared), Some(partial)) = (shared, partial) else { return Ok(Vec::new()) };
        let weight_len = |step: &Step| match step {
            Step::Weighted { gradient: Some(gradient), .. } => gradient.len(),
            _ => 0,
        };
        let mut weight_buffers: Vec<Buffer> = self.steps.iter().map(|step| Buffer::new(weight_len(step))).collect();
        let weight_ptrs: Vec<SharedPtr> = weight_buffers.iter_mut().map(SharedPtr::of).collect();
        let results: Vec<Slot<Vec<f32>>> = self.network.tensors().iter().map(|_| Mutex::new(None)).collect();
        let Self { engine, steps, norms, .. } = &*self;
        engine.threads.run(|worker| {
            let (scratch, shared) = (scratch[worker.index()].pointer(), shared.pointer());
            let ctx = ThreadCtx { worker, instructions: engine.instructions, bf16: false, scratch, shared };
            let result = |id: TensorId, values: Vec<f32>| {
                if worker.index() == 0 {
                    put(&results[id], values);
                }
            };
            let mut filled = vec![false; count];
            filled[count - 1] = true;
            for (index, (step, node)) in steps.iter().zip(nodes).enumerate().rev() {
                let (Some(g), true) = (gradient_maps[index], filled[index]) else { continue };
                // The gradient of an input, and whether there is one already, to which this one is added.
                let mut target =
                    |input: usize| gradient_maps[input].map(|to| (to, std::mem::replace(&mut filled[input], true)));
                if let Step::Norm(step) = step {
                    let Some(pass) = &norms[index] else { continue };
                    let normalized = pass.apply(maps[step.input], step.residual.map(|residual| maps[residual]));
                    let slope = step.leak.map(|leak| Slope::of(surrogate, leak));
                    let targets = [target(step.input), step.residual.and_then(&mut target)];
                    // SAFETY: maps of this plan have the shapes of their nodes; this step is the only user of its own.
                    let gradients = unsafe { pass.backward(&ctx, normalized, g, slope, targets, partial) };
                    result(step.norm.scale, gradients.scale);
                    result(step.norm.shift, gradients.shift);
                    continue;
                }
                let Some(&first) = node.inputs.first() else { continue };
                let pair = [maps[first], g];
                // SAFETY: as above.
                unsafe { weight_gradients(&ctx, step, node, pair, weight_ptrs[index], partial, &result) };
                for (position, &input) in node.inputs.iter().enumerate() {
                    let Some((to, add)) = target(input) else { continue };
                    // SAFETY: as above.
                    unsafe {
                        match step {
                            Step::Fixed(_) | Step::Weighted { .. } => {
                                let Some(kernel) = step.kernel() else { continue };
                                for part in step.parts(batch) {
                                    let input = |&input: &usize| images_of(&maps[input], &part);
                                    let inputs: Vec<FeatureMap> = node.inputs.iter().map(input).collect();
                                    let args = BackwardArgs {
                                        inputs: &inputs,
                                        output: images_of(&maps[index], &part),
                                        saved: saved_of(saved[index], kernel, part.start),
                                        gradient: images_of(&g, &part),
                                        gate: gate(surrogate),
                                    };
                                    let to = images_of(&to, &part);
                                    let epilogue = Epilogue { addend: add.then_some(to), ..Epilogue::store_only(to) };
                                    kernel.backward(&ctx, position, &args, &epilogue);
                                }
                            }
                            Step::Rectifier(leak) => {
                                gate_backward(&ctx, [maps[input], g, to], Slope::of(surrogate, *leak), add);
                            }
                            Step::Input | Step::Norm(_) | Step::Fused => {}
                        }
                    }
                }
            }
            worker.for_each_piece(count, |index| {
                let Step::Weighted { gradient: Some(gradient), .. } = &steps[index] else { return };
                let Some(&weight) = nodes[index].op.tensors().first() else { return };
                // SAFETY: the gradient was computed before the last barrier, and nothing writes it any more.
                let values = unsafe { std::slice::from_raw_parts(weight_ptrs[index].pointer(), gradient.len()) };
                put(&results[weight], gradient.in_weight_order(values));
            });
        });
        Ok(results.into_iter().map(|slot| take(slot).unwrap_or_default()).collect())
    }

    fn value(&self, node: usize) -> Result<Vec<f32>, EngineError> {
        let (Some((batch, _)), Some(buffer)) = (self.last, self.memory.values.get(node)) else {
            return Err(EngineError::Mismatch("there was no forward pass".into()));
        };
        if matches!(self.steps[node], Step::Fused) {
            let name = &self.network.nodes()[node].name;
            return Err(EngineError::Mismatch(format!("{name} is computed together with the rectifier after it")));
        }
        let layout = &self.layouts[node];
        let map = map_of(buffer.values().as_ptr().cast_mut(), layout, batch);
        let mut values = vec![0.0; batch * layout.elements()];
        let to = SharedPtr(values.as_mut_ptr());
        self.engine.threads.run(|worker| store(worker, &Selected::all(map, layout), to.pointer()));
        Ok(values)
    }
}

impl CpuTraining {
    /// Moves the running statistics towards those of the batch.
    fn update_running(&self, parameters: &mut Parameters, batch: usize) {
        for ((node, step), pass) in self.network.nodes().iter().zip(&self.steps).zip(&self.norms) {
            let (Step::Norm(NormStep { norm, .. }), Some(pass)) = (step, pass) else { continue };
            let pixels = node.shape.elements() / node.shape.channels().max(1);
            let count = (batch * pixels) as f64;
            let unbiased = (count / (count - 1.0).max(1.0)) as f32;
            for (id, batch, factor) in
                [(norm.mean, &pass.statistics.mean, 1.0), (norm.variance, &pass.statistics.variance, unbiased)]
            {
                for (running, value) in parameters.get_mut(id).iter_mut().zip(batch) {
                    *running += norm.momentum * (value * factor - *running);
                }
            }
        }
    }
}

/// The slope below 0 of a rectifier in a forward pass.
fn rectified_leak(leak: f32, forward: Forward) -> f32 {
    match forward {
        Forward::Original => leak,
        Forward::Proxy { slope } => slope.max(leak),
    }
}

/// Gradients of the tensors of a node, except those of a batch normalization. `maps` are the node's input and the
/// gradient of its output.
///
/// # Safety
/// The maps are dense and only read; `weights` has room for the gradient of the node's weights.
unsafe fn weight_gradients(
    ctx: &ThreadCtx<'_>,
    step: &Step,
    node: &TrainableNode,
    [x, g]: [FeatureMap; 2],
    weights: SharedPtr,
    partial: SharedPtr,
    result: &dyn Fn(TensorId, Vec<f32>),
) {
    let to_f32 = |sums: Vec<f64>| sums.into_iter().map(|sum| sum as f32).collect::<Vec<f32>>();
    // SAFETY: the caller's.
    unsafe {
        match (&node.op, step) {
            (TrainableOp::Conv { bias, .. }, Step::Weighted { gradient: Some(gradient), .. }) => {
                gradient.run(ctx, x, g, weights);
                if let Some(bias) = bias {
                    let [sums, _] = channel_sums(ctx, Summand::Values { g }, partial);
                    result(*bias, to_f32(sums));
                }
            }
            (TrainableOp::Dense { bias, .. }, Step::Weighted { gradient: Some(gradient), .. }) => {
                gradient.run(ctx, as_row(x), as_row(g), weights);
                if let Some(bias) = bias {
                    let [sums, _] = channel_sums(ctx, Summand::Values { g: as_row(g) }, partial);
                    result(*bias, to_f32(sums));
                }
            }
            (TrainableOp::Affine { scale, shift }, _) => {
                let zeros = vec![0.0; g.channels];
                let [sums, products] = channel_sums(ctx, Summand::Products { g, x, shift: &zeros }, partial);
                result(*scale, to_f32(products));
                result(*shift, to_f32(sums));
            }
            _ => {}
        }
    }
}
