//! Callback of a run: progress and cancellation.

use crate::maximize::outcome::Point;

/// Receives the progress of a run and can cancel stimuli. Stimuli are numbered by their tasks.
pub trait Callback {
    /// Called before every step of a stimulus, and for diagnostics between passes. `true` cancels the stimulus: it has
    /// no outcome. Diagnostics of a batch end only when all of its stimuli are cancelled; then none has an outcome.
    fn should_stop(&mut self, _stimulus: usize) -> bool {
        false
    }

    /// Called after every step of a stimulus. `steps` is the number of steps made for it so far, by all candidates of a
    /// search.
    fn on_step(&mut self, _stimulus: usize, _steps: u32) {}

    /// Called with every score of a stimulus during the run: the score of the current image, without transforms, after
    /// `point.step` steps. On a GPU scores arrive in blocks, after the calls of [`Callback::on_step`] that follow them.
    fn on_score(&mut self, _stimulus: usize, _point: Point) {}

    /// Called after the last score of a stimulus, when it has made all of its steps or its score has settled before; not
    /// of a cancelled one. Others of its batch may go on.
    fn on_end(&mut self, _stimulus: usize) {}
}

/// A callback that ignores progress and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCallback;

impl Callback for NoCallback {}

/// Translates the task numbers of a part of a run into those of the whole run.
pub(crate) struct OffsetCallback<'a> {
    pub(crate) callback: &'a mut dyn Callback,
    /// Number of the part's first task in the whole run.
    pub(crate) first: usize,
}

impl Callback for OffsetCallback<'_> {
    fn should_stop(&mut self, stimulus: usize) -> bool {
        self.callback.should_stop(self.first + stimulus)
    }

    fn on_step(&mut self, stimulus: usize, steps: u32) {
        self.callback.on_step(self.first + stimulus, steps);
    }

    fn on_score(&mut self, stimulus: usize, point: Point) {
        self.callback.on_score(self.first + stimulus, point);
    }

    fn on_end(&mut self, stimulus: usize) {
        self.callback.on_end(self.first + stimulus);
    }
}
