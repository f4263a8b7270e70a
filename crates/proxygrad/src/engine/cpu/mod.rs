//! The CPU engine: a planned program of fused kernels over channels-last maps.
//!
//! A plan fuses the network into steps ([`program`]), gives every map its place in one block of memory ([`memory`]), and
//! walks forward and back on all threads at once ([`team`]). Kernels are written once for all vector instructions
//! ([`simd`]). Every sum is one chain of multiply-adds in a fixed order: a result depends neither on the number of
//! threads nor on the batch.

mod activation;
mod average;
mod bands;
mod binary;
mod chains;
mod clock;
mod concat;
mod conv;
mod dense;
mod depthwise;
mod direct;
mod elementwise;
mod finish;
mod footprint;
mod gather;
mod layout;
mod map;
mod memory;
mod methods;
mod plan;
mod pointwise;
mod pool;
mod program;
mod reduce;
mod shelf;
mod sides;
mod simd;
mod simple;
mod slide;
mod square;
mod taps;
mod team;
mod tile;
mod tune;
mod winograd;

#[cfg(test)]
mod chain_tests;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device};

use self::bands::{Band, Limits};
use self::conv::Method;
use self::finish::Finish;
pub(super) use self::footprint::CpuMemory;
use self::map::Map;
use self::methods::Methods;
use self::plan::CpuPlan;
use self::program::Program;
use self::shelf::Shelf;
pub use self::simd::Instructions;
use self::simple::Plain;
use self::team::{Member, Threads};
use self::tune::Tuner;
use super::subgraph::Subgraph;
use super::{Engine, EngineError, Forward, Gate, MemoryModel, Plan, Target};
use crate::network::{Network, Op, Reduce, Shape};

/// Bytes of a common second-level cache, of which blocks of work take their part.
const L2: usize = 1 << 20;

/// See [`Layout::heavy`].
const HEAVY: usize = 2 << 20;

/// Most images that run through the network together: enough for deep layers to use their weights more than once, few
/// enough for the maps of early layers to stay in the cache.
const GROUP: usize = 4;

/// How a [`Cpu`] engine works.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuSettings {
    /// Threads of a pass; as many as the process may use unless given.
    pub threads: Option<NonZeroUsize>,
    /// Vector instructions; the fastest that the processor has unless given.
    pub instructions: Option<Instructions>,
    /// Where measurements of convolution methods are kept. Without it nothing is measured, and the methods follow from
    /// the layers' shapes alone.
    pub tuning: Option<PathBuf>,
    /// Whether plans measure how long their steps take, see [`Plan::take_times`].
    pub timed: bool,
}

/// The CPU engine, in f32.
#[derive(Debug, Clone)]
pub struct Cpu {
    threads: Arc<Threads>,
    instructions: Instructions,
    shelf: Arc<Shelf>,
    tuner: Option<Arc<Tuner>>,
    timed: bool,
    limits: Limits,
    memory: MemoryModel,
}

impl Cpu {
    /// Starts the engine's threads.
    ///
    /// # Errors
    /// When the processor does not have the instructions, or threads cannot be started.
    pub fn new(settings: &CpuSettings) -> Result<Self, EngineError> {
        let instructions = settings.instructions.unwrap_or_else(Instructions::detect);
        if !instructions.available() {
            let why = format!("this processor does not have the instructions {instructions:?}");
            return Err(EngineError::Device { device: "cpu".into(), why });
        }
        let threads = Threads::new(threads(settings))?;
        let tuner = settings.tuning.as_ref().map(|path| Arc::new(Tuner::new(path.clone())));
        Ok(Self {
            threads: Arc::new(threads),
            instructions,
            shelf: Arc::default(),
            tuner,
            timed: settings.timed,
            limits: Limits::default(),
            memory: MemoryModel::cpu(CpuMemory::of(settings)),
        })
    }

    fn layout(&self) -> Layout {
        Layout { lanes: self.instructions.lanes(), threads: self.threads.count(), heavy: HEAVY, hollow: false }
    }
}

/// Threads of an engine with these settings.
fn threads(settings: &CpuSettings) -> usize {
    let available = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    settings.threads.map_or_else(available, NonZeroUsize::get)
}

impl Engine for Cpu {
    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn dtype(&self) -> DType {
        DType::F32
    }

    fn memory_model(&self) -> MemoryModel {
        self.memory.clone()
    }

    fn release_unused(&self) -> bool {
        self.shelf.release_unused()
    }

    fn plan(&self, network: &Arc<Network>, targets: &[Target], input: &Shape) -> Result<Box<dyn Plan>, EngineError> {
        let subgraph = Subgraph::new(network, targets, input)?;
        let mut methods = Methods::estimate(network, &subgraph);
        if let Some(tuner) = &self.tuner {
            tuner.tune(&mut methods, network, &subgraph, &self.threads, self.instructions);
        }
        let kernels = self.shelf.of(network);
        let program = Program::new(network, &subgraph, self.layout(), &methods, &kernels, self.limits)?;
        self.shelf.make_room(&program);
        Ok(Box::new(CpuPlan::new(Arc::clone(&self.threads), self.instructions, subgraph, program, self.timed)))
    }
}

/// What the layout of weights and the cutting of work depend on.
#[derive(Debug, Clone, Copy)]
struct Layout {
    lanes: usize,
    threads: usize,
    /// Bytes of transformed weights from which on they are transformed anew at every use: reading them takes longer.
    heavy: usize,
    /// Whether kernels go without weights and tables: they compute nothing, but take part in planning.
    hollow: bool,
}

/// Where a kernel runs.
struct Site<'a> {
    member: &'a Member<'a>,
    instructions: Instructions,
    /// [`Kernel::scratch`] values of this thread's own.
    scratch: *mut f32,
    /// [`Kernel::shared`] values.
    shared: *mut f32,
}

/// What a forward pass of a kernel looks at.
struct Ahead<'a> {
    inputs: &'a [Map],
    /// [`Kernel::memory`] values for each image.
    memory: Option<*mut f32>,
    forward: Forward,
}

/// What a backward pass of a kernel may look at.
struct Back<'a> {
    inputs: &'a [Map],
    output: Map,
    memory: Option<*mut f32>,
    /// Gradient with respect to the output.
    gradient: Map,
    gate: Gate,
}

/// What a kernel's backward pass looks at.
#[derive(Debug, Clone, Copy, Default)]
struct Needs {
    inputs: bool,
    output: bool,
}

/// One of the two passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heading {
    Forward,
    Backward,
}

/// A pass of a kernel that one thread can compute for some rows of an image.
trait Banded: Sync {
    /// Rows of the source that some rows of the destination are computed from; they may lie outside the map.
    fn reach(&self, rows: &Range<usize>) -> Range<isize>;

    /// Whether no step may follow in the same band: rows are not computed twice, or not in their own band alone.
    fn closes(&self) -> bool {
        false
    }

    /// Fills a band of `finish.to`. Of the source, the rows that [`Banded::reach`] names are there. `memory` is that of the
    /// kernel.
    fn band(&self, site: &Site<'_>, band: &Band, source: Map, memory: Option<*mut f32>, finish: &Finish<'_>);
}

/// One operation with its weights laid out for this machine. All threads of a pass call it together.
trait Kernel: Send + Sync {
    /// Fills `finish.to`.
    fn forward(&self, site: &Site<'_>, view: &Ahead<'_>, finish: &Finish<'_>);

    /// Fills `finish.to` with the gradient with respect to input `input`.
    fn backward(&self, site: &Site<'_>, input: usize, view: &Back<'_>, finish: &Finish<'_>);

    /// What is added to every channel of the forward pass's sums; part of the [`Finish`] that is handed to it.
    fn bias(&self) -> Option<&[f32]> {
        None
    }

    /// The pass as one that can be computed band by band, where the kernel has one input.
    fn bands(&self, _heading: Heading) -> Option<&dyn Banded> {
        None
    }

    /// Whether the forward pass follows all of a [`Finish`], and both passes maps that are slices of wider ones.
    fn finishes(&self) -> bool {
        true
    }

    /// What the backward pass looks at.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Whether the gradient with respect to an input is the output's, unchanged.
    fn passes(&self, _input: usize) -> bool {
        false
    }

    /// First channel of each input in the output, when the inputs are only joined.
    fn joins_channels(&self) -> Option<&[usize]> {
        None
    }

    /// Bytes of its weights as they are laid out, also where the layout is hollow.
    fn weights(&self) -> usize {
        0
    }

    /// Values of an image that the forward pass keeps for the backward pass.
    fn memory(&self) -> usize {
        0
    }

    /// Values that every thread needs for itself.
    fn scratch(&self) -> usize {
        0
    }

    /// Values that the threads share, for some images and the height and width of input and output.
    fn shared(&self, _images: usize, _sizes: [[usize; 2]; 2], _threads: usize) -> usize {
        0
    }
}

/// `None` for the input, which has nothing to compute.
fn kernel(
    op: &Op,
    inputs: &[&Shape],
    output: &Shape,
    layout: Layout,
    methods: [Method; 2],
) -> Result<Option<Arc<dyn Kernel>>, String> {
    if let Some(needs) = footprint::plain_needs(op, inputs, output).filter(|_| layout.hollow) {
        return Ok(Some(Arc::new(footprint::Hollow(needs))));
    }
    Ok(Some(match op {
        Op::Input => return Ok(None),
        Op::Constant(array) => Arc::new(Plain(gather::Constant::new(array, output))),
        Op::Conv(conv) => Arc::new(conv::Conv::new(conv, inputs[0], output, layout, methods)),
        Op::Dense { weight, bias } => Arc::new(conv::Dense::new(weight, bias.as_ref(), layout)),
        Op::Affine { scale, shift } if inputs[0].len() == 3 || inputs[0].len() == 1 => {
            Arc::new(elementwise::Affine::new(scale, shift))
        }
        Op::Affine { scale, shift } => Arc::new(Plain(binary::Affine::new(scale, shift, inputs[0]))),
        Op::Activation(activation) => Arc::new(activation::Activated::new(activation, inputs[0])),
        Op::Binary(kind) if inputs[0] == inputs[1] => Arc::new(elementwise::Elementwise(*kind)),
        Op::Binary(kind) => Arc::new(Plain(binary::Broadcast::new(*kind, inputs[0], inputs[1], output))),
        Op::Concat { axis: 0 } if output.len() == 3 => Arc::new(concat::JoinedChannels::new(inputs)),
        Op::Concat { axis } => Arc::new(Plain(gather::Concat::new(*axis, inputs, output))),
        Op::MaxPool(window) => Arc::new(pool::MaxPool::new(window, inputs[0], output)),
        Op::AveragePool { window, count_padding } => {
            Arc::new(average::AveragePool::new(window, *count_padding, inputs[0], output))
        }
        Op::Reduce { kind: kind @ (Reduce::Mean | Reduce::Sum), axes, .. }
            if axes.as_slice() == [1, 2] && inputs[0].len() == 3 =>
        {
            let pixels = inputs[0][1] * inputs[0][2];
            let factor = if *kind == Reduce::Mean { 1.0 / pixels as f32 } else { 1.0 };
            Arc::new(average::GlobalSum { factor })
        }
        Op::Reduce { kind, axes, .. } => Arc::new(Plain(reduce::Reduced::new(*kind, axes, inputs[0], output))),
        Op::Pad { before, mode, .. } => Arc::new(Plain(gather::Gather::pad(before, *mode, inputs[0], output))),
        Op::Reshape(_) => Arc::new(Plain(gather::Gather::reshape(inputs[0], output))),
        Op::Transpose(order) => Arc::new(Plain(gather::Gather::transpose(order, inputs[0], output))),
        Op::Slice { axis, start, step, .. } => {
            Arc::new(Plain(gather::Gather::slice(*axis, *start, *step, inputs[0], output)))
        }
        Op::Resize(resize) => Arc::new(Plain(gather::Resized::new(resize, inputs[0], output))),
        Op::Softmax { axis } => Arc::new(Plain(reduce::Softmax::new(*axis, inputs[0], false))),
        Op::LogSoftmax { axis } => Arc::new(Plain(reduce::Softmax::new(*axis, inputs[0], true))),
    }))
}
