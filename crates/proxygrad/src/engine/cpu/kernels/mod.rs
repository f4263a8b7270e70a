//! Kernels: one file per operation or family of operations.
//!
//! Hot operations have vectorized kernels. The others implement [`ScalarOp`](scalar::ScalarOp) on plain slices.

pub(crate) mod activation;
pub(crate) mod average_pool;
pub(crate) mod binary;
pub(crate) mod broadcast;
pub(crate) mod concat;
pub(crate) mod conv;
pub(crate) mod dense;
pub(crate) mod elementwise;
pub(crate) mod gather;
pub(crate) mod gemm;
pub(crate) mod gemm_bf16;
pub(crate) mod local_response;
pub(crate) mod matmul;
pub(crate) mod max_pool;
pub(crate) mod memory_order;
pub(crate) mod moves;
pub(crate) mod normalize;
pub(crate) mod product;
pub(crate) mod quantize;
pub(crate) mod reduce;
pub(crate) mod resize;
pub(crate) mod scalar;
pub(crate) mod scalar_normalize;
pub(crate) mod softmax;
pub(crate) mod taps;
pub(crate) mod unary;
pub(crate) mod value_groups;
