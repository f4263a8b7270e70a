//! Memory for the files that are read at the same time.

use std::sync::{Condvar, Mutex, PoisonError};

/// For unpacking images, in the whole process.
pub(super) static IMAGES: Budget = Budget::new(1 << 30);

/// A number of bytes that threads share.
pub(super) struct Budget {
    most: u64,
    taken: Mutex<u64>,
    freed: Condvar,
}

/// Bytes that one thread has until this is dropped.
pub(super) struct Room<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    pub(super) const fn new(most: u64) -> Self {
        Self { most, taken: Mutex::new(0), freed: Condvar::new() }
    }

    /// Waits until so many bytes are free; somebody who wants more than there are gets all of them.
    pub(super) fn wait_for(&self, bytes: u64) -> Room<'_> {
        let bytes = bytes.min(self.most);
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |taken: &mut u64| *taken + bytes > self.most;
        let mut taken = self.freed.wait_while(taken, full).unwrap_or_else(PoisonError::into_inner);
        *taken += bytes;
        Room { budget: self, bytes }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        *self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let (budget, taken, most) = (Budget::new(10), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (budget, taken, most) = (&budget, &taken, &most);
                scope.spawn(move || {
                    for i in 0..200 {
                        // Some want more than there is: they get all of it.
                        let bytes = 1 + (n * 7 + i) % 13;
                        let _room = budget.wait_for(bytes);
                        let now = taken.fetch_add(bytes.min(10), Ordering::SeqCst) + bytes.min(10);
                        most.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        taken.fetch_sub(bytes.min(10), Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((8..=10).contains(&most.into_inner()));
    }
}
