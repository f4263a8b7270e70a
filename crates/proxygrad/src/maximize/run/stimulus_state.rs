//! What is known of the search for one stimulus.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::maximize::animation;
use crate::maximize::error::MaximizeError;
use crate::maximize::image8::Levels;
use crate::maximize::objective::Aims;
use crate::maximize::outcome::{Findings, Outcome, Point, Warning};
use crate::maximize::task::Task;

/// The search for one stimulus, but for its image.
pub(in crate::maximize) struct Search {
    /// Index of its task.
    pub(in crate::maximize) task: usize,
    /// Searches with one number are kept unlike each other.
    pub(in crate::maximize) group: u64,
    pub(in crate::maximize) aims: Aims,
    pub(in crate::maximize) rng: ChaCha8Rng,
    /// The best score so far, if any was finite.
    pub(in crate::maximize) best: Option<Point>,
    pub(in crate::maximize) passes: u32,
    /// Steps that were spent on the task elsewhere, before the steps of this search.
    pub(in crate::maximize) ahead: u32,
    /// What the animation shows so far; nothing without one.
    pub(in crate::maximize) frames: Vec<Levels>,
    trajectory: Vec<Point>,
    non_finite_score: bool,
}

/// What only the end of a run tells of a stimulus.
pub(in crate::maximize) struct Ending<'a> {
    /// Score of the delivered image.
    pub(in crate::maximize) score: f32,
    pub(in crate::maximize) levels: &'a Levels,
    /// Whether a gradient was not finite.
    pub(in crate::maximize) broken: bool,
    /// Whether the objective looks at the values of a softmax.
    pub(in crate::maximize) is_softmax: bool,
}

impl Search {
    /// The search for a task, from one of its starts.
    pub(in crate::maximize) fn new(index: usize, task: &Task, restart: u32, aims: Aims) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(task.seed);
        // Streams of stimuli stay far below 2^32.
        rng.set_stream(task.stream ^ u64::from(restart) << 32);
        Self {
            task: index,
            group: task.group,
            aims,
            rng,
            best: None,
            passes: 0,
            ahead: 0,
            frames: Vec::new(),
            trajectory: Vec::new(),
            non_finite_score: false,
        }
    }

    /// Takes note of a score of the image as it is.
    pub(in crate::maximize) fn note(&mut self, point: Point) {
        if !point.score.is_finite() {
            self.non_finite_score = true;
            return;
        }
        if self.best.is_none_or(|best| point.score > best.score) {
            self.best = Some(point);
        }
        self.trajectory.push(point);
    }

    /// Whether no score so far was higher than the first one.
    pub(in crate::maximize) fn asleep(&self) -> bool {
        let first = self.trajectory.first().map(|point| point.score);
        !self.best.zip(first).is_some_and(|(best, first)| best.score > first)
    }

    /// Whether every score was the first one.
    fn never_moved(&self) -> bool {
        let first = self.trajectory.first().map(|point| point.score);
        !self.non_finite_score && first.is_some_and(|first| self.trajectory.iter().all(|point| point.score == first))
    }

    /// Whether a step led above the start, and so does the image delivered, which has this score: rounding to 8 bits can
    /// undo what little was gained.
    fn improves_to(&self, delivered: f32) -> bool {
        !self.asleep() && self.trajectory.first().is_some_and(|first| delivered > first.score)
    }

    pub(in crate::maximize) fn outcome(&self, ending: &Ending<'_>) -> Result<Outcome, MaximizeError> {
        let dead = self.never_moved();
        let warnings = [
            (Warning::DeadUnit, dead),
            (Warning::NoImprovement, !dead && !self.improves_to(ending.score)),
            (Warning::SoftmaxTarget, ending.is_softmax),
            (Warning::SaturatedPixels, ending.levels.saturated() > 0.5),
            (Warning::NonFinite, self.non_finite_score || ending.broken),
        ];
        let end = |point: Option<&Point>| point.map_or(ending.score, |point| point.score);
        let animation = match self.frames.as_slice() {
            [] => None,
            frames => Some(animation::encode(frames, ending.levels)?),
        };
        let findings = Findings {
            score: ending.score,
            initial_score: end(self.trajectory.first()),
            final_score: end(self.trajectory.last()),
            best_step: self.best.map_or(0, |point| point.step),
            trajectory: self.trajectory.clone(),
            passes: self.passes,
            arms: Vec::new(),
            warnings: warnings.into_iter().filter_map(|(warning, holds)| holds.then_some(warning)).collect(),
            certificates: None,
        };
        Ok(Outcome { png: ending.levels.png()?, animation, findings })
    }
}
