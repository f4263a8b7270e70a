//! Optimizers: their documents and their state.

mod ascent;
mod broadcast;
mod document;
mod loops;
mod moments;
mod momentum;
mod spectral;
mod tensors;

pub(super) use self::ascent::{Ascent, Range};
pub use self::document::{Decay, Optimizer, OptimizerKind, OptimizerRequest};
