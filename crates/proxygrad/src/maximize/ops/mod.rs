//! Image arithmetic: the choice between host loops and tensor operations, and the tools of the host loops.

pub(in crate::maximize) mod host;
mod placement;

pub(in crate::maximize) use self::placement::{Arithmetic, Placement, sum_dtype};
