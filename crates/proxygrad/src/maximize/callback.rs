//! Callback of a run: progress and early stopping.

use crate::maximize::outcome::Point;

/// Someone who watches a run and may end parts of it.
pub trait Observer {
    /// Asked before every step for every stimulus that still runs; `false` drops the stimulus.
    fn keep(&mut self, stimulus: usize) -> bool;

    /// Asked before every pass behind the last step; when no stimulus is wanted any more, the rest is left undone and all
    /// of them are dropped.
    fn wants(&mut self, _stimulus: usize) -> bool {
        true
    }

    /// Told after every scored step of a stimulus: `score` on the image as it is, behind `step` steps.
    fn scored(&mut self, stimulus: usize, point: Point);
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn keep(&mut self, _: usize) -> bool {
        true
    }

    fn scored(&mut self, _: usize, _: Point) {}
}
