//! Profiler: how long the steps of a plan take.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::StepTime;
use crate::engine::cpu::exec::threads::Worker;
use crate::network::NodeId;

/// Total times by direction (true: backward) and node.
#[derive(Default)]
pub(crate) struct Profiler(Mutex<BTreeMap<(bool, NodeId), Duration>>);

/// Times the steps of one pass on one thread.
pub(crate) struct Stopwatch<'a> {
    /// Only the first thread measures, since all threads meet after every step.
    profiler: Option<&'a Profiler>,
    backward: bool,
    last: Instant,
}

impl Profiler {
    pub(crate) fn start<'a>(profiler: Option<&'a Self>, worker: &Worker<'_>, backward: bool) -> Stopwatch<'a> {
        Stopwatch { profiler: profiler.filter(|_| worker.index() == 0), backward, last: Instant::now() }
    }

    /// The times so far, in order, and resets them.
    pub(crate) fn take(&mut self) -> Vec<StepTime> {
        let times = std::mem::take(self.0.get_mut().unwrap_or_else(PoisonError::into_inner));
        times.into_iter().map(|((backward, node), time)| StepTime { node, backward, time }).collect()
    }
}

impl Stopwatch<'_> {
    /// Adds the time since the last call to `node`.
    pub(crate) fn lap(&mut self, node: NodeId) {
        let Some(Profiler(times)) = self.profiler else { return };
        let now = Instant::now();
        let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
        *times.entry((self.backward, node)).or_default() += now - self.last;
        self.last = now;
    }
}
