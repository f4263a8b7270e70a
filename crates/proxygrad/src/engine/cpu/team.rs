//! Threads that walk one program together.
//!
//! A pass starts all threads once. Each runs the same steps; the work of a step is cut into pieces that the threads
//! claim, first from their own share, which keeps what one thread wrote in its own cache, then from the shares of those
//! that are late. Behind every step they meet. Who waits spins for some microseconds and then sleeps, so that a thread
//! that has lost its processor to another program gets one back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::engine::EngineError;

/// Rounds that a waiting thread spins before it sleeps: a few microseconds.
const SPINS: u32 = 500;

/// The threads of an engine. They sleep between passes; passes of several plans take turns.
#[derive(Debug)]
pub(super) struct Threads {
    /// `None` for one thread: passes then run on the caller's.
    pool: Option<rayon::ThreadPool>,
    turn: Mutex<()>,
}

impl Threads {
    pub(super) fn new(count: usize) -> Result<Self, EngineError> {
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

    pub(super) fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `walk` on every thread at once and returns when all are done.
    ///
    /// # Panics
    /// When `walk` panics on one of them.
    pub(super) fn run(&self, walk: impl Fn(&Member<'_>) + Sync) {
        let team = Team::new(self.count());
        let Some(pool) = &self.pool else { return walk(&Member { team: &team, index: 0 }) };
        // Two teams on the same threads would wait for each other.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        pool.broadcast(|thread| walk(&Member { team: &team, index: thread.index() }));
    }
}

struct Team {
    /// How many pieces were claimed of each member's share.
    claimed: Vec<Counter>,
    arrived: AtomicUsize,
    /// Number of meetings so far.
    meeting: AtomicUsize,
    broken: AtomicBool,
    asleep: Mutex<usize>,
    awake: Condvar,
}

/// A counter with a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicUsize);

impl Team {
    fn new(members: usize) -> Self {
        Self {
            claimed: (0..members).map(|_| Counter::default()).collect(),
            arrived: AtomicUsize::new(0),
            meeting: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            asleep: Mutex::new(0),
            awake: Condvar::new(),
        }
    }
}

/// One thread of a pass.
pub(super) struct Member<'a> {
    team: &'a Team,
    index: usize,
}

impl Member<'_> {
    /// Number of this thread, from 0.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Number of threads.
    pub(super) fn count(&self) -> usize {
        self.team.claimed.len()
    }

    /// Runs `work` for every number below `pieces`, each on one of the threads, and returns when all are done. Every
    /// member must call this with the same number.
    pub(super) fn each(&self, pieces: usize, mut work: impl FnMut(usize)) {
        let members = self.count();
        if members == 1 {
            return (0..pieces).for_each(work);
        }
        for shift in 0..members {
            let owner = (self.index + shift) % members;
            let (start, end) = (pieces * owner / members, pieces * (owner + 1) / members);
            loop {
                let piece = start + self.team.claimed[owner].0.fetch_add(1, Ordering::Relaxed);
                if piece >= end {
                    break;
                }
                work(piece);
            }
        }
        self.meet();
    }

    /// Waits for all members.
    fn meet(&self) {
        let team = self.team;
        let meeting = team.meeting.load(Ordering::Acquire);
        if team.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.count() {
            for claimed in &team.claimed {
                claimed.0.store(0, Ordering::Relaxed);
            }
            team.arrived.store(0, Ordering::Relaxed);
            team.meeting.store(meeting + 1, Ordering::Release);
            self.wake();
            return;
        }
        let over = || team.meeting.load(Ordering::Acquire) != meeting || team.broken.load(Ordering::Acquire);
        for _ in 0..SPINS {
            if over() {
                break;
            }
            std::hint::spin_loop();
        }
        if !over() {
            let mut asleep = team.asleep.lock().unwrap_or_else(PoisonError::into_inner);
            *asleep += 1;
            while !over() {
                asleep = team.awake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
            }
            *asleep -= 1;
        }
        assert!(!team.broken.load(Ordering::Acquire), "another thread of this pass panicked");
    }

    fn wake(&self) {
        // The lock orders this behind a sleeper's last look.
        let asleep = self.team.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if *asleep > 0 {
            self.team.awake.notify_all();
        }
    }
}

impl Drop for Member<'_> {
    /// A member that panics frees those that wait for it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.team.broken.store(true, Ordering::Release);
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
            let threads = Threads::new(threads).unwrap();
            for pieces in [0, 1, 2, 7, 100] {
                let done: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                threads.run(|member| {
                    for step in 0..20 {
                        member.each(pieces, |piece| {
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
        let threads = Threads::new(3).unwrap();
        let failed = catch_unwind(AssertUnwindSafe(|| {
            threads.run(|member| {
                for step in 0..3 {
                    member.each(6, |piece| assert!(step < 1 || piece != 4, "on purpose"));
                }
            });
        }));
        assert!(failed.is_err());
        let sum = AtomicUsize::new(0);
        threads.run(|member| {
            member.each(6, |piece| {
                sum.fetch_add(piece, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 15);
    }
}
