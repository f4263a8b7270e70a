//! Kernels that were made before: laying out weights takes longer than many passes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Kernel;
use super::conv::Method;
use super::program::Program;
use crate::network::{Network, NodeId, Shape};

/// Most networks whose kernels are kept.
const NETWORKS: usize = 4;

/// Most bytes of kept kernels, unless the plan that was made last has more. Kernels are made for input sizes: a network
/// that is asked for many sizes would otherwise fill the memory with copies of its weights.
const BYTES: usize = 256 << 20;

/// The kernels of the networks that were planned last, as long as somebody holds the networks.
#[derive(Default)]
pub(super) struct Shelf {
    /// The last used is the last.
    networks: Mutex<Vec<(Weak<Network>, Kernels)>>,
}

/// What a kernel is made for.
pub(super) type Key = (NodeId, Vec<Shape>, [Method; 2]);

/// A kernel and the bytes of its weights and tables.
#[derive(Clone)]
pub(super) struct Shelved {
    pub(super) kernel: Arc<dyn Kernel>,
    pub(super) bytes: usize,
}

/// Kernels of one network.
pub(super) type Kernels = Arc<Mutex<HashMap<Key, Shelved>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    /// The kernels of a network, none at first.
    pub(super) fn of(&self, network: &Arc<Network>) -> Kernels {
        let mut networks = lock(&self.networks);
        networks.retain(|(held, _)| held.strong_count() > 0);
        let found = networks.iter().position(|(held, _)| std::ptr::eq(held.as_ptr(), Arc::as_ptr(network)));
        let kernels = found.map(|at| networks.remove(at).1).unwrap_or_default();
        networks.push((Arc::downgrade(network), Arc::clone(&kernels)));
        let surplus = networks.len().saturating_sub(NETWORKS);
        networks.drain(..surplus);
        kernels
    }

    /// Drops the kernels of networks that nobody holds any more; gives whether there were any.
    pub(super) fn release_unused(&self) -> bool {
        let mut networks = lock(&self.networks);
        let before = networks.len();
        networks.retain(|(held, _)| held.strong_count() > 0);
        networks.len() < before
    }

    /// Keeps no more than [`BYTES`]: drops the networks that were used longest ago, and then, of the network that was
    /// planned last, what `program`, its last plan, does not use.
    pub(super) fn make_room(&self, program: &Program) {
        self.keep_within(BYTES, &program.shelved);
    }

    fn keep_within(&self, most: usize, used: &[Key]) {
        let mut networks = lock(&self.networks);
        let bytes = |kernels: &Kernels| lock(kernels).values().map(|shelved| shelved.bytes).sum::<usize>();
        let mut held: usize = networks.iter().map(|(_, kernels)| bytes(kernels)).sum();
        while held > most && networks.len() > 1 {
            held -= bytes(&networks.remove(0).1);
        }
        if let Some((_, kernels)) = networks.last().filter(|_| held > most) {
            let used: HashSet<&Key> = used.iter().collect();
            lock(kernels).retain(|key, _| used.contains(key));
        }
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shelf")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::footprint::Hollow;
    use super::*;

    fn put(kernels: &Kernels, key: &Key, bytes: usize) {
        lock(kernels).insert(key.clone(), Shelved { kernel: Arc::new(Hollow::default()), bytes });
    }

    fn key(node: usize) -> Key {
        (NodeId(node), Vec::new(), [Method::Direct; 2])
    }

    #[test]
    fn kernels_go_with_their_network() {
        let (shelf, network) = (Shelf::default(), Arc::new(Network::new(1, 2, 2)));
        let kernels = shelf.of(&network);
        put(&kernels, &key(0), 10);
        assert!(!shelf.release_unused());
        assert_eq!(lock(&shelf.of(&network)).len(), 1, "somebody holds the network");
        drop(network);
        assert!(shelf.release_unused());
        assert_eq!(Arc::strong_count(&kernels), 1, "only this test has them");
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let shelf = Shelf::default();
        let networks = [(); 3].map(|()| Arc::new(Network::new(1, 2, 2)));
        for (network, bytes) in networks.iter().zip([10, 20, 30]) {
            let kernels = shelf.of(network);
            put(&kernels, &key(0), bytes);
            put(&kernels, &key(1), bytes);
        }
        let sizes = || networks.each_ref().map(|network| lock(&shelf.of(network)).len());
        shelf.keep_within(120, &[key(0)]);
        assert_eq!(sizes(), [2, 2, 2]);
        shelf.keep_within(100, &[key(0)]);
        assert_eq!(sizes(), [0, 2, 2], "the first made room");
        shelf.keep_within(59, &[key(0)]);
        assert_eq!(sizes(), [0, 0, 1], "of the last only what its plan uses is left");
    }
}
