//! Model runner: forward and backward passes through the part of a network below its targets.

mod activation_scales;
mod runner;
mod targets;

pub(super) use self::activation_scales::sources;
pub(super) use self::runner::ModelRunner;
pub(super) use self::targets::Targets;
