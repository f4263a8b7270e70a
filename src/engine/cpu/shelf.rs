//! Kernels that were made before: laying out weights takes longer than many passes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Kernel;
use super::conv::Method;
use crate::network::{Network, NodeId, Shape};

/// Most networks whose kernels are kept.
const NETWORKS: usize = 4;

/// The kernels of the networks that were planned last, as long as somebody holds the networks.
#[derive(Default)]
pub(super) struct Shelf {
    /// The last used is the last.
    networks: Mutex<Vec<(Weak<Network>, Kernels)>>,
}

/// What a kernel is made for.
pub(super) type Key = (NodeId, Vec<Shape>, [Method; 2]);

/// Kernels of one network.
pub(super) type Kernels = Arc<Mutex<HashMap<Key, Arc<dyn Kernel>>>>;

impl Shelf {
    /// The kernels of a network, none at first.
    pub(super) fn of(&self, network: &Arc<Network>) -> Kernels {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        networks.retain(|(held, _)| held.strong_count() > 0);
        let found = networks.iter().position(|(held, _)| std::ptr::eq(held.as_ptr(), Arc::as_ptr(network)));
        let kernels = found.map(|at| networks.remove(at).1).unwrap_or_default();
        networks.push((Arc::downgrade(network), Arc::clone(&kernels)));
        let surplus = networks.len().saturating_sub(NETWORKS);
        networks.drain(..surplus);
        kernels
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shelf")
    }
}
