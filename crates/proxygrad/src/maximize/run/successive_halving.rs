//! A search at work: candidates compete for the steps of a run, stimulus by stimulus.

use super::optimization::{Arm, Way};
use super::stimulus_state::Search;
use crate::maximize::callback::Observer;
use crate::maximize::error::MaximizeError;
use crate::maximize::halving::Halving;
use crate::maximize::model_runner::Passes;
use crate::maximize::outcome::{ArmFindings, Outcome, Warning};
use crate::maximize::request::Settings;
use crate::maximize::task::Task;

/// A way to go, for all stimuli that it is still in the running for.
struct Candidate<'a> {
    way: Way<'a>,
    arm: Arm<'a>,
    /// Steps done.
    done: u32,
}

struct Contest<'a> {
    candidates: Vec<Candidate<'a>>,
    /// Steps that each stimulus has spent so far, on all its candidates.
    spent: Vec<u32>,
    /// By stimulus, what became of each candidate.
    reports: Vec<Vec<ArmFindings>>,
}

/// Runs `tasks` as a search: every stimulus has its own winner, whatever its neighbours' are. Outcomes by task.
pub(in crate::maximize) fn contest(
    passes: &mut Passes<'_>,
    tasks: &[Task],
    settings: &Settings,
    halving: &Halving,
    observer: &mut dyn Observer,
) -> Result<Vec<(usize, Outcome)>, MaximizeError> {
    let steps = halving.horizon(settings.steps).unwrap_or(settings.steps);
    let mut candidates = Vec::new();
    for gate in &halving.arms {
        for restart in 0..halving.restarts {
            let way = Way { gate, restart, steps };
            candidates.push(Candidate { arm: Arm::new(passes, tasks, settings, way)?, way, done: 0 });
        }
    }
    let (spent, reports) = (vec![0; tasks.len()], vec![Vec::new(); tasks.len()]);
    let mut contest = Contest { candidates, spent, reports };
    for (&rung, left) in halving.rungs.iter().zip(halving.left().into_iter().skip(1)) {
        contest.run(passes, rung, observer)?;
        contest.choose(passes, left as usize, observer)?;
    }
    let mut done = halving.rungs.iter().sum::<u32>();
    if let (Some(gate), Some(before)) = (&halving.rescue, halving.before_rescue(steps)) {
        contest.run(passes, before - done, observer)?;
        done = before;
        let way = Way { gate, restart: 0, steps: steps - done };
        contest.rescue(passes, tasks, settings, way, observer)?;
    }
    contest.run(passes, steps - done, observer)?;
    contest.finish(passes, observer)
}

impl<'a> Contest<'a> {
    /// So many steps of every candidate.
    fn run(&mut self, passes: &mut Passes<'_>, steps: u32, observer: &mut dyn Observer) -> Result<(), MaximizeError> {
        for candidate in &mut self.candidates {
            for search in &mut candidate.arm.searches {
                search.ahead = self.spent[search.task] - candidate.done;
                self.spent[search.task] += steps;
            }
            for _ in 0..steps {
                if !candidate.arm.ask(passes, observer)? {
                    break;
                }
                candidate.arm.step(passes, candidate.done, observer)?;
                candidate.done += 1;
            }
            candidate.arm.read_scores(observer)?;
        }
        Ok(())
    }

    /// Drops, stimulus by stimulus, all candidates but the best so many.
    fn choose(
        &mut self,
        passes: &mut Passes<'_>,
        left: usize,
        observer: &mut dyn Observer,
    ) -> Result<(), MaximizeError> {
        // By stimulus, the candidates' scores and places; earlier candidates come first among equals.
        let mut standings: Vec<Vec<(f32, usize)>> = vec![Vec::new(); self.spent.len()];
        for (place, candidate) in self.candidates.iter_mut().enumerate() {
            candidate.arm.look(passes, candidate.done, observer)?;
            for search in &candidate.arm.searches {
                standings[search.task].push((search.best.map_or(f32::NEG_INFINITY, |best| best.score), place));
            }
        }
        for standing in &mut standings {
            standing.sort_by(|a, b| b.0.total_cmp(&a.0));
            standing.truncate(left);
        }
        self.keep(passes, observer, |search, place| standings[search.task].iter().any(|&(_, stays)| stays == place))
    }

    /// Lets the stimuli that never rose above their start begin anew, another way.
    fn rescue(
        &mut self,
        passes: &mut Passes<'_>,
        tasks: &[Task],
        settings: &'a Settings,
        way: Way<'a>,
        observer: &mut dyn Observer,
    ) -> Result<(), MaximizeError> {
        let mut asleep = vec![false; tasks.len()];
        for candidate in &mut self.candidates {
            candidate.arm.look(passes, candidate.done, observer)?;
            for search in &candidate.arm.searches {
                asleep[search.task] = search.asleep();
            }
        }
        if !asleep.contains(&true) {
            return Ok(());
        }
        self.keep(passes, observer, |search, _| !asleep[search.task])?;
        let mut arm = Arm::new(passes, tasks, settings, way)?;
        arm.keep(passes, &asleep, observer)?;
        self.candidates.push(Candidate { arm, way, done: 0 });
        Ok(())
    }

    /// Goes on with the searches that stay, by their candidate's place; of the others it reports what they reached.
    fn keep(
        &mut self,
        passes: &Passes<'_>,
        observer: &mut dyn Observer,
        stays: impl Fn(&Search, usize) -> bool,
    ) -> Result<(), MaximizeError> {
        for (place, candidate) in self.candidates.iter_mut().enumerate() {
            let wanted: Vec<bool> = candidate.arm.searches.iter().map(|search| stays(search, place)).collect();
            for (search, _) in candidate.arm.searches.iter().zip(&wanted).filter(|(_, wanted)| !**wanted) {
                let score = search.best.map(|best| best.score);
                let report = candidate.way.findings(candidate.done, search.passes, score, false);
                self.reports[search.task].push(report);
            }
            candidate.arm.keep(passes, &wanted, observer)?;
        }
        self.candidates.retain(|candidate| !candidate.arm.searches.is_empty());
        Ok(())
    }

    fn finish(
        mut self,
        passes: &mut Passes<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<(usize, Outcome)>, MaximizeError> {
        let mut outcomes = Vec::with_capacity(self.spent.len());
        for mut candidate in self.candidates {
            candidate.arm.ask(passes, observer)?;
            let (way, done) = (candidate.way, candidate.done);
            for (task, mut outcome) in candidate.arm.finish(passes, done, observer)? {
                let found = &mut outcome.findings;
                found.arms = std::mem::take(&mut self.reports[task]);
                let elsewhere: u32 = found.arms.iter().map(|arm| arm.passes).sum();
                // The unit is not dead where another candidate changed its score.
                if found.arms.iter().any(|arm| arm.score.is_some_and(|score| score != found.initial_score)) {
                    let dead = found.warnings.iter_mut().filter(|warning| **warning == Warning::DeadUnit);
                    dead.for_each(|warning| *warning = Warning::NoImprovement);
                }
                let score = Some(found.score).filter(|score| score.is_finite());
                found.arms.push(way.findings(done, found.passes, score, true));
                found.passes += elsewhere;
                outcomes.push((task, outcome));
            }
        }
        Ok(outcomes)
    }
}

impl Way<'_> {
    fn findings(&self, steps: u32, passes: u32, score: Option<f32>, won: bool) -> ArmFindings {
        ArmFindings { gate: self.gate.clone(), restart: self.restart, steps, passes, score, won }
    }
}
