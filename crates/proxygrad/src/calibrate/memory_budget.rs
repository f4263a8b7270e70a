//! Memory budget for images that are decoded at the same time.

use std::sync::{Condvar, Mutex, PoisonError};

/// The budget of the whole process for decoding images.
pub(super) static DECODING: MemoryBudget = MemoryBudget::new(1 << 30);

/// A number of bytes shared by threads.
pub(super) struct MemoryBudget {
    limit: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

/// Bytes acquired by one thread, released on drop.
pub(super) struct MemoryPermit<'a> {
    budget: &'a MemoryBudget,
    bytes: u64,
}

impl MemoryBudget {
    pub(super) const fn new(limit: u64) -> Self {
        Self { limit, used: Mutex::new(0), freed: Condvar::new() }
    }

    /// Waits until `bytes` are free; a request above the limit waits for the whole budget.
    pub(super) fn acquire(&self, bytes: u64) -> MemoryPermit<'_> {
        let bytes = bytes.min(self.limit);
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |used: &mut u64| *used + bytes > self.limit;
        let mut used = self.freed.wait_while(used, full).unwrap_or_else(PoisonError::into_inner);
        *used += bytes;
        MemoryPermit { budget: self, bytes }
    }
}

impl Drop for MemoryPermit<'_> {
    fn drop(&mut self) {
        *self.budget.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_limit_is_never_exceeded() {
        let (budget, taken, most) = (MemoryBudget::new(10), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (budget, taken, most) = (&budget, &taken, &most);
                scope.spawn(move || {
                    for i in 0..200 {
                        // Some requests exceed the limit and get all of it.
                        let bytes = 1 + (n * 7 + i) % 13;
                        let _permit = budget.acquire(bytes);
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
