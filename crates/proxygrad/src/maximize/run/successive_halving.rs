//! Successive halving at work: candidates share the steps of a run, and the worse half is dropped after each rung.

use super::context::Run;
use super::optimization::{Optimization, Strategy};
use super::stimulus_state::StimulusState;
use crate::maximize::error::MaximizeError;
use crate::maximize::halving::Halving;
use crate::maximize::outcome::{ArmFindings, Outcome, Warning};

struct SuccessiveHalving<'a> {
    /// One optimization per strategy, each with the stimuli that it is still a candidate for.
    candidates: Vec<Optimization<'a>>,
    /// Steps that each task has spent so far, on all its candidates.
    spent: Vec<u32>,
    /// By task, the findings of dropped candidates.
    dropped: Vec<Vec<ArmFindings>>,
}

/// Runs the tasks with successive halving. The winner is chosen for each task on its own. Outcomes by task.
pub(super) fn successive_halving<'a>(
    run: &mut Run<'a>,
    halving: &'a Halving,
) -> Result<Vec<(usize, Outcome)>, MaximizeError> {
    let steps = halving.horizon(run.settings.steps).unwrap_or(run.settings.steps);
    let mut candidates = Vec::new();
    for gate in &halving.arms {
        for restart in 0..halving.restarts {
            candidates.push(Optimization::new(run, Strategy { gate, restart, steps })?);
        }
    }
    let (spent, dropped) = (vec![0; run.tasks.len()], vec![Vec::new(); run.tasks.len()]);
    let mut search = SuccessiveHalving { candidates, spent, dropped };
    for (&rung, left) in halving.rungs.iter().zip(halving.left().into_iter().skip(1)) {
        search.advance(run, rung)?;
        search.keep_best(run, left as usize)?;
    }
    let mut step = halving.rungs.iter().sum::<u32>();
    if let (Some(gate), Some(before)) = (&halving.rescue, halving.before_rescue(steps)) {
        search.advance(run, before - step)?;
        step = before;
        search.rescue(run, Strategy { gate, restart: 0, steps: steps - step })?;
    }
    search.complete(run)
}

impl<'a> SuccessiveHalving<'a> {
    /// Advances every candidate by `steps` steps.
    fn advance(&mut self, run: &mut Run<'a>, steps: u32) -> Result<(), MaximizeError> {
        for candidate in &mut self.candidates {
            candidate.count_from(&self.spent);
            candidate.stimuli.iter().for_each(|stimulus| self.spent[stimulus.task] += steps);
            candidate.advance(run, steps)?;
        }
        Ok(())
    }

    /// Keeps the best `count` candidates of every task and drops the others.
    fn keep_best(&mut self, run: &mut Run<'a>, count: usize) -> Result<(), MaximizeError> {
        // By task, the best score and index of each candidate. The sort is stable: among equals the first is kept.
        let mut ranking: Vec<Vec<(f32, usize)>> = vec![Vec::new(); self.spent.len()];
        for (index, candidate) in self.candidates.iter_mut().enumerate() {
            candidate.ensure_scored(run)?;
            for stimulus in &candidate.stimuli {
                ranking[stimulus.task].push((stimulus.best.map_or(f32::NEG_INFINITY, |best| best.score), index));
            }
        }
        for ranked in &mut ranking {
            ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
            ranked.truncate(count);
        }
        self.retain(run, |stimulus, index| ranking[stimulus.task].iter().any(|&(_, kept)| kept == index))
    }

    /// Restarts the tasks that never improved on their start, with another strategy.
    fn rescue(&mut self, run: &mut Run<'a>, strategy: Strategy<'a>) -> Result<(), MaximizeError> {
        let mut never_improved = vec![false; run.tasks.len()];
        for candidate in &mut self.candidates {
            candidate.ensure_scored(run)?;
            for stimulus in &candidate.stimuli {
                never_improved[stimulus.task] = stimulus.never_improved();
            }
        }
        if !never_improved.contains(&true) {
            return Ok(());
        }
        self.retain(run, |stimulus, _| !never_improved[stimulus.task])?;
        let mut rescued = Optimization::new(run, strategy)?;
        let improved: Vec<bool> = never_improved.iter().map(|never| !never).collect();
        rescued.take_rows(run, &improved)?;
        self.candidates.push(rescued);
        Ok(())
    }

    /// Drops the stimuli for which `keep(stimulus, index of its candidate)` is false, and records what they reached.
    fn retain(&mut self, run: &mut Run<'_>, keep: impl Fn(&StimulusState, usize) -> bool) -> Result<(), MaximizeError> {
        for (index, candidate) in self.candidates.iter_mut().enumerate() {
            let dropped: Vec<bool> = candidate.stimuli.iter().map(|stimulus| !keep(stimulus, index)).collect();
            for stimulus in candidate.take_rows(run, &dropped)? {
                let score = stimulus.best.map(|best| best.score);
                let findings = candidate.strategy.findings(candidate.step, stimulus.passes, score, false);
                self.dropped[stimulus.task].push(findings);
            }
        }
        self.candidates.retain(|candidate| !candidate.stimuli.is_empty());
        Ok(())
    }

    /// Makes the remaining steps of every task with its only candidate.
    fn complete(mut self, run: &mut Run<'a>) -> Result<Vec<(usize, Outcome)>, MaximizeError> {
        let mut outcomes = Vec::with_capacity(self.spent.len());
        for mut candidate in self.candidates {
            candidate.count_from(&self.spent);
            let strategy = candidate.strategy;
            for (task, mut outcome) in candidate.complete(run)? {
                let found = &mut outcome.findings;
                found.arms = std::mem::take(&mut self.dropped[task]);
                let dropped_passes: u32 = found.arms.iter().map(|arm| arm.passes).sum();
                let dropped_steps: u32 = found.arms.iter().map(|arm| arm.steps).sum();
                // The unit is not dead if another candidate changed its score.
                if found.arms.iter().any(|arm| arm.score.is_some_and(|score| score != found.initial_score)) {
                    let dead = found.warnings.iter_mut().filter(|warning| **warning == Warning::DeadUnit);
                    dead.for_each(|warning| *warning = Warning::NoImprovement);
                }
                let score = Some(found.score).filter(|score| score.is_finite());
                found.arms.push(strategy.findings(found.steps - dropped_steps, found.passes, score, true));
                found.passes += dropped_passes;
                outcomes.push((task, outcome));
            }
        }
        Ok(outcomes)
    }
}
