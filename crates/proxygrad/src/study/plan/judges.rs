//! Judges of a plan: checks that each has something to judge.

use std::sync::Arc;

use super::types::{Design, PlannedModel};
use crate::Invalid;
use crate::judge::{JudgeRef, Panel, class_of};
use crate::network::{Model, Unit};

/// The judges of a design whose models have these units.
pub(super) fn planned_judges(design: &Design, planned: &[PlannedModel]) -> Result<Vec<JudgeRef>, Invalid> {
    Panel::new(design.judges.clone())?;
    let judge = |(i, judge): (usize, &Arc<Model>)| match check(design, planned, judge) {
        Ok(()) => Ok(JudgeRef::of(judge)),
        Err(error) => Err(Invalid { field: format!("judges[{i}]"), ..error }),
    };
    design.judges.iter().enumerate().map(judge).collect()
}

/// Checks that a judge knows a class of the study, or that a layer is calibrated.
fn check(design: &Design, planned: &[PlannedModel], judge: &Model) -> Result<(), Invalid> {
    let expected = "a model that did not make the classes it judges, or a study of calibrated layers";
    let mut why = Invalid::new("judges", &judge.id, expected);
    for ((model, _), planned) in design.models.iter().zip(planned) {
        for layer in &planned.layers {
            if model.calibration.as_ref().is_some_and(|calibration| calibration.layers.contains_key(&layer.name)) {
                return Ok(());
            }
            for unit in layer.units.iter().filter(|_| model.digest != judge.digest) {
                match unit.parse::<Unit>().and_then(|unit| class_of(model, &unit, judge)) {
                    Ok(Some(_)) => return Ok(()),
                    Ok(None) => {}
                    Err(error) => why = error,
                }
            }
        }
    }
    Err(why)
}
