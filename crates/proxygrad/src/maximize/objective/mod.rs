//! Objectives: their documents, values and gradients.

mod bound;
mod document;
mod group;
mod scoring;
mod similarity;
#[cfg(test)]
mod tests;

pub(super) use self::bound::BoundObjective;
pub use self::document::{Objective, ObjectiveDocument, Term};
pub(super) use self::scoring::Scoring;
