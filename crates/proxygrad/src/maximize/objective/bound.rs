//! Objectives bound to the targets of a plan, with their reference activations.

use candle_core::{Result, Tensor};

use super::document::{Objective, Term};
use crate::network::{ImageSource, Selection};

/// One term of an objective, bound to one of a plan's targets.
#[derive(Debug, Clone)]
pub(super) struct BoundTerm {
    /// Position of the layer among the plan's targets.
    pub(super) target: usize,
    pub(super) selection: Selection,
    pub(super) weight: f32,
    /// The target's values `[C,H,W]` or `[K]` on the unit's reference image.
    pub(super) reference: Option<Tensor>,
}

impl BoundTerm {
    /// The unit's reference image, if any.
    fn image(&self) -> Option<&ImageSource> {
        match &self.selection {
            Selection::Caricature { image, .. } | Selection::Inversion { image } => Some(image),
            _ => None,
        }
    }
}

/// An objective bound to the targets of a plan.
#[derive(Debug, Clone)]
pub(in crate::maximize) struct BoundObjective(pub(super) Vec<BoundTerm>);

impl BoundObjective {
    /// `target_of` returns a layer's position among the targets.
    pub(in crate::maximize) fn new(objective: &Objective, target_of: impl Fn(&str) -> Option<usize>) -> Self {
        let term = |term: &Term| {
            let selection = term.unit.selection.clone();
            Some(BoundTerm { target: target_of(&term.unit.layer)?, selection, weight: term.weight, reference: None })
        };
        Self(objective.terms.iter().filter_map(term).collect())
    }

    /// Reference images of the units.
    pub(in crate::maximize) fn images(&self) -> impl Iterator<Item = &ImageSource> {
        self.0.iter().filter_map(BoundTerm::image)
    }

    /// Sets the reference activations: `values(image, target)` returns a target's values on an image.
    pub(in crate::maximize) fn set_references(
        &mut self,
        values: impl Fn(&ImageSource, usize) -> Result<Tensor>,
    ) -> Result<()> {
        for term in &mut self.0 {
            if let Some(image) = term.image() {
                term.reference = Some(values(image, term.target)?);
            }
        }
        Ok(())
    }
}
