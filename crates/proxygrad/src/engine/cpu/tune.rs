//! Choice of the algorithm of each convolution: estimated from its shape, or measured (autotuning).
//!
//! Measurements are kept in a file, by the shape of the layer, the instruction set and the number of threads. A layer
//! is measured once, so that results stay reproducible.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::cpu::buffer::{Buffer, SharedPtr};
use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::exec::threads::ThreadPool;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{
    BackwardArgs, Direction, ForwardArgs, Kernel, KernelConfig, ON_THE_FLY_BYTES, ThreadCtx,
};
use crate::engine::cpu::kernels::conv::{ConvAlgorithm, ConvKernel};
use crate::engine::cpu::simd::Instructions;
use crate::engine::subgraph::{Subgraph, SubgraphNode};
use crate::engine::{Forward, Gate};
use crate::network::{self, Network, NodeId, Op, Shape};

/// Algorithms of a network's convolutions, forward and backward.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConvAlgorithms(pub(crate) HashMap<NodeId, [ConvAlgorithm; 2]>);

impl ConvAlgorithms {
    /// Estimated from the shapes alone.
    pub(crate) fn estimate(network: &Network, subgraph: &Subgraph) -> Self {
        let choice = |node: &SubgraphNode| {
            let Op::Conv(conv) = &network.node(node.id).op else { return None };
            let input = subgraph.input_shapes(node)[0];
            let sizes = [[input[1], input[2]], [node.shape[1], node.shape[2]]];
            let estimate = |direction| ConvAlgorithm::estimate(conv, direction, sizes);
            Some((node.id, [Direction::Forward, Direction::Backward].map(estimate)))
        };
        Self(subgraph.nodes.iter().filter_map(choice).collect())
    }

    /// The algorithms of a node.
    pub(crate) fn for_node(&self, node: NodeId) -> [ConvAlgorithm; 2] {
        self.0.get(&node).copied().unwrap_or([ConvAlgorithm::Direct; 2])
    }
}

/// Longest time spent on the layers of one plan; the remaining layers keep their estimated algorithms.
const BUDGET: Duration = Duration::from_secs(3);

/// Measured passes, of which the fastest counts.
const ROUNDS: usize = 5;

/// Measured algorithms and the file that keeps them.
#[derive(Debug)]
pub(crate) struct Tuner {
    path: PathBuf,
    /// Algorithms forward and backward, by layer; read from the file at the first use.
    known: Mutex<Option<Known>>,
}

type Known = BTreeMap<String, [ConvAlgorithm; 2]>;

impl Tuner {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::new(None) }
    }

    /// Replaces estimated algorithms with measured ones.
    pub(crate) fn tune(
        &self,
        algorithms: &mut ConvAlgorithms,
        network: &Network,
        subgraph: &Subgraph,
        threads: &Arc<ThreadPool>,
        instructions: Instructions,
    ) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_with(|| self.read());
        let (started, mut measured) = (Instant::now(), false);
        for node in &subgraph.nodes {
            let Op::Conv(conv) = &network.node(node.id).op else { continue };
            if ConvAlgorithm::all(conv).len() == 1 {
                continue;
            }
            let input = subgraph.input_shapes(node)[0];
            let key = key(conv, input, instructions, threads.count());
            if !known.contains_key(&key) {
                if started.elapsed() > BUDGET {
                    continue;
                }
                measured = true;
                known.insert(key.clone(), measure(conv, input, &node.shape, threads, instructions));
            }
            if let Some(&chosen) = known.get(&key) {
                algorithms.0.insert(node.id, chosen);
            }
        }
        if measured {
            self.write(known);
        }
    }

    /// Reads the file; empty if it does not exist or cannot be read.
    fn read(&self) -> Known {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Writes the file. A failure only means that the layers are measured again next time.
    fn write(&self, known: &Known) {
        let Ok(text) = serde_json::to_string_pretty(known) else { return };
        let fresh = self.path.with_extension("new");
        if std::fs::write(&fresh, text).is_ok() {
            let _ = std::fs::rename(&fresh, &self.path);
        }
    }
}

/// Key of a measurement: everything that it depends on.
fn key(conv: &network::Conv, input: &Shape, instructions: Instructions, threads: usize) -> String {
    let padding = (conv.window.before(), conv.window.after());
    let [height, width] = conv.window.kernel;
    let [down, right] = conv.window.stride;
    format!(
        "conv{height}x{width} {input} to {} channels, stride {down}x{right}, padding {padding:?}, {instructions:?}, {threads} threads",
        conv.out_channels()
    )
}

/// Measures the fastest algorithms, forward and backward, for one image.
fn measure(
    conv: &network::Conv,
    input: &Shape,
    output: &Shape,
    threads: &Arc<ThreadPool>,
    instructions: Instructions,
) -> [ConvAlgorithm; 2] {
    let config = KernelConfig {
        lanes: instructions.lanes(),
        threads: threads.count(),
        on_the_fly_bytes: ON_THE_FLY_BYTES,
        weightless: false,
        bf16: false,
    };
    let (mut from, mut to) = (Buffer::new(input.elements()), Buffer::new(output.elements()));
    let map = |buffer: &mut Buffer, shape: &Shape| {
        let data = buffer.values_mut().as_mut_ptr();
        FeatureMap { data, images: 1, height: shape[1], width: shape[2], channels: shape[0], pixel_stride: shape[0] }
    };
    let (from, to) = (map(&mut from, input), map(&mut to, output));
    let mut best = [(f64::INFINITY, ConvAlgorithm::Direct); 2];
    for algorithm in ConvAlgorithm::all(conv) {
        let kernel = ConvKernel::new(conv, input, output, config, [algorithm, algorithm]);
        let sizes = [[input[1], input[2]], [output[1], output[2]]];
        let mut scratch: Vec<Buffer> = (0..threads.count()).map(|_| Buffer::new(kernel.scratch_len())).collect();
        let mut shared = Buffer::new(kernel.shared_len(1, sizes, threads.count()));
        let scratch: Vec<SharedPtr> = scratch.iter_mut().map(SharedPtr::of).collect();
        let shared = SharedPtr::of(&mut shared);
        for (direction, best) in best.iter_mut().enumerate() {
            for _ in 0..ROUNDS {
                let started = Instant::now();
                threads.run(|worker| {
                    let (scratch, shared) = (scratch[worker.index()].pointer(), shared.pointer());
                    let ctx = ThreadCtx { worker, instructions, bf16: false, scratch, shared };
                    if direction == 0 {
                        let args = ForwardArgs { inputs: &[from], saved: None, forward: Forward::Original };
                        kernel.forward(&ctx, &args, &Epilogue::store_only(to));
                    } else {
                        let gate = Gate::Plain;
                        let args = BackwardArgs { inputs: &[from], output: to, saved: None, gradient: to, gate };
                        kernel.backward(&ctx, 0, &args, &Epilogue::store_only(from));
                    }
                });
                let seconds = started.elapsed().as_secs_f64();
                if seconds < best.0 {
                    *best = (seconds, algorithm);
                }
            }
        }
    }
    best.map(|(_, algorithm)| algorithm)
}
