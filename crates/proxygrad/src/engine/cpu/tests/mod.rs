//! Tests of the CPU engine's kernels and of row tiling, on every instruction set that the processor supports.
//!
//! Under Miri only the portable kernels run, on small layers (`tools/sanitizers/run.sh`).

mod activation_mask;
mod bf16;
mod conv;
mod row_tiling;
mod soft_gate;
mod vector_math;

use super::simd::Instructions;

/// The instruction sets that this processor supports.
fn instruction_sets() -> impl Iterator<Item = Instructions> {
    let all = [Instructions::Avx512, Instructions::Avx2, Instructions::Portable];
    all.into_iter().filter(|set| if cfg!(miri) { *set == Instructions::Portable } else { set.available() })
}
