//! Training on the CPU engine: the engine's kernels, weight gradients, and batch normalization over whole
//! batches.
//!
//! | module | content |
//! |---|---|
//! | [`plan`] | the passes over a trainable network, and their memory |
//! | [`steps`] | how each node is computed, and which are computed together |
//! | [`weight_gradient`] | gradients of the weights of convolutions and dense layers |
//! | [`batch_norm`] | batch normalization, forward and backward |
//! | [`normalized`] | normalized maps with a residual, computed where they are needed |
//! | [`surrogate`] | rectifiers with surrogate derivatives |
//! | [`channel_sums`] | sums per channel over a batch |
//!
//! Every sum has a fixed order that does not depend on the number of threads.

pub(crate) mod batch_norm;
pub(crate) mod channel_sums;
pub(crate) mod normalized;
pub(crate) mod plan;
pub(crate) mod steps;
pub(crate) mod surrogate;
pub(crate) mod weight_gradient;
