//! Arithmetic of images in the loop.

pub(in crate::maximize) mod host;
pub(in crate::maximize) mod placement;
