//! What the axes of a layer count, and views that list channels as units.
//!
//! Files store maps as `[C,H,W]`, `[H,W,C]` or tokens `[T,C]`, attention splits channels into heads and Swin
//! splits rows and columns into windows. Every axis is therefore followed from the image through the graph: an axis is
//! a product of [`Digit`]s, each a part of the numbering of the channels, rows or columns, and reshapes and
//! transpositions only regroup them. A layer whose channels are not in front, or whose rows and columns share an axis,
//! gets a view: a transposition (with slices and reshapes for tokens) to `[C,H,W]`, that is computed only when it is a
//! target.

mod axis;
mod infer;
mod reshape;
mod view;

pub(super) use view::Views;

use axis::{AxisLayout, Digit, Role};

#[cfg(test)]
mod tests;
