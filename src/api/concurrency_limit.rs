//! Concurrency limits for long-running requests: waiting requests and event streams. Quick requests need no permit, so
//! they are answered regardless of how many others wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::client::ClientKey;

/// A limit on concurrent requests, in total and per client. Clones share it.
#[derive(Clone)]
pub(super) struct ConcurrencyLimit {
    limit: usize,
    usage: Arc<Mutex<Usage>>,
}

#[derive(Default)]
struct Usage {
    total: usize,
    by_client: HashMap<ClientKey, usize>,
}

/// A permit, released when dropped.
pub(super) struct ConcurrencyPermit {
    limit: ConcurrencyLimit,
    client: Option<ClientKey>,
}

impl ConcurrencyLimit {
    /// At most `limit` concurrent requests.
    pub fn new(limit: usize) -> Self {
        Self { limit, usage: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Usage> {
        // Consistent between any two statements, so a poisoned lock is usable.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for a client; `None` if all are taken, or this client holds half of them.
    pub fn try_acquire(&self, client: Option<ClientKey>) -> Option<ConcurrencyPermit> {
        let mut usage = self.lock();
        let own = client.and_then(|client| usage.by_client.get(&client)).copied().unwrap_or(0);
        if usage.total >= self.limit || own >= self.limit.div_ceil(2) {
            return None;
        }
        usage.total += 1;
        if let Some(client) = client {
            usage.by_client.insert(client, own + 1);
        }
        Some(ConcurrencyPermit { limit: self.clone(), client })
    }
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        let mut usage = self.limit.lock();
        usage.total -= 1;
        let Some(client) = self.client else { return };
        match usage.by_client.get_mut(&client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(usage.by_client.remove(&client)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn permits_are_bounded_in_total_and_by_client() {
        let limit = ConcurrencyLimit::new(3);
        let [alice, bob] = ["10.0.0.1", "10.0.0.2"].map(|address| Some(ClientKey::new(address.parse().unwrap())));
        let first = limit.try_acquire(alice).unwrap();
        let second = limit.try_acquire(alice).unwrap();
        assert!(limit.try_acquire(alice).is_none(), "half of the permits");
        let third = limit.try_acquire(bob).unwrap();
        assert!(limit.try_acquire(bob).is_none() && limit.try_acquire(None).is_none(), "all of them");
        drop(first);
        assert!(limit.try_acquire(alice).is_some());
        drop((second, third));
        assert_eq!(limit.lock().total, 0);
        assert!(limit.lock().by_client.is_empty());
        let _all: Vec<ConcurrencyPermit> = (0..3).map(|_| limit.try_acquire(None).unwrap()).collect();
    }
}
