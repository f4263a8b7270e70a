//! Settings of the CPU engine.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::engine::cpu::kernel::{KernelConfig, ON_THE_FLY_BYTES};
use crate::engine::cpu::simd::Instructions;

/// Settings of a [`Cpu`](super::Cpu) engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuSettings {
    /// Threads of a pass. Default: all that the process may use.
    pub threads: Option<NonZeroUsize>,
    /// SIMD instruction set. Default: the fastest that the processor supports.
    pub instructions: Option<Instructions>,
    /// Whether passes round the operands of 1x1 convolutions and dense layers to bf16 where they may, see
    /// [`Plan::allow_reduced_precision`](crate::engine::Plan::allow_reduced_precision). Needs a processor with
    /// AVX512-BF16.
    pub bf16: bool,
    /// File that keeps the measurements of convolution algorithms. Default: nothing is measured, and the algorithms
    /// follow from the layers' shapes alone.
    pub tuning: Option<PathBuf>,
    /// Whether plans measure how long their steps take, see [`Plan::take_times`](crate::engine::Plan::take_times).
    pub timed: bool,
}

impl CpuSettings {
    /// Number of threads.
    pub(crate) fn thread_count(&self) -> usize {
        let available = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(available, NonZeroUsize::get)
    }

    /// Instruction set.
    pub(crate) fn instruction_set(&self) -> Instructions {
        self.instructions.unwrap_or_else(Instructions::detect)
    }

    /// Configuration of kernels, with or without weights.
    pub(crate) fn kernel_config(&self, weightless: bool) -> KernelConfig {
        let (lanes, threads) = (self.instruction_set().lanes(), self.thread_count());
        KernelConfig { lanes, threads, on_the_fly_bytes: ON_THE_FLY_BYTES, weightless, bf16: self.bf16 }
    }
}
