//! Model runner: forward and backward through the part of a network below its targets.

mod activation_scales;
mod passes;
mod targets;

pub(super) use self::activation_scales::sources;
pub(super) use self::passes::Passes;
pub(super) use self::targets::Aimed;
