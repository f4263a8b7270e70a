//! How long the steps of a program take.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::team::Member;
use crate::engine::StepTime;
use crate::network::NodeId;

/// Sums of times by step.
#[derive(Default)]
pub(super) struct Clock(Mutex<BTreeMap<(bool, NodeId), Duration>>);

/// A clock in the hand of one thread of a pass, which looks at it between the steps.
pub(super) struct Laps<'a> {
    /// Only the first thread has one: all meet behind every step.
    clock: Option<&'a Clock>,
    backward: bool,
    last: Instant,
}

impl Clock {
    pub(super) fn laps<'a>(clock: Option<&'a Self>, member: &Member<'_>, backward: bool) -> Laps<'a> {
        Laps { clock: clock.filter(|_| member.index() == 0), backward, last: Instant::now() }
    }

    /// The times so far, in order; they start anew.
    pub(super) fn take(&mut self) -> Vec<StepTime> {
        let times = std::mem::take(self.0.get_mut().unwrap_or_else(PoisonError::into_inner));
        times.into_iter().map(|((backward, node), time)| StepTime { node, backward, time }).collect()
    }
}

impl Laps<'_> {
    /// Everything since the last call was for `node`.
    pub(super) fn lap(&mut self, node: NodeId) {
        let Some(Clock(times)) = self.clock else { return };
        let now = Instant::now();
        let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
        *times.entry((self.backward, node)).or_default() += now - self.last;
        self.last = now;
    }
}
