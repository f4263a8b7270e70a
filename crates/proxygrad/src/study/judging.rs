//! Judges the stimuli of a batch.

use std::sync::Arc;
use std::time::Instant;

use super::error::StudyError;
use super::execute::BatchProgress;
use super::plan::types::Plan;
use super::readability::Readability;
use crate::Invalid;
use crate::engine::Engine;
use crate::judge::{JudgeError, Panel, Stimulus};
use crate::maximize::{Callback, MaximizeError, Naturalness, Objective, Outcome};
use crate::network::{Model, Unit};

/// The panel of a plan's judges.
///
/// # Errors
/// If one of them is not among these models.
pub(super) fn panel(plan: &Plan, models: &[Arc<Model>]) -> Result<Panel, Invalid> {
    let loaded = plan.judges.iter().map(|judge| {
        let found = models.iter().find(|model| model.id == judge.id && model.digest == judge.digest);
        found.cloned().ok_or_else(|| Invalid::new("judges", &judge.id, "the model that was planned with"))
    });
    Panel::new(loaded.collect::<Result<_, _>>()?)
}

/// Readability of the stimuli of some units of a model; `None` if stopped. Each judge runs within `memory` bytes.
pub(super) fn judge(
    panel: &mut Panel,
    model: &Model,
    stimuli: &[(&str, &Outcome)],
    engine: &dyn Engine,
    memory: u64,
    what: &str,
    progress: &mut BatchProgress<'_, '_>,
) -> Result<Option<Vec<Readability>>, StudyError> {
    let started = Instant::now();
    let units = stimuli.iter().map(|(unit, _)| unit.parse()).collect::<Result<Vec<Unit>, Invalid>>()?;
    let shown: Vec<Stimulus<'_>> =
        units.iter().zip(stimuli).map(|(unit, (_, outcome))| Stimulus { model, unit, png: &outcome.png }).collect();
    let failed = |source: JudgeError| StudyError::Run { what: what.to_owned(), source: MaximizeError::from(source) };
    let verdicts = panel.verdicts(engine, &shown, memory, &mut || progress.should_stop(0)).map_err(failed)?;
    let Some(verdicts) = verdicts else { return Ok(None) };
    let seconds = started.elapsed().as_secs_f32() / stimuli.len().max(1) as f32;
    let readability = |(verdicts, (unit, outcome)): (_, &(&str, &Outcome))| {
        let objective: Objective = unit.parse()?;
        let measured = Naturalness::measure(model, &objective, outcome);
        let Naturalness { percent_of_natural, spectral_excess } = measured.map_err(|error| failed(error.into()))?;
        Ok(Readability { percent_of_natural, spectral_excess, seconds, verdicts })
    };
    verdicts.into_iter().zip(stimuli).map(readability).collect::<Result<_, StudyError>>().map(Some)
}
