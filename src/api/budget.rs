//! How many requests may take long: those that wait, and event streams. Quick requests need none of it, so that they are
//! answered however many others wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::client::ClientKey;

/// Places for requests that take long. Clones share them.
#[derive(Clone)]
pub(super) struct Budget {
    most: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_client: HashMap<ClientKey, usize>,
}

/// A place; free again when dropped.
pub(super) struct Place {
    budget: Budget,
    client: Option<ClientKey>,
}

impl Budget {
    /// At most `most` places.
    pub fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Whole between any two statements, whoever panics.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a client; `None` when all are taken, or this client has half of them.
    pub fn take(&self, client: Option<ClientKey>) -> Option<Place> {
        let mut taken = self.lock();
        let own = client.and_then(|client| taken.by_client.get(&client)).copied().unwrap_or(0);
        if taken.all >= self.most || own >= self.most.div_ceil(2) {
            return None;
        }
        taken.all += 1;
        if let Some(client) = client {
            taken.by_client.insert(client, own + 1);
        }
        Some(Place { budget: self.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.budget.lock();
        taken.all -= 1;
        let Some(client) = self.client else { return };
        match taken.by_client.get_mut(&client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.by_client.remove(&client)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn places_are_bounded_altogether_and_by_client() {
        let budget = Budget::new(3);
        let [alice, bob] = ["10.0.0.1", "10.0.0.2"].map(|address| Some(ClientKey::new(address.parse().unwrap())));
        let first = budget.take(alice).unwrap();
        let second = budget.take(alice).unwrap();
        assert!(budget.take(alice).is_none(), "half of the places");
        let third = budget.take(bob).unwrap();
        assert!(budget.take(bob).is_none() && budget.take(None).is_none(), "all of them");
        drop(first);
        assert!(budget.take(alice).is_some());
        drop((second, third));
        assert_eq!(budget.lock().all, 0);
        assert!(budget.lock().by_client.is_empty());
        let _all: Vec<Place> = (0..3).map(|_| budget.take(None).unwrap()).collect();
    }
}
