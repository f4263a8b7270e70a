//! A plan at work: memory for its images, the walk forward and the walk back.
#![expect(unsafe_code, reason = "maps of the plan's own memory")]

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

use super::activation::{is_alive, redirect};
use super::bands::{Chain, Stage};
use super::clock::Clock;
use super::elementwise::{Copied, for_each_vector};
use super::finish::{Finish, Gated, Knees};
use super::map::{Buffer, Map, Shared};
use super::program::{Memory, Place, Program, Sink, Task, Value, pixel};
use super::sides::Sides;
use super::simd::Instructions;
use super::team::{Member, Threads};
use super::{Ahead, Back, GROUP, Heading, Site};
use crate::engine::subgraph::{Subgraph, SubgraphTarget};
use crate::engine::{EngineError, Forward, Gate, Plan, StepTime};
use crate::network::{Network, NodeId, Shape};

/// A network prepared for some targets and one input size.
pub(super) struct CpuPlan {
    threads: Arc<Threads>,
    instructions: Instructions,
    subgraph: Subgraph,
    program: Program,
    groups: Vec<Group>,
    /// See [`Memory::Passing`].
    passing: Buffer,
    /// Images that each group has memory for.
    capacity: usize,
    /// One for each thread, see [`Program::scratch`].
    scratch: Vec<Buffer>,
    shared: Buffer,
    /// The last forward pass, when there was one.
    last: Option<Last>,
    clock: Option<Clock>,
}

/// Memory of up to [`GROUP`] images.
struct Group {
    /// See [`Memory::Kept`].
    kept: Buffer,
    /// Pre-activations; only the soft gate looks at them.
    records: Option<Buffer>,
}

#[derive(Clone, Copy)]
struct Last {
    forward: Forward,
    batch: usize,
    recorded: bool,
}

/// Pointers into the memory of a group, for all threads of a pass.
#[derive(Clone, Copy)]
struct Base {
    kept: *mut f32,
    passing: *mut f32,
    records: Option<*mut f32>,
    capacity: usize,
    images: usize,
    /// Images before this group's.
    first: usize,
}

// SAFETY: the pass that makes the pointers ends before the memory's owner goes on, and steps write disjoint pieces.
unsafe impl Sync for Base {}

impl Base {
    fn map(&self, place: Place, shape: &Shape) -> Map {
        let memory = match place.memory {
            Memory::Kept => self.kept,
            Memory::Passing => self.passing,
        };
        self.map_in(memory, place, shape)
    }

    fn map_in(&self, memory: *mut f32, place: Place, shape: &Shape) -> Map {
        let [channels, height, width] = shape.feature_map().unwrap_or([shape.elements(), 1, 1]);
        // SAFETY: places of the program lie in the memory that was allocated for `capacity` images.
        let data = unsafe { memory.add(place.offset * self.capacity + place.first) };
        Map { data, images: self.images, height, width, channels, pixel: place.pixel }
    }

    /// Which sides of its activation's knees a value lay on.
    fn sides(&self, value: &Value, knees: &Knees) -> Sides {
        // SAFETY: the program has room for the sides of `capacity` images there.
        let data = unsafe { self.kept.add(value.sides * self.capacity).cast::<u8>() };
        Sides::new(data, value.place.pixel, knees).slice(value.place.first)
    }

    /// The pre-activations that a value comes from, when they are recorded.
    fn record(&self, value: &Value) -> Option<Map> {
        let place = Place { offset: value.record, ..value.place };
        self.records.map(|records| self.map_in(records, place, &value.shape))
    }
}

impl CpuPlan {
    pub(super) fn new(
        threads: Arc<Threads>,
        instructions: Instructions,
        subgraph: Subgraph,
        program: Program,
        timed: bool,
    ) -> Self {
        let scratch = (0..threads.count()).map(|_| Buffer::new(program.scratch.iter().sum())).collect();
        Self {
            threads,
            instructions,
            subgraph,
            program,
            groups: Vec::new(),
            passing: Buffer::new(0),
            capacity: 0,
            scratch,
            shared: Buffer::new(0),
            last: None,
            clock: timed.then(Clock::default),
        }
    }

    /// Makes room for a batch.
    fn reserve(&mut self, batch: usize) {
        let capacity = batch.min(GROUP);
        if capacity > self.capacity {
            self.capacity = capacity;
            self.groups.clear();
            self.shared = Buffer::new(self.program.shared(capacity, self.threads.count()));
            self.passing = Buffer::new(self.program.passing * capacity);
        }
        while self.groups.len() < batch.div_ceil(self.capacity.max(1)) {
            let kept = Buffer::new(self.program.kept * self.capacity);
            self.groups.push(Group { kept, records: None });
        }
    }

    /// The groups of a batch.
    fn bases(&mut self, batch: usize, record: bool) -> Vec<Base> {
        let (capacity, length) = (self.capacity, self.program.records);
        let passing = self.passing.values_mut().as_mut_ptr();
        let groups = self.groups.iter_mut().enumerate().take(batch.div_ceil(capacity.max(1)));
        let base = |(g, group): (usize, &mut Group)| {
            let records = record.then(|| {
                let records = group.records.get_or_insert_with(|| Buffer::new(length * capacity));
                records.values_mut().as_mut_ptr()
            });
            let first = g * capacity;
            let kept = group.kept.values_mut().as_mut_ptr();
            Base { kept, passing, records, capacity, images: capacity.min(batch - first), first }
        };
        groups.map(base).collect()
    }

    fn scratch(&mut self) -> Vec<Shared> {
        self.scratch.iter_mut().map(Shared::of).collect()
    }

    /// Runs all steps on the images that are in memory, or on `images` when they are given, and hands the targets'
    /// values to `outputs`.
    fn walk(&mut self, batch: usize, forward: Forward, record: bool, images: Option<&[f32]>, outputs: &mut [Vec<f32>]) {
        let (bases, scratch) = (self.bases(batch, record), self.scratch());
        let shared = Shared::of(&mut self.shared);
        let outputs: Vec<Shared> = outputs.iter_mut().map(|output| Shared(output.as_mut_ptr())).collect();
        let Self { threads, program, instructions, subgraph, clock, .. } = self;
        threads.run(|member| {
            let (scratch, shared) = (scratch[member.index()].pointer(), shared.pointer());
            let site = Site { member, instructions: *instructions, scratch, shared };
            let mut laps = Clock::laps(clock.as_ref(), member, false);
            for base in &bases {
                if let Some(images) = images {
                    let image = &program.values[0];
                    let size = image.shape.elements();
                    let part = &images[base.first * size..(base.first + base.images) * size];
                    let to = base.map(image.place, &image.shape);
                    load(member, part.as_ptr(), Picked::all(to), to);
                    laps.lap(Network::INPUT);
                }
                for chain in &program.ahead {
                    program.walk(chain, &site, base, forward);
                    laps.lap(program.steps[chain.range.end - 1].node);
                }
                for ((&value, target), &output) in program.targets.iter().zip(&subgraph.targets).zip(&outputs) {
                    let value = &program.values[value];
                    // SAFETY: the output holds the values of the whole batch.
                    let to = unsafe { output.pointer().add(base.first * target.shape.elements()) };
                    store(member, base.map(value.place, &value.shape), Picked::of(target), to);
                    laps.lap(Network::INPUT);
                }
            }
        });
        self.last = Some(Last { forward, batch, recorded: record });
    }
}

impl Program {
    /// Steps that are walked together.
    fn walk(&self, chain: &Chain, site: &Site<'_>, base: &Base, forward: Forward) {
        let Some(bands) = &chain.bands else {
            return chain.range.clone().for_each(|s| self.forward(s, site, base, forward));
        };
        let stage = |s: usize| {
            let pass = self.steps[s].kernel.as_ref()?.bands(Heading::Forward)?;
            Some(Stage { pass, memory: self.memory(s, base), finish: self.finish(s, base, forward) })
        };
        let stages: Vec<Stage<'_>> = chain.range.clone().filter_map(stage).collect();
        let source = self.map(self.steps[chain.range.start].inputs[0], base);
        bands.walk(site, source, &stages, self.buffers(site), false);
    }

    /// Tasks that are walked together.
    fn walk_back(&self, chain: &Chain, site: &Site<'_>, base: &Base, seeds: &[Seed<'_>], gate: Gate) {
        let tasks = &self.tasks[chain.range.clone()];
        let one_by_one = || tasks.iter().for_each(|task| self.backward(task, site, base, seeds, gate));
        let (Some(bands), Some(Task::Kernel { gradient, step, .. })) = (&chain.bands, tasks.first()) else {
            return one_by_one();
        };
        let looks = gate == Gate::Redirect;
        let last = tasks.last().map(Task::sink);
        if looks && last.is_some_and(|sink| sink.add == Some(sink.to)) {
            return one_by_one();
        }
        if looks {
            site.member.each(1, |_| bands.forget());
        }
        let stage = |task: &Task| {
            let Task::Kernel { step, sink, .. } = task else { return None };
            let pass = self.steps[*step].kernel.as_ref()?.bands(Heading::Backward)?;
            let finish = self.sink(sink, base, if looks { Gate::Plain } else { gate });
            Some(Stage { pass, memory: self.memory(*step, base), finish })
        };
        let stages: Vec<Stage<'_>> = tasks.iter().filter_map(stage).collect();
        let source = base.map(*gradient, &self.values[step + 1].shape);
        bands.walk(site, source, &stages, self.buffers(site), looks);
        // Hardly a layer is dead: the plain gate first, and again step by step if one was.
        let alive = |sink: &Sink| self.parts(sink, base).into_iter().all(|(_, to)| is_alive(to));
        if looks && !(bands.were_alive(base.images) && last.is_none_or(alive)) {
            // Everybody has looked.
            site.member.each(0, |_| ());
            one_by_one();
        }
    }

    /// This thread's memory for the maps of a chain.
    fn buffers(&self, site: &Site<'_>) -> *mut f32 {
        // SAFETY: the plan's scratch memory has room for both.
        unsafe { site.scratch.add(self.scratch[0]) }
    }

    fn map(&self, value: usize, base: &Base) -> Map {
        base.map(self.values[value].place, &self.values[value].shape)
    }

    fn forward(&self, s: usize, site: &Site<'_>, base: &Base, forward: Forward) {
        let step = &self.steps[s];
        let Some(kernel) = &step.kernel else { return };
        let inputs: Vec<Map> = step.inputs.iter().map(|&input| self.map(input, base)).collect();
        let ahead = Ahead { inputs: &inputs, memory: self.memory(s, base), forward };
        kernel.forward(site, &ahead, &self.finish(s, base, forward));
    }

    /// What happens to a step's sums.
    fn finish(&self, s: usize, base: &Base, forward: Forward) -> Finish<'_> {
        let step = &self.steps[s];
        let value = &self.values[s + 1];
        let knees = step.knees.map(|knees| match forward {
            Forward::Original => knees,
            Forward::Proxy { slope } => Knees { leak: knees.leak.max(slope), ..knees },
        });
        // A value without knees although its step has some depends on no image.
        let record = value.knees.and_then(|_| base.record(value));
        let sides = value.knees.map(|knees| base.sides(value, &knees));
        let bias = step.kernel.as_ref().and_then(|kernel| kernel.bias());
        let add = step.residual.map(|residual| self.map(residual, base));
        Finish { bias, add, knees, record, sides, ..Finish::plain(self.map(s + 1, base)) }
    }

    /// The node whose step a task belongs to.
    fn node_of(&self, task: &Task) -> NodeId {
        match task {
            Task::Kernel { step, .. } => self.steps[*step].node,
            Task::Seed { sink, .. } | Task::Pass { sink, .. } => self.values[sink.value].node,
        }
    }

    /// What a step's kernel remembers.
    fn memory(&self, s: usize, base: &Base) -> Option<*mut f32> {
        // SAFETY: the place lies in the group's memory.
        self.steps[s].memory.map(|offset| unsafe { base.kept.add(offset * base.capacity) })
    }

    fn backward(&self, task: &Task, site: &Site<'_>, base: &Base, seeds: &[Seed<'_>], gate: Gate) {
        let sink = task.sink();
        let value = &self.values[sink.value];
        let knees = value.knees.filter(|_| sink.complete && gate == Gate::Redirect);
        let Some(knees) = knees else {
            return self.contribute(task, site, base, seeds, [gate; 2]);
        };
        let parts = self.parts(sink, base);
        // Hardly a layer is dead: the plain gate first, and again without one if it was.
        if !matches!(task, Task::Seed { .. }) && sink.add != Some(sink.to) {
            self.contribute(task, site, base, seeds, [gate, Gate::Plain]);
            if parts.iter().all(|&(_, to)| is_alive(to)) {
                return;
            }
            // Everybody has looked.
            site.member.each(0, |_| ());
        }
        self.contribute(task, site, base, seeds, [gate; 2]);
        for (sides, to) in parts {
            redirect(site, knees.leak, sides, to);
        }
    }

    /// Sides and gradients of the activations of a sink: each of several that were joined decides for itself.
    fn parts(&self, sink: &Sink, base: &Base) -> Vec<(Sides, Map)> {
        let value = &self.values[sink.value];
        let own = [sink.value];
        let parts = if value.parts.is_empty() { own.as_slice() } else { value.parts.as_slice() };
        let part = |&part: &usize| {
            let part = &self.values[part];
            let sides = base.sides(part, part.knees.as_ref()?);
            let (first, channels) = (part.place.first - value.place.first, pixel(&part.shape));
            // SAFETY: a part's channels lie in the whole's.
            let to = unsafe { base.map(sink.to, &value.shape).slice(first, channels) };
            Some((sides, to))
        };
        parts.iter().filter_map(part).collect()
    }

    /// One contribution under two gates: that of activations that stand on their own, and that of the sink.
    fn contribute(&self, task: &Task, site: &Site<'_>, base: &Base, seeds: &[Seed<'_>], [gate, fused]: [Gate; 2]) {
        let sink = task.sink();
        let value = &self.values[sink.value];
        let finish = self.sink(sink, base, fused);
        match task {
            Task::Seed { target, .. } => {
                self.seed(site, seeds[*target].of(base), sink, base, &finish);
            }
            Task::Kernel { step, input, gradient, .. } => {
                let Some(kernel) = &self.steps[*step].kernel else { return };
                let inputs: Vec<Map> = self.steps[*step].inputs.iter().map(|&input| self.map(input, base)).collect();
                let back = Back {
                    inputs: &inputs,
                    output: self.map(step + 1, base),
                    memory: self.memory(*step, base),
                    gradient: base.map(*gradient, &self.values[step + 1].shape),
                    gate: gate.at_scale(self.steps[*step].scale),
                };
                kernel.backward(site, *input, &back, &finish);
            }
            Task::Pass { gradient, .. } => {
                let from = base.map(*gradient, &value.shape);
                // SAFETY: both maps have the value's shape.
                unsafe { for_each_vector(site, &finish, Copied(from)) };
            }
        }
    }

    /// What happens to a contribution.
    fn sink(&self, sink: &Sink, base: &Base, gate: Gate) -> Finish<'_> {
        let shape = &self.values[sink.value].shape;
        let add = sink.add.map(|add| base.map(add, shape));
        Finish { add, gate: self.gate(sink, base, gate), ..Finish::plain(base.map(sink.to, shape)) }
    }

    /// Brings a seed into memory order, adds what is there already, and gates the sum.
    fn seed(&self, site: &Site<'_>, seed: Seed<'_>, sink: &Sink, base: &Base, finish: &Finish<'_>) {
        let member = site.member;
        let value = &self.values[sink.value];
        let to = finish.to;
        match sink.add {
            // A second target with the same value.
            Some(_) => member.each(1, |_| {
                let size = to.size();
                for (image, c) in (0..to.images).flat_map(|image| (0..to.channels).map(move |c| (image, c))) {
                    let start = (image * seed.picked.channels + seed.picked.at(c)) * size;
                    for (i, &x) in seed.values[start..start + size].iter().enumerate() {
                        // SAFETY: the position lies in the map, and this is the only piece.
                        unsafe { *to.at(image * size + i).add(c) += x };
                    }
                }
            }),
            None => load(member, seed.values.as_ptr(), seed.picked, to),
        }
        if sink.complete && value.knees.is_some() && !matches!(finish.gate, Gated::Open) {
            let whole = Finish { add: None, ..*finish };
            // SAFETY: a map onto itself, value by value.
            unsafe { for_each_vector(site, &whole, Copied(base.map(sink.to, &value.shape))) };
        }
    }

    /// The gate of a complete gradient.
    fn gate(&self, sink: &Sink, base: &Base, gate: Gate) -> Gated<'_> {
        let value = &self.values[sink.value];
        let Some(knees) = value.knees.filter(|_| sink.complete) else { return Gated::Open };
        let Knees { low, high, leak } = knees;
        let at = |outside| Gated::Knees { sides: base.sides(value, &knees), outside };
        match gate {
            Gate::Plain => at(leak),
            Gate::Proxy { slope } => at(leak.max(slope)),
            Gate::Soft { temperature } => match base.record(value) {
                Some(input) if temperature > 0.0 => {
                    let (inverse_scales, times) = (&value.inverse_scales[..], 1.0 / temperature);
                    Gated::Soft { input, low, high, leak, inverse_scales, times }
                }
                _ => at(leak),
            },
            Gate::Redirect | Gate::Identity => Gated::Open,
        }
    }
}

/// Where the channels of a map lie among those of a layer.
#[derive(Clone, Copy)]
struct Picked<'a> {
    /// Channels of the layer.
    channels: usize,
    /// Those that the map holds; all of them where none are named.
    kept: Option<&'a [usize]>,
}

impl<'a> Picked<'a> {
    fn of(target: &'a SubgraphTarget) -> Self {
        Self { channels: pixel(&target.shape), kept: target.kept.as_deref() }
    }

    fn all(map: Map) -> Self {
        Self { channels: map.channels, kept: None }
    }

    fn at(&self, channel: usize) -> usize {
        self.kept.map_or(channel, |kept| kept[channel])
    }
}

/// The seeds of a target, row-major `[N,C,H,W]`.
#[derive(Clone, Copy)]
struct Seed<'a> {
    values: &'a [f32],
    /// Values of an image.
    image: usize,
    picked: Picked<'a>,
}

impl<'a> Seed<'a> {
    fn new(values: &'a [f32], target: &'a SubgraphTarget) -> Self {
        Self { values, image: target.shape.elements(), picked: Picked::of(target) }
    }

    /// Those of a group's images.
    fn of(&self, base: &Base) -> Self {
        Self { values: &self.values[base.first * self.image..(base.first + base.images) * self.image], ..*self }
    }
}

/// Row-major values `[N,C,H,W]` into a map.
fn load(member: &Member<'_>, from: *const f32, picked: Picked<'_>, to: Map) {
    let from = Shared(from.cast_mut());
    member.each(to.images * to.height, |row| {
        let (image, y) = (row / to.height, row % to.height);
        for c in 0..to.channels {
            let start = (image * picked.channels + picked.at(c)) * to.size() + y * to.width;
            for x in 0..to.width {
                // SAFETY: the position lies in both; no two pieces write the same row.
                unsafe { *to.at(row * to.width + x).add(c) = *from.pointer().add(start + x) };
            }
        }
    });
}

/// A map to row-major values `[N,C,H,W]`.
fn store(member: &Member<'_>, from: Map, picked: Picked<'_>, to: *mut f32) {
    member.each(from.images * from.height, |row| {
        let (image, y) = (row / from.height, row % from.height);
        for c in 0..from.channels {
            let start = (image * picked.channels + picked.at(c)) * from.size() + y * from.width;
            for x in 0..from.width {
                // SAFETY: the position lies in both; no two pieces write the same row.
                unsafe { *to.add(start + x) = *from.at(row * from.width + x).add(c) };
            }
        }
    });
}

/// Calls `f` with the values of a tensor in row-major order.
fn with_values<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T, EngineError> {
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => {
            let start = layout.start_offset();
            Ok(f(&values[start..start + tensor.elem_count()]))
        }
        _ => Err(EngineError::Mismatch("a tensor is not in the memory of the CPU".into())),
    }
}

impl Plan for CpuPlan {
    fn forward(&mut self, images: &Tensor, forward: Forward) -> Result<Vec<Tensor>, EngineError> {
        self.subgraph.check_images(images)?;
        let batch = images.dims()[0];
        self.reserve(batch);
        let record = self.last.is_some_and(|last| last.recorded);
        let zeros = |target: &SubgraphTarget| vec![0.0; batch * target.shape.elements()];
        let mut outputs: Vec<Vec<f32>> = self.subgraph.targets.iter().map(zeros).collect();
        with_values(images, |images| self.walk(batch, forward, record, Some(images), &mut outputs))?;
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
            self.walk(last.batch, last.forward, true, None, &mut []);
        }
        let seeds = seeds.iter().map(|seed| with_values(seed, <[f32]>::to_vec)).collect::<Result<Vec<_>, _>>()?;
        let size = self.subgraph.input.elements();
        let mut data = vec![0.0; last.batch * size];
        let (bases, scratch) = (self.bases(last.batch, soft), self.scratch());
        let (to, shared) = (Shared(data.as_mut_ptr()), Shared::of(&mut self.shared));
        let Self { threads, program, instructions, subgraph, clock, .. } = self;
        let seeds: Vec<Seed<'_>> =
            seeds.iter().zip(&subgraph.targets).map(|(values, target)| Seed::new(values, target)).collect();
        threads.run(|member| {
            let (scratch, shared) = (scratch[member.index()].pointer(), shared.pointer());
            let site = Site { member, instructions: *instructions, scratch, shared };
            let mut laps = Clock::laps(clock.as_ref(), member, true);
            // The group that went forward last has left most in the cache.
            for base in bases.iter().rev() {
                for chain in &program.back {
                    program.walk_back(chain, &site, base, &seeds, gate);
                    laps.lap(program.node_of(&program.tasks[chain.range.end - 1]));
                }
                if let Some(gradient) = program.gradient {
                    // SAFETY: the gradient holds the values of the whole batch.
                    let to = unsafe { to.pointer().add(base.first * size) };
                    let gradient = base.map(gradient, &subgraph.input);
                    store(member, gradient, Picked::all(gradient), to);
                    laps.lap(Network::INPUT);
                }
            }
        });
        self.last = Some(Last { recorded: soft, ..last });
        let mut dims = vec![last.batch];
        dims.extend_from_slice(&self.subgraph.input);
        Ok(Tensor::from_vec(data, dims, &Device::Cpu)?)
    }

    fn set_scales(&mut self, scales: &BTreeMap<NodeId, f32>) {
        self.program.set_scales(scales);
    }

    fn held_bytes(&self) -> Option<u64> {
        let groups = self.groups.iter().flat_map(|group| [Some(&group.kept), group.records.as_ref()]).flatten();
        let buffers = groups.chain(&self.scratch).chain([&self.passing, &self.shared]);
        let buffers: usize = buffers.map(|buffer| size_of_val(buffer.values())).sum();
        Some((self.program.weights + buffers) as u64)
    }

    fn take_times(&mut self) -> Vec<StepTime> {
        self.clock.as_mut().map(Clock::take).unwrap_or_default()
    }
}
