//! Maxima of units of the trained networks: how far the same request drives the units of networks that were trained in
//! different ways.
//!
//! Values of two networks have different scales. What is compared is each maximum as a multiple of the unit's natural
//! maximum, its largest response to the test images, and whether a gate moves the unit at all.

mod plan;
mod row;
mod run;
mod summary;

pub use plan::{MaximaDesign, MaximaPlan};
pub use row::{MaximumKey, MaximumRow};
pub(super) use run::MaximaRunner;
pub(super) use summary::of_table;
pub use summary::{ArmMaxima, GateMaxima, MaximaComparison};
