//! Memory footprint of a plan, found by planning with kernels that hold no weights.

use crate::engine::cpu::buffer::Buffer;
use crate::engine::cpu::kernel::{KernelConfig, MICRO_BATCH};
use crate::engine::cpu::kernel_cache::NetworkKernels;
use crate::engine::cpu::kernels::conv::ConvAlgorithm;
use crate::engine::cpu::plan::ExecutionPlan;
use crate::engine::cpu::plan::row_tiling::TilingLimits;
use crate::engine::cpu::settings::CpuSettings;
use crate::engine::cpu::tune::ConvAlgorithms;
use crate::engine::subgraph::Subgraph;
use crate::engine::{EngineError, Footprint, Target};
use crate::network::{Network, Op, Shape};

/// What the footprint of a CPU engine's plans depends on.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct CpuMemory {
    config: KernelConfig,
    /// Whether convolution algorithms are measured, so that they are unknown before.
    tuned: bool,
    limits: TilingLimits,
}

impl CpuMemory {
    /// That of an engine with these settings, which need not be started.
    pub(in crate::engine) fn of(settings: &CpuSettings) -> Self {
        let (config, tuned) = (settings.kernel_config(true), settings.tuning.is_some());
        Self { config, tuned, limits: TilingLimits::default() }
    }

    /// The footprint of a plan; an upper bound where algorithms are measured.
    pub(in crate::engine) fn footprint(
        &self,
        network: &Network,
        targets: &[Target],
        input: &Shape,
    ) -> Result<Footprint, EngineError> {
        let subgraph = Subgraph::new(network, targets, input)?;
        let estimated = ConvAlgorithms::estimate(network, &subgraph);
        let mut footprint = self.with_algorithms(network, &subgraph, &estimated)?;
        if self.tuned {
            for choice in 0.. {
                let Some(algorithms) = uniform(network, &subgraph, choice) else { break };
                footprint = footprint.max(self.with_algorithms(network, &subgraph, &algorithms)?);
            }
        }
        Ok(footprint)
    }

    fn with_algorithms(
        &self,
        network: &Network,
        subgraph: &Subgraph,
        algorithms: &ConvAlgorithms,
    ) -> Result<Footprint, EngineError> {
        let kernels = NetworkKernels::default();
        let plan = ExecutionPlan::new(network, subgraph, self.config, algorithms, &kernels, self.limits)?;
        Ok(footprint(&plan, self.config.threads))
    }
}

/// Every convolution by its algorithm of this index, or its last one; None if no convolution has that many.
fn uniform(network: &Network, subgraph: &Subgraph, choice: usize) -> Option<ConvAlgorithms> {
    let mut algorithms = ConvAlgorithms::default();
    let mut some = false;
    for node in &subgraph.nodes {
        let Op::Conv(conv) = &network.node(node.id).op else { continue };
        let all = ConvAlgorithm::all(conv);
        some |= choice < all.len();
        if let Some(&algorithm) = all.get(choice).or(all.last()) {
            algorithms.0.insert(node.id, [algorithm; 2]);
        }
    }
    some.then_some(algorithms)
}

/// What the [`Executor`](crate::engine::cpu::exec::executor::Executor) of a plan allocates.
pub(crate) fn footprint(plan: &ExecutionPlan, threads: usize) -> Footprint {
    let bytes = |values: usize| Buffer::bytes(values) as u64;
    let together = |images: usize| bytes(plan.shared_len(images, threads)) + bytes(plan.transient_len * images);
    Footprint {
        fixed: plan.weight_bytes as u64 + threads as u64 * bytes(plan.scratch_len.iter().sum()),
        kept: bytes(plan.saved_len),
        recorded: plan.record_len as u64 * size_of::<f32>() as u64,
        together: (1..=MICRO_BATCH).map(together).collect(),
    }
}
