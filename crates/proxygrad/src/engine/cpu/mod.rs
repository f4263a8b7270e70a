//! CPU engine in f32: fused, vectorized kernels over channels-last feature maps, forward and gated backward.
//!
//! | module | content |
//! |---|---|
//! | [`kernel`], [`kernels`] | kernel traits, and their implementations |
//! | [`activation`] | activations and gates as vector functions |
//! | [`epilogue`], [`activation_mask`], [`breakpoints`] | what is fused into a kernel: bias, residual, activation, gate |
//! | [`lower`] | lowering: which kernel computes an operation |
//! | [`plan`] | planning: operator fusion, backward schedule, memory planner, row tiling, footprint |
//! | [`exec`] | execution: executor, thread team, profiler |
//! | [`kernel_cache`], [`tune`] | reuse of packed weights, choice of convolution algorithms |
//! | [`simd`] | one trait for AVX-512, AVX2 and portable code |
//! | [`buffer`], [`layout`], [`feature_map`] | aligned memory, the order of values in it, and NHWC views of it |
//!
//! Every sum is one chain of multiply-adds in a fixed order, so results depend neither on the number of threads nor on
//! the batch.

mod activation;
mod activation_mask;
mod breakpoints;
mod buffer;
mod epilogue;
mod exec;
mod feature_map;
mod kernel;
mod kernel_cache;
mod kernels;
mod layout;
mod lower;
mod plan;
mod settings;
mod simd;
#[cfg(test)]
mod tests;
mod training;
mod tune;

use std::sync::Arc;

use candle_core::{DType, Device};

use self::exec::executor::Executor;
use self::exec::threads::ThreadPool;
use self::kernel::KernelConfig;
use self::kernel_cache::KernelCache;
use self::kernels::gemm_bf16;
use self::plan::ExecutionPlan;
pub(super) use self::plan::footprint::CpuMemory;
use self::plan::row_tiling::TilingLimits;
pub use self::settings::CpuSettings;
pub use self::simd::Instructions;
use self::tune::{ConvAlgorithms, Tuner};
use super::subgraph::Subgraph;
use super::{Engine, EngineError, MemoryModel, Plan, Target, TrainingEngine};
use crate::network::{Network, Shape};

/// The CPU engine, in f32, and in bf16 where [`CpuSettings::bf16`] says so.
#[derive(Debug, Clone)]
pub struct Cpu {
    threads: Arc<ThreadPool>,
    instructions: Instructions,
    config: KernelConfig,
    cache: Arc<KernelCache>,
    tuner: Option<Arc<Tuner>>,
    timed: bool,
    limits: TilingLimits,
    memory: MemoryModel,
}

impl Cpu {
    /// Starts the engine's threads.
    ///
    /// # Errors
    /// If the processor does not support the instruction set or bf16, or threads cannot be started.
    pub fn new(settings: &CpuSettings) -> Result<Self, EngineError> {
        let instructions = settings.instruction_set();
        if !instructions.available() {
            let why = format!("this processor does not support the instruction set {instructions:?}");
            return Err(EngineError::Device { device: "cpu".into(), why });
        }
        if settings.bf16 && (instructions != Instructions::Avx512 || !gemm_bf16::available()) {
            let why = "only processors with AVX512-BF16 multiply bf16, with the instruction set avx512";
            return Err(EngineError::Device { device: "cpu+bf16".into(), why: why.into() });
        }
        let threads = ThreadPool::new(settings.thread_count())?;
        let tuner = settings.tuning.as_ref().map(|path| Arc::new(Tuner::new(path.clone())));
        Ok(Self {
            config: KernelConfig { threads: threads.count(), ..settings.kernel_config(false) },
            threads: Arc::new(threads),
            instructions,
            cache: Arc::default(),
            tuner,
            timed: settings.timed,
            limits: TilingLimits::default(),
            memory: MemoryModel::cpu(CpuMemory::of(settings)),
        })
    }
}

impl Engine for Cpu {
    fn training(&self) -> Option<&dyn TrainingEngine> {
        Some(self)
    }

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
        self.cache.release_unused()
    }

    fn plan(&self, network: &Arc<Network>, targets: &[Target], input: &Shape) -> Result<Box<dyn Plan>, EngineError> {
        let subgraph = Subgraph::new(network, targets, input)?;
        let mut algorithms = ConvAlgorithms::estimate(network, &subgraph);
        if let Some(tuner) = &self.tuner {
            tuner.tune(&mut algorithms, network, &subgraph, &self.threads, self.instructions);
        }
        let kernels = self.cache.for_network(network);
        let plan = ExecutionPlan::new(network, &subgraph, self.config, &algorithms, &kernels, self.limits)?;
        self.cache.evict(&plan.cached_kernels);
        Ok(Box::new(Executor::new(Arc::clone(&self.threads), self.instructions, subgraph, plan, self.timed)))
    }
}
