//! Thread team: the threads that run a pass together, with work stealing and a barrier after every step.
//!
//! A pass starts all threads once, and each runs the same steps. The work of a step is divided into pieces that the
//! threads claim, first from their own share, which keeps what a thread wrote in its own cache, then from the shares of
//! slower threads. At the barrier a thread spins for a few microseconds and then sleeps, so that a thread that was
//! preempted gets a processor back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::engine::EngineError;

/// Rounds that a waiting thread spins before it sleeps: a few microseconds.
const SPINS: u32 = if cfg!(miri) { 1 } else { 500 };

/// The threads of an engine. They sleep between passes; passes of several plans take turns.
#[derive(Debug)]
pub(crate) struct ThreadPool {
    /// None for one thread: passes then run on the caller's thread.
    pool: Option<rayon::ThreadPool>,
    turn: Mutex<()>,
}

impl ThreadPool {
    pub(crate) fn new(count: usize) -> Result<Self, EngineError> {
        let name = |index| format!("engine-{index}");
        let pool = match count {
            0 | 1 => None,
            _ => Some(
                rayon::ThreadPoolBuilder::new()
                    .num_threads(count)
                    .thread_name(name)
                    .build()
                    .map_err(|e| EngineError::Device { device: "cpu".into(), why: e.to_string() })?,
            ),
        };
        Ok(Self { pool, turn: Mutex::new(()) })
    }

    pub(crate) fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `pass` on every thread at once and returns when all are done.
    ///
    /// # Panics
    /// If `pass` panics on one of them.
    pub(crate) fn run(&self, pass: impl Fn(&Worker<'_>) + Sync) {
        let team = Team::new(self.count());
        let Some(pool) = &self.pool else { return pass(&Worker { team: &team, index: 0 }) };
        // Two teams on the same threads would wait for each other.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        pool.broadcast(|thread| pass(&Worker { team: &team, index: thread.index() }));
    }
}

/// State that the workers of a pass share.
struct Team {
    /// Number of pieces claimed from each worker's share.
    claimed: Vec<Counter>,
    /// Workers at the current barrier.
    arrived: AtomicUsize,
    /// Number of barriers passed.
    generation: AtomicUsize,
    /// Whether a worker panicked.
    panicked: AtomicBool,
    sleeping: Mutex<usize>,
    wakeup: Condvar,
}

/// A counter on its own cache line.
#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicUsize);

impl Team {
    fn new(workers: usize) -> Self {
        Self {
            claimed: (0..workers).map(|_| Counter::default()).collect(),
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            sleeping: Mutex::new(0),
            wakeup: Condvar::new(),
        }
    }
}

/// One thread of a pass.
pub(crate) struct Worker<'a> {
    team: &'a Team,
    index: usize,
}

impl Worker<'_> {
    /// Index of this thread, from 0.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Number of threads.
    pub(crate) fn count(&self) -> usize {
        self.team.claimed.len()
    }

    /// Runs `work` for every index below `pieces`, each on one of the threads, and returns when all are done. Every
    /// worker must call this with the same number.
    pub(crate) fn for_each_piece(&self, pieces: usize, mut work: impl FnMut(usize)) {
        let workers = self.count();
        if workers == 1 {
            return (0..pieces).for_each(work);
        }
        for shift in 0..workers {
            let owner = (self.index + shift) % workers;
            let (start, end) = (pieces * owner / workers, pieces * (owner + 1) / workers);
            loop {
                let piece = start + self.team.claimed[owner].0.fetch_add(1, Ordering::Relaxed);
                if piece >= end {
                    break;
                }
                work(piece);
            }
        }
        self.barrier();
    }

    /// Waits until all workers are here.
    pub(crate) fn barrier(&self) {
        let team = self.team;
        let generation = team.generation.load(Ordering::Acquire);
        if team.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.count() {
            for claimed in &team.claimed {
                claimed.0.store(0, Ordering::Relaxed);
            }
            team.arrived.store(0, Ordering::Relaxed);
            team.generation.store(generation + 1, Ordering::Release);
            self.wake();
            return;
        }
        let over = || team.generation.load(Ordering::Acquire) != generation || team.panicked.load(Ordering::Acquire);
        for _ in 0..SPINS {
            if over() {
                break;
            }
            std::hint::spin_loop();
        }
        if !over() {
            let mut sleeping = team.sleeping.lock().unwrap_or_else(PoisonError::into_inner);
            *sleeping += 1;
            while !over() {
                sleeping = team.wakeup.wait(sleeping).unwrap_or_else(PoisonError::into_inner);
            }
            *sleeping -= 1;
        }
        assert!(!team.panicked.load(Ordering::Acquire), "another thread of this pass panicked");
    }

    fn wake(&self) {
        // The lock orders this after a sleeper's last check.
        let sleeping = self.team.sleeping.lock().unwrap_or_else(PoisonError::into_inner);
        if *sleeping > 0 {
            self.team.wakeup.notify_all();
        }
    }
}

impl Drop for Worker<'_> {
    /// A worker that panics releases those that wait for it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.team.panicked.store(true, Ordering::Release);
            self.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn every_piece_is_done_once_and_before_the_next_step() {
        for threads in [1, 2, 5] {
            let threads = ThreadPool::new(threads).unwrap();
            for pieces in [0, 1, 2, 7, 100] {
                let done: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                threads.run(|worker| {
                    for step in 0..20 {
                        worker.for_each_piece(pieces, |piece| {
                            assert_eq!(done[piece].fetch_add(1, Ordering::Relaxed), step);
                        });
                        assert!(done.iter().all(|count| count.load(Ordering::Relaxed) > step));
                    }
                });
                assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 20));
            }
        }
    }

    #[test]
    fn a_panic_on_one_thread_ends_the_pass_and_the_next_one_works() {
        let threads = ThreadPool::new(3).unwrap();
        let failed = catch_unwind(AssertUnwindSafe(|| {
            threads.run(|worker| {
                for step in 0..3 {
                    worker.for_each_piece(6, |piece| assert!(step < 1 || piece != 4, "on purpose"));
                }
            });
        }));
        assert!(failed.is_err());
        let sum = AtomicUsize::new(0);
        threads.run(|worker| {
            worker.for_each_piece(6, |piece| {
                sum.fetch_add(piece, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 15);
    }
}
