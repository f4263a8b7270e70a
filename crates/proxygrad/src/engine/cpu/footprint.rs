//! How much memory a plan takes, found by planning it with kernels that hold no weights.

use super::bands::Limits;
use super::conv::Method;
use super::map::Buffer;
use super::methods::Methods;
use super::program::Program;
use super::shelf::Kernels;
use super::{Ahead, Back, Finish, GROUP, HEAVY, Kernel, Layout, Needs, Site};
use crate::engine::subgraph::Subgraph;
use crate::engine::{EngineError, Footprint, Target};
use crate::network::{Binary, Network, Op, Reduce, Shape};

/// What the memory of a CPU engine's plans depends on.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct CpuMemory {
    layout: Layout,
    /// Whether the methods of convolutions are measured, so that nobody knows them beforehand.
    tuned: bool,
    limits: Limits,
}

impl CpuMemory {
    /// That of an engine with these settings, which need not be started.
    pub(in crate::engine) fn of(settings: &super::CpuSettings) -> Self {
        let lanes = settings.instructions.unwrap_or_else(super::Instructions::detect).lanes();
        let layout = Layout { lanes, threads: super::threads(settings), heavy: HEAVY, hollow: true };
        Self { layout, tuned: settings.tuning.is_some(), limits: Limits::default() }
    }

    /// The footprint of a plan.
    pub(in crate::engine) fn footprint(
        &self,
        network: &Network,
        targets: &[Target],
        input: &Shape,
    ) -> Result<Footprint, EngineError> {
        let subgraph = Subgraph::new(network, targets, input)?;
        let estimated = Methods::estimate(network, &subgraph);
        let mut footprint = self.with_methods(network, &subgraph, &estimated)?;
        if self.tuned {
            for choice in 0.. {
                let Some(methods) = uniform(network, &subgraph, choice) else { break };
                footprint = footprint.max(self.with_methods(network, &subgraph, &methods)?);
            }
        }
        Ok(footprint)
    }

    fn with_methods(
        &self,
        network: &Network,
        subgraph: &Subgraph,
        methods: &Methods,
    ) -> Result<Footprint, EngineError> {
        let program = Program::new(network, subgraph, self.layout, methods, &Kernels::default(), self.limits)?;
        Ok(footprint(&program, self.layout.threads))
    }
}

/// Every convolution by its method of this number, or its last one; nothing where none has so many.
fn uniform(network: &Network, subgraph: &Subgraph, choice: usize) -> Option<Methods> {
    let mut methods = Methods::default();
    let mut some = false;
    for node in &subgraph.nodes {
        let Op::Conv(conv) = &network.node(node.id).op else { continue };
        let all = Method::all(conv);
        some |= choice < all.len();
        if let Some(&method) = all.get(choice).or(all.last()) {
            methods.0.insert(node.id, [method; 2]);
        }
    }
    some.then_some(methods)
}

/// What [`CpuPlan`](super::plan::CpuPlan) allocates for a program.
pub(super) fn footprint(program: &Program, threads: usize) -> Footprint {
    let bytes = |values: usize| Buffer::bytes(values) as u64;
    let together = |images: usize| bytes(program.shared(images, threads)) + bytes(program.passing * images);
    Footprint {
        fixed: program.weights as u64 + threads as u64 * bytes(program.scratch.iter().sum()),
        kept: bytes(program.kept),
        recorded: program.records as u64 * size_of::<f32>() as u64,
        together: (1..=GROUP).map(together).collect(),
    }
}

/// Takes the place of a kernel that is written plainly, with tables instead of weights.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hollow(pub(super) Needs);

impl Kernel for Hollow {
    fn finishes(&self) -> bool {
        false
    }

    fn needs(&self) -> Needs {
        self.0
    }

    fn forward(&self, _: &Site<'_>, _: &Ahead<'_>, _: &Finish<'_>) {}

    fn backward(&self, _: &Site<'_>, _: usize, _: &Back<'_>, _: &Finish<'_>) {}
}

/// What the backward pass of an operation looks at, where its kernel is written plainly
/// ([`Plain`](super::simple::Plain)); nothing for the others.
pub(super) fn plain_needs(op: &Op, inputs: &[&Shape], output: &Shape) -> Option<Needs> {
    let none = Needs::default();
    match op {
        Op::Affine { .. } if inputs[0].len() == 3 || inputs[0].len() == 1 => None,
        Op::Concat { axis: 0 } if output.len() == 3 => None,
        Op::Reduce { kind: Reduce::Mean | Reduce::Sum, axes, .. } if axes[..] == [1, 2] && inputs[0].len() == 3 => None,
        Op::Binary(_) if inputs[0] == inputs[1] => None,
        Op::Binary(kind) => {
            let inputs = matches!(kind, Binary::Mul | Binary::Div);
            Some(Needs { inputs, output: *kind == Binary::Div })
        }
        Op::Reduce { kind, .. } => {
            let largest = *kind == Reduce::Max;
            Some(Needs { inputs: largest, output: largest })
        }
        Op::Softmax { .. } | Op::LogSoftmax { .. } => Some(Needs { inputs: false, output: true }),
        Op::Affine { .. } | Op::Constant(_) | Op::Concat { .. } | Op::Pad { .. } | Op::Reshape(_) => Some(none),
        Op::Transpose(_) | Op::Slice { .. } | Op::Resize(_) => Some(none),
        Op::Input | Op::Conv(_) | Op::Dense { .. } | Op::Activation(_) => None,
        Op::MaxPool(_) | Op::AveragePool { .. } => None,
    }
}

/// Bytes, at most, of the tables that a kernel of [`plain_needs`] looks values up in.
pub(super) fn tables(op: &Op, inputs: &[&Shape], output: &Shape) -> usize {
    if plain_needs(op, inputs, output).is_none() {
        return 0;
    }
    if let Op::Resize(_) = op {
        // Two taps, an index and a weight each, for every row and column.
        return 2 * size_of::<(usize, f64)>() * output[1..].iter().sum::<usize>();
    }
    let longest = inputs.iter().map(|shape| shape.elements()).chain([output.elements()]).max().unwrap_or(0);
    // For each value an index, of both inputs where there are two.
    2 * longest * size_of::<u32>()
}
