//! Exhibits: units whose images the report shows.

use std::collections::HashMap;

use crate::report::html::percent;
use crate::study::plan::types::Plan;
use crate::study::summary::{Comparison, Summary, UnitScores};

/// Number of units per layer whose images are shown.
const PER_LAYER: usize = 2;

/// Units of a comparison whose images are shown, each with a remark.
pub(super) struct Exhibits<'a> {
    /// The units drawn first from each layer.
    pub(super) first: Vec<(&'a UnitScores, String)>,
    /// The units with the largest losses of the arm in focus.
    pub(super) losses: Vec<(&'a UnitScores, String)>,
}

impl<'a> Exhibits<'a> {
    pub(super) fn select(plan: &Plan, summary: &Summary, comparison: &'a Comparison) -> Self {
        let remark = remarks(plan, comparison);
        let mut shown: HashMap<&str, usize> = HashMap::new();
        let first = comparison.units.iter().filter(|unit| {
            let shown = shown.entry(&unit.layer).or_default();
            *shown += 1;
            *shown <= PER_LAYER
        });
        let losses = comparison.losses(&plan.arms, &summary.options).into_iter().map(|(unit, ratio)| {
            let share = ratio.map(|ratio| format!(" at {} of the best arm's mean score", percent(ratio)));
            (unit, format!("{}{}", remark(unit), share.unwrap_or_default()))
        });
        Self { first: first.map(|unit| (unit, remark(unit))).collect(), losses: losses.collect() }
    }
}

/// Remark on a unit of a comparison: the name of its class in brackets, if it has one.
pub(super) fn remarks<'a>(plan: &'a Plan, comparison: &Comparison) -> impl Fn(&UnitScores) -> String + 'a {
    let model = plan.models.iter().find(|model| model.id == comparison.model);
    let layers = model.into_iter().flat_map(|model| &model.layers);
    let classes: HashMap<&str, &str> =
        layers.flat_map(|layer| layer.units.iter().zip(&layer.classes)).map(|(a, b)| (&**a, &**b)).collect();
    move |unit| classes.get(&*unit.unit).map(|class| format!("({class})")).unwrap_or_default()
}
