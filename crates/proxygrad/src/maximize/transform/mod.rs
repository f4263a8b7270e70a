//! Transforms: random views of the images, their documents, sampling and adjoints.

mod blur;
mod colour;
mod document;
mod linear;
mod noise;
mod pad;
mod roll;
mod sampled;
mod sampling;
mod tensors;
mod views;

pub use self::document::{Transform, TransformKind};
pub(super) use self::views::Views;
