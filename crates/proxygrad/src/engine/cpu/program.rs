//! From the part of a network below some targets to a program: fused steps forward, tasks backward, places in memory.
//!
//! A step is a kernel and what follows it elementwise: `activation(kernel(inputs) + residual)`. Only the results of whole
//! steps have values. Parts of a concatenation are computed in their places in it.
//!
//! Backward, the gradient of a value is complete when everyone who reads the value has contributed. The last one to do so
//! also applies the gate of the value's activation, which the forward pass has left a bit or two per value for
//! ([`Sides`]), so that a gate costs no pass over memory. A contribution that is the reader's own gradient is not copied
//! but referred to.
//!
//! What the way back looks at is kept for every image. Values and gradients pass: their memory serves one group of images
//! after the other.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use super::activation::knees;
use super::bands::{Bands, Chain, Limits};
use super::chains;
use super::finish::Knees;
use super::memory::{Interval, LINE, place};
use super::methods::Methods;
use super::shelf::{Kernels, Key, Shelved};
use super::sides::Sides;
use super::{Kernel, Layout, footprint, kernel};
use crate::engine::subgraph::Subgraph;
use crate::engine::{EngineError, scale_of};
use crate::network::{Binary, Network, NodeId, Op, Shape};

/// A planned network.
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    /// The image is the first.
    pub(super) values: Vec<Value>,
    pub(super) tasks: Vec<Task>,
    /// The steps, by what is walked together.
    pub(super) ahead: Vec<Chain>,
    /// The tasks, by what is walked together.
    pub(super) back: Vec<Chain>,
    /// Values of the targets.
    pub(super) targets: Vec<usize>,
    /// Where the image's gradient ends up, when there is one.
    pub(super) gradient: Option<Place>,
    /// Values of an image in [`Memory::Kept`].
    pub(super) kept: usize,
    /// Values of an image in [`Memory::Passing`].
    pub(super) passing: usize,
    /// Values that every thread needs for itself: for a kernel, and behind them for the maps of a chain.
    pub(super) scratch: [usize; 2],
    /// Values of an image's pre-activations.
    pub(super) records: usize,
    /// Bytes of the kernels' weights and tables.
    pub(super) weights: usize,
    /// Those kernels that others may use as well, see [`Shelf`](super::shelf::Shelf).
    pub(super) shelved: Vec<Key>,
}

/// One step forward.
pub(super) struct Step {
    /// Absent for concatenations whose parts are computed in place.
    pub(super) kernel: Option<Arc<dyn Kernel>>,
    pub(super) inputs: Vec<usize>,
    /// The value that is added to the kernel's sums.
    pub(super) residual: Option<usize>,
    /// The activation behind the sum.
    pub(super) knees: Option<Knees>,
    /// Where the kernel keeps what it remembers, in [`Memory::Kept`].
    pub(super) memory: Option<usize>,
    /// The node that the kernel is made for.
    pub(super) node: NodeId,
    /// What the temperature of a soft gate is multiplied with, where the kernel is an activation's.
    pub(super) scale: f32,
}

/// The result of a step; the step's number is one less than the value's.
pub(super) struct Value {
    pub(super) shape: Shape,
    pub(super) place: Place,
    /// The activation that the value comes from, when it was fused.
    pub(super) knees: Option<Knees>,
    /// Where the [`Sides`] of that activation lie in [`Memory::Kept`], when there is one.
    pub(super) sides: usize,
    /// Where its pre-activations lie among the recorded, when there is one.
    pub(super) record: usize,
    /// The values that were computed in their places in this one.
    pub(super) parts: Vec<usize>,
    /// The last node of the step, the activation's when there is one.
    pub(super) node: NodeId,
    /// What the inverse temperature of a soft gate is multiplied with: one number per channel of the activation.
    pub(super) inverse_scales: Vec<f32>,
}

/// Which memory a map lies in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Memory {
    /// Each group's own, from its way forward to its way back.
    Kept,
    /// One for all groups, which take turns.
    Passing,
}

/// Where a map lies: `offset` counts whole images, `first` and `pixel` channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub(super) memory: Memory,
    pub(super) offset: usize,
    pub(super) first: usize,
    pub(super) pixel: usize,
}

/// One step backward.
pub(super) enum Task {
    /// The seed of a target joins the target's gradient.
    Seed { target: usize, sink: Sink },
    /// A step's kernel contributes to the gradient of one of its inputs.
    Kernel { step: usize, input: usize, gradient: Place, sink: Sink },
    /// A gradient contributes as it is.
    Pass { gradient: Place, sink: Sink },
}

impl Task {
    /// Where the contribution goes.
    pub(super) fn sink(&self) -> &Sink {
        let (Self::Seed { sink, .. } | Self::Kernel { sink, .. } | Self::Pass { sink, .. }) = self;
        sink
    }
}

/// Where a contribution goes.
#[derive(Clone, Copy)]
pub(super) struct Sink {
    /// Whose gradient it is.
    pub(super) value: usize,
    pub(super) to: Place,
    /// Contributions so far.
    pub(super) add: Option<Place>,
    /// Whether the gradient is complete then, and gated.
    pub(super) complete: bool,
}

/// Values of a map's pixel: its channels, or everything of what is not a feature map.
pub(super) fn pixel(shape: &Shape) -> usize {
    shape.feature_map().map_or_else(|| shape.elements(), |[channels, ..]| channels)
}

/// A value on its way to its place.
pub(super) struct Draft {
    node: NodeId,
    pub(super) shape: Shape,
    knees: Option<Knees>,
    depends: bool,
    pub(super) is_target: bool,
    /// The value it is a part of, and its first channel there.
    pub(super) within: Option<(usize, usize)>,
}

impl Program {
    pub(super) fn new(
        network: &Network,
        subgraph: &Subgraph,
        layout: Layout,
        methods: &Methods,
        kernels: &Kernels,
        limits: Limits,
    ) -> Result<Self, EngineError> {
        let Fused { mut steps, mut drafts, targets, weights, shelved } =
            fuse(network, subgraph, layout, methods, kernels)?;
        fold(&mut steps, &mut drafts);
        let mut intervals = Intervals::new(&steps, &drafts);
        let Backward { tasks, gradient } = Backward::new(&steps, &drafts, &targets, &mut intervals);
        let ahead = chains::forward(&steps, &drafts, limits);
        let back = chains::backward(&steps, &drafts, &tasks, limits);
        intervals.merge(&ahead, &back);
        let Placed { places, kept, passing } = intervals.place();
        let mut records = 0;
        let records_of = drafts.iter().map(|draft| {
            let start = records;
            if draft.knees.is_some() && draft.within.is_none() {
                records += draft.shape.elements();
            }
            start
        });
        let records_of: Vec<usize> = records_of.collect();
        let values = drafts.iter().enumerate().map(|(v, draft)| {
            let (root, first) = draft.within.unwrap_or((v, 0));
            let (memory, offset) = places[root];
            let place = Place { memory, offset, first, pixel: pixel(&drafts[root].shape) };
            let sides = intervals.sides[root].map_or(0, |interval| places[interval].1);
            let parts = drafts.iter().enumerate().filter(|(_, part)| part.within.is_some_and(|(whole, _)| whole == v));
            let parts = parts.map(|(part, _)| part).collect();
            let inverse_scales = vec![1.0; if draft.knees.is_some() { pixel(&draft.shape) } else { 0 }];
            let (shape, knees, node, record) = (draft.shape.clone(), draft.knees, draft.node, records_of[root]);
            Value { shape, place, knees, sides, record, parts, node, inverse_scales }
        });
        let values: Vec<Value> = values.collect();
        for (s, step) in steps.iter_mut().enumerate() {
            step.memory = intervals.memories[s].map(|interval| places[interval].1);
        }
        let settle = |place: Place| {
            let (memory, offset) = places[place.offset];
            Place { memory, offset, ..place }
        };
        let settle_sink = |sink: Sink| Sink { to: settle(sink.to), add: sink.add.map(settle), ..sink };
        let tasks = tasks.into_iter().map(|task| match task {
            Task::Seed { target, sink } => Task::Seed { target, sink: settle_sink(sink) },
            Task::Kernel { step, input, gradient, sink } => {
                Task::Kernel { step, input, gradient: settle(gradient), sink: settle_sink(sink) }
            }
            Task::Pass { gradient, sink } => Task::Pass { gradient: settle(gradient), sink: settle_sink(sink) },
        });
        let (tasks, gradient): (Vec<Task>, _) = (tasks.collect(), gradient.map(settle));
        let kernels = || steps.iter().filter_map(|step| step.kernel.as_ref());
        let own = kernels().map(|kernel| kernel.scratch()).max().unwrap_or(0).next_multiple_of(LINE);
        let bands = ahead.iter().chain(&back).filter_map(|chain| chain.bands.as_ref());
        let scratch = [own, bands.map(Bands::scratch).max().unwrap_or(0)];
        Ok(Self {
            tasks,
            steps,
            values,
            ahead,
            back,
            targets,
            gradient,
            kept,
            passing,
            scratch,
            records,
            weights,
            shelved,
        })
    }

    /// Values that the threads share while they work on up to so many images together.
    pub(super) fn shared(&self, images: usize, threads: usize) -> usize {
        let size = |value: usize| {
            let shape = &self.values[value].shape;
            shape.feature_map().map_or([1, 1], |[_, height, width]| [height, width])
        };
        let shared = self.steps.iter().enumerate().filter_map(|(s, step)| {
            let sizes = [size(*step.inputs.first()?), size(s + 1)];
            let kernel = step.kernel.as_ref()?;
            (1..=images).map(|images| kernel.shared(images, sizes, threads)).max()
        });
        shared.max().unwrap_or(0)
    }

    /// What [`Plan::set_scales`](crate::engine::Plan::set_scales) says.
    pub(super) fn set_scales(&mut self, scales: &BTreeMap<NodeId, f32>) {
        for step in &mut self.steps {
            step.scale = scale_of(scales, step.node);
        }
        for v in 0..self.values.len() {
            if self.values[v].inverse_scales.is_empty() {
                continue;
            }
            let own = [v];
            let parts = if self.values[v].parts.is_empty() { &own[..] } else { &self.values[v].parts };
            let base = self.values[v].place.first;
            let pieces: Vec<(usize, usize, f32)> = parts
                .iter()
                .map(|&part| {
                    let part = &self.values[part];
                    (part.place.first - base, pixel(&part.shape), 1.0 / scale_of(scales, part.node))
                })
                .collect();
            for (first, channels, inverse) in pieces {
                self.values[v].inverse_scales[first..first + channels].fill(inverse);
            }
        }
    }
}

/// What a network becomes step by step. Value `v` is the result of step `v - 1`.
struct Fused {
    steps: Vec<Step>,
    drafts: Vec<Draft>,
    /// Values of the targets.
    targets: Vec<usize>,
    /// As in [`Program`].
    weights: usize,
    shelved: Vec<Key>,
}

fn fuse(
    network: &Network,
    subgraph: &Subgraph,
    layout: Layout,
    methods: &Methods,
    kernels: &Kernels,
) -> Result<Fused, EngineError> {
    let nodes = &subgraph.nodes;
    let op = |node: usize| nodes[node].op(network);
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (n, node) in nodes.iter().enumerate() {
        for &input in &node.inputs {
            readers[input].push(n);
        }
    }
    // The one node that reads another, when nobody else looks at it.
    let only_reader = |node: usize| match readers[node].as_slice() {
        &[reader] if !subgraph.is_target(node) => Some(reader),
        _ => None,
    };
    let mut absorbed = vec![false; nodes.len()];
    // (last node, first node, step, residual's node)
    let mut chains: Vec<(usize, usize, Step, Option<usize>)> = Vec::new();
    let (mut weights, mut shelved) = (0, Vec::new());
    for n in 0..nodes.len() {
        if absorbed[n] {
            continue;
        }
        let chosen = methods.of(nodes[n].id);
        let inputs = subgraph.input_shapes(&nodes[n]);
        let mut shapes: Vec<Shape> = inputs.iter().map(|&shape| shape.clone()).collect();
        shapes.push(nodes[n].shape.clone());
        let key = (nodes[n].id, shapes, chosen);
        let is_shelved = nodes[n].pruned.is_none();
        let shelf = || kernels.lock().unwrap_or_else(PoisonError::into_inner);
        let known = if is_shelved { shelf().get(&key).cloned() } else { None };
        let Shelved { kernel, bytes } = match known {
            Some(shelved) => shelved,
            None => {
                let made = kernel(op(n), &inputs, &nodes[n].shape, layout, chosen).map_err(EngineError::Mismatch)?;
                let Some(made) = made else { continue };
                let bytes = made.weights() + footprint::tables(op(n), &inputs, &nodes[n].shape);
                let made = Shelved { kernel: made, bytes };
                if is_shelved {
                    shelf().insert(key.clone(), made.clone());
                }
                made
            }
        };
        weights += bytes;
        if is_shelved {
            shelved.push(key);
        }
        let (node, scale) = (nodes[n].id, 1.0);
        let mut step =
            Step { inputs: Vec::new(), residual: None, knees: None, memory: None, kernel: None, node, scale };
        let (mut last, mut residual) = (n, None);
        while kernel.finishes() {
            let Some(reader) = only_reader(last) else { break };
            match op(reader) {
                Op::Binary(Binary::Add) if residual.is_none() && matches!(op(n), Op::Conv(_)) => {
                    let other = nodes[reader].inputs.iter().copied().find(|&input| input != last);
                    // Of two convolutions the later takes the other's result in.
                    let Some(other) = other.filter(|&other| other < last) else { break };
                    if nodes[other].shape != nodes[last].shape {
                        break;
                    }
                    residual = Some(other);
                    absorbed[reader] = true;
                    last = reader;
                }
                Op::Activation(activation) => {
                    step.knees = knees(activation);
                    if step.knees.is_some() {
                        absorbed[reader] = true;
                        last = reader;
                    }
                    break;
                }
                _ => break,
            }
        }
        step.kernel = Some(kernel);
        chains.push((last, n, step, residual));
    }
    chains.sort_by_key(|(last, ..)| *last);
    let mut value_of = vec![0; nodes.len()];
    for (s, (last, ..)) in chains.iter().enumerate() {
        value_of[*last] = s + 1;
    }
    let draft = |node: usize, knees: Option<Knees>| Draft {
        node: nodes[node].id,
        shape: nodes[node].shape.clone(),
        knees: knees.filter(|_| nodes[node].needs_gradient),
        depends: nodes[node].needs_gradient,
        is_target: subgraph.is_target(node),
        within: None,
    };
    let mut drafts = vec![draft(0, None)];
    let mut steps = Vec::with_capacity(chains.len());
    for (last, first, mut step, residual) in chains {
        drafts.push(draft(last, step.knees));
        step.inputs = nodes[first].inputs.iter().map(|&input| value_of[input]).collect();
        step.residual = residual.map(|node| value_of[node]);
        steps.push(step);
    }
    let targets = subgraph.targets.iter().map(|target| value_of[target.node]).collect();
    Ok(Fused { steps, drafts, targets, weights, shelved })
}

/// How often steps read a value.
pub(super) fn reads(steps: &[Step], value: usize) -> usize {
    let all = steps.iter().flat_map(|step| step.inputs.iter().chain(&step.residual));
    all.filter(|&&input| input == value).count()
}

/// Lets the parts of concatenations be computed in place, where nobody else reads them.
fn fold(steps: &mut [Step], drafts: &mut [Draft]) {
    for s in 0..steps.len() {
        let joined = steps[s].kernel.as_ref().and_then(|kernel| kernel.joins_channels().map(<[usize]>::to_vec));
        let Some(first_channels) = joined else { continue };
        if drafts[s + 1].knees.is_some() {
            continue;
        }
        let parts = steps[s].inputs.clone();
        let fits = parts.iter().all(|&part| {
            part > 0
                && reads(steps, part) == 1
                && !drafts[part].is_target
                && drafts[part].depends
                && drafts[part].within.is_none()
                && drafts[part].knees == drafts[parts[0]].knees
                && steps[part - 1].kernel.as_ref().is_some_and(|kernel| kernel.finishes())
        });
        if !fits {
            continue;
        }
        for (&part, first) in parts.iter().zip(first_channels) {
            drafts[part].within = Some((s + 1, first));
        }
        drafts[s + 1].knees = drafts[parts[0]].knees;
        steps[s].kernel = None;
    }
}

/// When which memory is in use. Time counts the steps forward, then the tasks backward.
struct Intervals {
    /// First those of the values, at their numbers; those of folded parts are empty.
    list: Vec<Interval>,
    /// For each step that of its memory.
    memories: Vec<Option<usize>>,
    /// For each value that of its sides, when it has any of its own.
    sides: Vec<Option<usize>>,
    /// Time of the first task.
    turn: usize,
}

impl Intervals {
    fn new(steps: &[Step], drafts: &[Draft]) -> Self {
        let turn = steps.len() + 2;
        let root = |value: usize| drafts[value].within.map_or(value, |(root, _)| root);
        let mut list: Vec<Interval> = drafts
            .iter()
            .enumerate()
            .map(|(v, draft)| {
                let length = if draft.within.is_some() { 0 } else { draft.shape.elements() };
                Interval { length, start: v, end: if draft.is_target { turn - 1 } else { v } }
            })
            .collect();
        list[0].end = Interval::FOREVER;
        for v in 0..drafts.len() {
            let interval = &mut list[root(v)];
            interval.start = interval.start.min(v);
        }
        let mut memories = Vec::new();
        for (s, step) in steps.iter().enumerate() {
            let needs = step.kernel.as_ref().map(|kernel| kernel.needs()).unwrap_or_default();
            for &input in step.inputs.iter().chain(&step.residual) {
                let end = if needs.inputs { Interval::FOREVER } else { s + 1 };
                let interval = &mut list[root(input)];
                interval.end = interval.end.max(end);
            }
            if needs.output {
                list[root(s + 1)].end = Interval::FOREVER;
            }
        }
        for (s, step) in steps.iter().enumerate() {
            let length = step.kernel.as_ref().map_or(0, |kernel| kernel.memory());
            memories.push((length > 0).then_some(list.len()));
            if length > 0 {
                list.push(Interval { length, start: s + 1, end: Interval::FOREVER });
            }
        }
        let mut sides = Vec::new();
        for (v, draft) in drafts.iter().enumerate() {
            let knees = draft.knees.filter(|_| draft.within.is_none());
            sides.push(knees.is_some().then_some(list.len()));
            if let Some(knees) = knees {
                let pixels = draft.shape.elements() / pixel(&draft.shape).max(1);
                let bytes = pixels * Sides::bytes(pixel(&draft.shape), &knees) + Sides::SPARE;
                let length = bytes.div_ceil(size_of::<f32>());
                list.push(Interval { length, start: list[v].start, end: Interval::FOREVER });
            }
        }
        Self { list, memories, sides, turn }
    }

    /// Makes the steps of a chain one time of use.
    fn merge(&mut self, ahead: &[Chain], back: &[Chain]) {
        let times = |chain: &Chain, zero: usize| zero + chain.range.start..zero + chain.range.end;
        let all = ahead.iter().map(|chain| times(chain, 1)).chain(back.iter().map(|chain| times(chain, self.turn)));
        for time in all.collect::<Vec<_>>() {
            for interval in &mut self.list {
                if time.contains(&interval.start) {
                    interval.start = time.start;
                }
                if time.contains(&interval.end) {
                    interval.end = time.end - 1;
                }
            }
        }
        // Values between the steps of a chain have no place but in it.
        for chain in ahead {
            (chain.range.start + 1..chain.range.end).for_each(|value| self.list[value].length = 0);
        }
    }

    /// Which memory each interval lies in, and where.
    fn place(&self) -> Placed {
        let passes = |interval: &Interval| interval.end < self.turn || interval.start >= self.turn;
        let mut places = vec![(Memory::Kept, 0); self.list.len()];
        let [kept, passing] = [Memory::Kept, Memory::Passing].map(|which| {
            let is_in = |&i: &usize| passes(&self.list[i]) == (which == Memory::Passing);
            let chosen: Vec<usize> = (0..self.list.len()).filter(is_in).collect();
            let intervals: Vec<Interval> = chosen.iter().map(|&i| self.list[i]).collect();
            let (offsets, length) = place(&intervals);
            for (i, offset) in chosen.into_iter().zip(offsets) {
                places[i] = (which, offset);
            }
            length
        });
        Placed { places, kept, passing }
    }

    fn add(&mut self, length: usize, task: usize) -> usize {
        let time = self.turn + task;
        self.list.push(Interval { length, start: time, end: time });
        self.list.len() - 1
    }

    fn touch(&mut self, interval: usize, task: usize) {
        let interval = &mut self.list[interval];
        interval.end = interval.end.max(self.turn + task);
    }
}

/// What [`Intervals::place`] finds.
struct Placed {
    /// For each interval.
    places: Vec<(Memory, usize)>,
    /// As in [`Program`].
    kept: usize,
    passing: usize,
}

/// The tasks, with intervals in place of offsets.
struct Backward {
    tasks: Vec<Task>,
    gradient: Option<Place>,
}

/// The gradient of a value so far.
#[derive(Clone, Copy)]
struct Partial {
    place: Place,
    /// Whether the memory is the value's own, so that it may be written.
    own: bool,
}

/// Builds the tasks.
struct Builder<'a> {
    drafts: &'a [Draft],
    intervals: &'a mut Intervals,
    tasks: Vec<Task>,
    partials: Vec<Option<Partial>>,
    /// Contributions that are still to come.
    left: Vec<usize>,
}

impl Builder<'_> {
    /// A contribution of `gradient` as it is.
    fn pass(&mut self, value: usize, gradient: Place) {
        self.left[value] -= 1;
        let complete = self.left[value] == 0;
        if self.partials[value].is_none() && !(complete && self.drafts[value].knees.is_some()) {
            self.partials[value] = Some(Partial { place: gradient, own: false });
            return;
        }
        let sink = self.sink(value, complete);
        self.intervals.touch(gradient.offset, self.tasks.len());
        self.tasks.push(Task::Pass { gradient, sink });
    }

    fn kernel(&mut self, value: usize, step: usize, input: usize, gradient: Place) {
        self.left[value] -= 1;
        let sink = self.sink(value, self.left[value] == 0);
        self.intervals.touch(gradient.offset, self.tasks.len());
        self.tasks.push(Task::Kernel { step, input, gradient, sink });
    }

    fn seed(&mut self, value: usize, target: usize) {
        self.left[value] -= 1;
        let sink = self.sink(value, self.left[value] == 0);
        self.tasks.push(Task::Seed { target, sink });
    }

    /// Where the next task's contribution goes.
    fn sink(&mut self, value: usize, complete: bool) -> Sink {
        let task = self.tasks.len();
        let add = self.partials[value];
        let to = match add {
            Some(Partial { place, own: true }) => place,
            _ => {
                let shape = &self.drafts[value].shape;
                let offset = self.intervals.add(shape.elements(), task);
                Place { memory: Memory::Kept, offset, first: 0, pixel: pixel(shape) }
            }
        };
        for place in [Some(to), add.map(|partial| partial.place)].into_iter().flatten() {
            self.intervals.touch(place.offset, task);
        }
        self.partials[value] = Some(Partial { place: to, own: true });
        Sink { value, to, add: add.map(|partial| partial.place), complete }
    }
}

impl Backward {
    fn new(steps: &[Step], drafts: &[Draft], targets: &[usize], intervals: &mut Intervals) -> Self {
        let mut left = vec![0; drafts.len()];
        for &target in targets {
            left[target] += 1;
        }
        for step in steps.iter().filter(|step| step.kernel.is_some()) {
            for &input in step.inputs.iter().chain(&step.residual) {
                left[input] += usize::from(drafts[input].depends);
            }
        }
        let partials = vec![None; drafts.len()];
        let mut builder = Builder { drafts, intervals, tasks: Vec::new(), partials, left };
        for (target, &value) in targets.iter().enumerate() {
            if drafts[value].depends {
                builder.seed(value, target);
            }
        }
        for (s, step) in steps.iter().enumerate().rev() {
            let value = s + 1;
            let Some(Partial { place: gradient, .. }) = builder.partials[value] else { continue };
            let Some(kernel) = &step.kernel else {
                // The parts' gradients are slices of the whole's.
                for &part in &step.inputs {
                    let first = drafts[part].within.map_or(0, |(_, first)| first);
                    let place = Place { first: gradient.first + first, ..gradient };
                    builder.partials[part] = Some(Partial { place, own: false });
                }
                continue;
            };
            if let Some(residual) = step.residual.filter(|&residual| drafts[residual].depends) {
                builder.pass(residual, gradient);
            }
            for (i, &input) in step.inputs.iter().enumerate().filter(|(_, input)| drafts[**input].depends) {
                if kernel.passes(i) {
                    builder.pass(input, gradient);
                } else {
                    builder.kernel(input, s, i, gradient);
                }
            }
        }
        let gradient = builder.partials[0].map(|partial| partial.place);
        let tasks = builder.tasks;
        if let Some(gradient) = gradient {
            intervals.touch(gradient.offset, tasks.len());
        }
        Self { tasks, gradient }
    }
}
