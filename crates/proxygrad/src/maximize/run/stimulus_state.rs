//! State of one stimulus during a run, except its image: random numbers, scores, passes and frames.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::patience::Patience;
use crate::maximize::animation;
use crate::maximize::callback::Callback;
use crate::maximize::error::MaximizeError;
use crate::maximize::image8::Image8;
use crate::maximize::objective::BoundObjective;
use crate::maximize::outcome::{Findings, Outcome, Point, Warning};
use crate::maximize::task::Task;

/// State of a stimulus under one strategy.
pub(super) struct StimulusState {
    /// Index of its task.
    pub(super) task: usize,
    /// Number of its diversity group.
    pub(super) group: u64,
    pub(super) objective: BoundObjective,
    pub(super) rng: ChaCha8Rng,
    /// The best score so far, if any was finite.
    pub(super) best: Option<Point>,
    pub(super) passes: u32,
    /// Steps that other candidates have made for the same task. Added to the optimization's own steps, it is the number
    /// of steps that the task has spent.
    pub(super) step_offset: u32,
    /// When its score has settled; `None` while that does not matter.
    pub(super) patience: Option<Patience>,
    /// Whether it had settled at the last score.
    pub(super) has_settled: bool,
    /// Whether a gradient was not finite, as far as that was read.
    pub(super) non_finite_gradient: bool,
    /// Frames of the animation so far; empty without an animation.
    pub(super) frames: Vec<Image8>,
    trajectory: Vec<Point>,
    non_finite_score: bool,
}

/// The image that is returned, and facts that are known only at the end of a run.
pub(super) struct FinalImage<'a> {
    pub(super) image: &'a Image8,
    pub(super) score: f32,
    /// Steps of its optimization.
    pub(super) step: u32,
    /// Whether the objective reads the values of a softmax.
    pub(super) is_softmax: bool,
}

impl StimulusState {
    /// State before the first step; binding its objective took `passes` passes.
    pub(super) fn new(index: usize, task: &Task, restart: u32, objective: BoundObjective, passes: u32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(task.seed);
        // The streams of tasks are far below 2^32.
        rng.set_stream(task.stream ^ u64::from(restart) << 32);
        Self {
            task: index,
            group: task.group,
            objective,
            rng,
            best: None,
            passes,
            step_offset: 0,
            patience: None,
            has_settled: false,
            non_finite_gradient: false,
            frames: Vec::new(),
            trajectory: Vec::new(),
            non_finite_score: false,
        }
    }

    /// Records and reports the score of its image after `step` steps of its optimization.
    pub(super) fn record_score(&mut self, step: u32, score: f32, callback: &mut dyn Callback) {
        let point = Point { step: self.step_offset + step, score };
        if score.is_finite() {
            if self.best.is_none_or(|best| score > best.score) {
                self.best = Some(point);
            }
            self.trajectory.push(point);
        } else {
            self.non_finite_score = true;
        }
        self.has_settled = self.patience.is_some_and(|patience| patience.has_ended(&self.trajectory, point.step));
        callback.on_score(self.task, point);
    }

    /// Whether no score so far was higher than the first one.
    pub(super) fn never_improved(&self) -> bool {
        let first = self.trajectory.first().map(|point| point.score);
        !self.best.zip(first).is_some_and(|(best, first)| best.score > first)
    }

    /// Whether all scores were equal.
    fn never_changed(&self) -> bool {
        let first = self.trajectory.first().map(|point| point.score);
        !self.non_finite_score && first.is_some_and(|first| self.trajectory.iter().all(|point| point.score == first))
    }

    /// Whether a step led above the first score and the final image is above it too: rounding to 8 bits can undo a
    /// small gain.
    fn improves_to(&self, final_score: f32) -> bool {
        !self.never_improved() && self.trajectory.first().is_some_and(|first| final_score > first.score)
    }

    pub(super) fn outcome(&self, last: &FinalImage<'_>) -> Result<Outcome, MaximizeError> {
        let dead = self.never_changed();
        let warnings = [
            (Warning::DeadUnit, dead),
            (Warning::NoImprovement, !dead && !self.improves_to(last.score)),
            (Warning::SoftmaxTarget, last.is_softmax),
            (Warning::SaturatedPixels, last.image.saturated() > 0.5),
            (Warning::NonFinite, self.non_finite_score || self.non_finite_gradient),
        ];
        let score_of = |point: Option<&Point>| point.map_or(last.score, |point| point.score);
        let animation = match self.frames.as_slice() {
            [] => None,
            frames => Some(animation::encode(frames, last.image)?),
        };
        let findings = Findings {
            score: last.score,
            initial_score: score_of(self.trajectory.first()),
            final_score: score_of(self.trajectory.last()),
            steps: self.step_offset + last.step,
            best_step: self.best.map_or(0, |point| point.step),
            trajectory: self.trajectory.clone(),
            passes: self.passes,
            arms: Vec::new(),
            warnings: warnings.into_iter().filter_map(|(warning, holds)| holds.then_some(warning)).collect(),
            diagnostics: None,
        };
        Ok(Outcome { png: last.image.png()?, animation, findings })
    }
}
