//! Measures which method computes a convolution fastest on this machine.
//!
//! Measurements are kept in a file and known by the layer's shape, the instructions and the number of threads; a layer
//! that is measured once is the same from then on, so that results stay reproducible.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::conv::{Conv, Method};
use super::finish::Finish;
use super::map::{Buffer, Map, Shared};
use super::methods::Methods;
use super::simd::Instructions;
use super::team::Threads;
use super::{Ahead, Back, HEAVY, Kernel, Layout, Site};
use crate::engine::subgraph::Subgraph;
use crate::engine::{Forward, Gate};
use crate::network::{self, Network, Op, Shape};

/// Longest time spent on the layers of one plan; those that are left keep what their shapes suggest.
const BUDGET: Duration = Duration::from_secs(3);

/// Passes whose fastest counts.
const ROUNDS: usize = 5;

/// Measured methods and the file that keeps them.
#[derive(Debug)]
pub(super) struct Tuner {
    path: PathBuf,
    /// Methods forward and backward, by layer; read from the file at the first use.
    known: Mutex<Option<Known>>,
}

type Known = BTreeMap<String, [Method; 2]>;

impl Tuner {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::new(None) }
    }

    /// Puts measured methods in the place of estimated ones.
    pub(super) fn tune(
        &self,
        methods: &mut Methods,
        network: &Network,
        subgraph: &Subgraph,
        threads: &Arc<Threads>,
        instructions: Instructions,
    ) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_with(|| self.read());
        let (started, mut measured) = (Instant::now(), false);
        for node in &subgraph.nodes {
            let Op::Conv(conv) = &network.node(node.id).op else { continue };
            if Method::all(conv).len() == 1 {
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
                methods.0.insert(node.id, chosen);
            }
        }
        if measured {
            self.write(known);
        }
    }

    /// What the file holds; nothing when there is none or it cannot be read.
    fn read(&self) -> Known {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// A measurement that cannot be kept is made again next time.
    fn write(&self, known: &Known) {
        let Ok(text) = serde_json::to_string_pretty(known) else { return };
        let fresh = self.path.with_extension("new");
        if std::fs::write(&fresh, text).is_ok() {
            let _ = std::fs::rename(&fresh, &self.path);
        }
    }
}

/// What a measurement holds for.
fn key(conv: &network::Conv, input: &Shape, instructions: Instructions, threads: usize) -> String {
    let padding = (conv.window.before(), conv.window.after());
    let [height, width] = conv.window.kernel;
    let [down, right] = conv.window.stride;
    format!(
        "conv{height}x{width} {input} to {} channels, stride {down}x{right}, padding {padding:?}, {instructions:?}, {threads} threads",
        conv.out_channels()
    )
}

/// The fastest methods, forward and backward, for one image.
fn measure(
    conv: &network::Conv,
    input: &Shape,
    output: &Shape,
    threads: &Arc<Threads>,
    instructions: Instructions,
) -> [Method; 2] {
    let layout = Layout { lanes: instructions.lanes(), threads: threads.count(), heavy: HEAVY, hollow: false };
    let (mut from, mut to) = (Buffer::new(input.elements()), Buffer::new(output.elements()));
    let map = |buffer: &mut Buffer, shape: &Shape| {
        let data = buffer.values_mut().as_mut_ptr();
        Map { data, images: 1, height: shape[1], width: shape[2], channels: shape[0], pixel: shape[0] }
    };
    let (from, to) = (map(&mut from, input), map(&mut to, output));
    let mut best = [(f64::INFINITY, Method::Direct); 2];
    for method in Method::all(conv) {
        let kernel = Conv::new(conv, input, output, layout, [method, method]);
        let sizes = [[input[1], input[2]], [output[1], output[2]]];
        let mut scratch: Vec<Buffer> = (0..threads.count()).map(|_| Buffer::new(kernel.scratch())).collect();
        let mut shared = Buffer::new(kernel.shared(1, sizes, threads.count()));
        let scratch: Vec<Shared> = scratch.iter_mut().map(Shared::of).collect();
        let shared = Shared::of(&mut shared);
        for (direction, best) in best.iter_mut().enumerate() {
            for _ in 0..ROUNDS {
                let started = Instant::now();
                threads.run(|member| {
                    let (scratch, shared) = (scratch[member.index()].pointer(), shared.pointer());
                    let site = Site { member, instructions, scratch, shared };
                    if direction == 0 {
                        let ahead = Ahead { inputs: &[from], memory: None, forward: Forward::Original };
                        kernel.forward(&site, &ahead, &Finish::plain(to));
                    } else {
                        let gate = Gate::Plain;
                        let back = Back { inputs: &[from], output: to, memory: None, gradient: to, gate };
                        kernel.backward(&site, 0, &back, &Finish::plain(from));
                    }
                });
                let seconds = started.elapsed().as_secs_f64();
                if seconds < best.0 {
                    *best = (seconds, method);
                }
            }
        }
    }
    best.map(|(_, method)| method)
}
