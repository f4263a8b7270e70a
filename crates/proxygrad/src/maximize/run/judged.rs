//! Runs whose stimuli are shown to judges.

use std::sync::Arc;

use super::maximize_within;
use crate::Invalid;
use crate::engine::{Engine, MemoryModel};
use crate::judge::{JudgeError, JudgeRef, Panel, Stimulus, class_of, memory_needed};
use crate::maximize::callback::Callback;
use crate::maximize::error::MaximizeError;
use crate::maximize::memory::TooLarge;
use crate::maximize::objective::Objective;
use crate::maximize::outcome::Outcome;
use crate::maximize::request::{Resolved, Settings};
use crate::maximize::task::Task;
use crate::network::{Model, Unit};

/// As [`maximize_within`], and then shows every stimulus to the judges of the settings, one judge and one stimulus at a
/// time. A stimulus that is cancelled meanwhile has no outcome.
///
/// # Errors
/// As [`maximize_within`], and [`MaximizeError::Judge`] when `judges` are not those of the settings, or one cannot run.
pub fn maximize_judged(
    engine: &dyn Engine,
    model: &Model,
    judges: &[Arc<Model>],
    tasks: &[Task],
    settings: &Settings,
    allowed: u64,
    callback: &mut dyn Callback,
) -> Result<Vec<Option<Outcome>>, MaximizeError> {
    let known = judges.iter().map(|judge| JudgeRef::of(judge));
    if !known.eq(settings.judges.iter().cloned()) {
        let expected = "the judges of the settings, with their weights";
        return Err(JudgeError::from(Invalid::new("judges", format!("{} models", judges.len()), expected)).into());
    }
    let mut outcomes = maximize_within(engine, model, tasks, settings, allowed, callback)?;
    if judges.is_empty() {
        return Ok(outcomes);
    }
    let mut panel = Panel::new(judges.to_vec()).map_err(JudgeError::from)?;
    for (i, (task, place)) in tasks.iter().zip(&mut outcomes).enumerate() {
        let (Some(outcome), Some(unit)) = (place.as_mut(), single_unit(&task.objective)) else { continue };
        let stimuli = [Stimulus { model, unit, png: &outcome.png }];
        let should_stop = &mut || callback.should_stop(i);
        match panel.verdicts(engine, &stimuli, allowed, should_stop)? {
            None => *place = None,
            Some(mut verdicts) => {
                if let (Some(diagnostics), Some(verdicts)) = (&mut outcome.findings.diagnostics, verdicts.pop()) {
                    diagnostics.judges = verdicts;
                }
            }
        }
    }
    Ok(outcomes)
}

/// The unit of an objective that maximizes a single one.
fn single_unit(objective: &Objective) -> Option<&Unit> {
    match objective.terms.as_slice() {
        [term] if term.weight > 0.0 => Some(&term.unit),
        _ => None,
    }
}

impl Resolved {
    /// The request with its judges, which it named by their ids, loaded.
    ///
    /// # Errors
    /// An [`Invalid`] that names the judge that is not a classifier or cannot judge an objective.
    pub fn judged_by(mut self, model: &Model, judges: &[Arc<Model>]) -> Result<Self, Invalid> {
        const FIELD: &str = "diagnostics";
        Panel::new(judges.to_vec()).map_err(|error| error.within(FIELD))?;
        let wanted = self.settings.judges.iter().map(|judge| judge.id.as_str());
        if !wanted.clone().eq(judges.iter().map(|judge| judge.id.as_str())) {
            let given: Vec<&str> = judges.iter().map(|judge| judge.id.as_str()).collect();
            let expected = format!("the models [{}], which the request names", wanted.collect::<Vec<_>>().join(", "));
            return Err(Invalid::new(format!("{FIELD}.judges"), format!("[{}]", given.join(", ")), expected));
        }
        for (i, judge) in judges.iter().enumerate() {
            for objective in &self.objectives {
                check(model, objective, judge)
                    .map_err(|error| Invalid { field: format!("{FIELD}.judges[{i}]"), ..error })?;
            }
        }
        for settings in std::iter::once(&mut self.settings).chain(&mut self.other_settings) {
            settings.judges = judges.iter().map(|judge| JudgeRef::of(judge)).collect();
        }
        Ok(self)
    }
}

/// Checks that a judge has something to say about an objective.
fn check(model: &Model, objective: &Objective, judge: &Model) -> Result<(), Invalid> {
    let refuse = |expected: &str| Err(Invalid::new("judges", &judge.id, format!("{expected}: {objective}")));
    let Some(unit) = single_unit(objective) else {
        return refuse("no judges with an objective that is not a single unit with a positive weight");
    };
    let is_calibrated = model.calibration.as_ref().is_some_and(|calibration| calibration.statistics(unit).is_ok());
    match class_of(model, unit, judge)? {
        Some(_) if judge.digest == model.digest && !is_calibrated => {
            refuse("another model than the one that is maximized")
        }
        None if !is_calibrated => refuse("no judges with a unit that is neither a class nor in a calibrated layer"),
        _ => Ok(()),
    }
}

/// The first judge that needs more than `allowed` bytes of memory, with its field.
///
/// # Errors
/// If a judge cannot run.
pub fn judges_too_large(
    memory: &MemoryModel,
    judges: &[Arc<Model>],
    allowed: u64,
) -> Result<Option<TooLarge>, Invalid> {
    for (i, judge) in judges.iter().enumerate() {
        let field = format!("judges[{i}]");
        let needed = memory_needed(memory, judge)
            .map_err(|error| Invalid::new(&field, &judge.id, format!("a model that runs: {error}")))?;
        if needed > allowed {
            return Ok(Some(TooLarge {
                needed,
                allowed,
                fields: vec![Invalid::new(field, &judge.id, "a smaller model")],
            }));
        }
    }
    Ok(None)
}
