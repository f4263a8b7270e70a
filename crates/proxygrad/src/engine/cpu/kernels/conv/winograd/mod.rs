//! Winograd convolution.
//!
//! Lavin & Gray, arXiv:1509.09308, section 4: tiles of the input and the kernels are transformed, multiplied element by
//! element (as one matrix product of tiles and channels per element), and the products transformed back. F(4x4, 3x3)
//! needs 2.25 products of a channel pair per output, direct convolution 9. The backward pass is the same algorithm with
//! rotated kernels. A window of stride 2 is a sum of kernels of stride 1, see [`phases`].

pub(crate) mod cost;
pub(crate) mod input_transform;
pub(crate) mod multiply;
pub(crate) mod packed;
pub(crate) mod phases;
pub(crate) mod run;
pub(crate) mod transforms;
