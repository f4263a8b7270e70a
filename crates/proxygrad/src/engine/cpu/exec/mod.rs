//! Execution of plans: the executor, its thread team, and the tiled execution of fused groups.

pub(crate) mod arenas;
pub(crate) mod executor;
pub(crate) mod profiler;
pub(crate) mod redirect;
pub(crate) mod row_tiling;
pub(crate) mod step_runner;
pub(crate) mod tensor_io;
pub(crate) mod threads;
