//! Memory of a run: an estimate before it starts, and batches that fit a bound.

mod batches;
mod estimate;

pub use self::batches::{TooLarge, plan_batches};
pub use self::estimate::{MemoryEstimate, outcome_bytes};
