//! Kernel cache: reuses kernels between plans of the same network, since packing weights costs more than many passes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::engine::cpu::kernel::Kernel;
use crate::engine::cpu::kernels::conv::ConvAlgorithm;
use crate::engine::cpu::layout::Layout;
use crate::network::{Network, NodeId};

/// Maximum number of networks whose kernels are kept.
const MAX_NETWORKS: usize = 4;

/// Maximum bytes of kept kernels, unless the last plan alone has more. Kernels depend on the input size: a network used
/// at many sizes would otherwise fill the memory with copies of its weights.
const MAX_BYTES: usize = 256 << 20;

/// Kernels of the networks that were planned last, dropped together with the network.
#[derive(Default)]
pub(crate) struct KernelCache {
    /// Least recently used first.
    networks: Mutex<Vec<(Weak<Network>, NetworkKernels)>>,
}

/// What a kernel depends on: the node, the layouts of its inputs and output, and the algorithms forward and backward.
pub(crate) type KernelKey = (NodeId, Vec<Layout>, [ConvAlgorithm; 2]);

/// A kernel and the bytes of its weights and tables.
#[derive(Clone)]
pub(crate) struct CachedKernel {
    pub(crate) kernel: Arc<dyn Kernel>,
    pub(crate) bytes: usize,
}

/// Kernels of one network.
pub(crate) type NetworkKernels = Arc<Mutex<HashMap<KernelKey, CachedKernel>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KernelCache {
    /// The kernels of a network, initially none.
    pub(crate) fn for_network(&self, network: &Arc<Network>) -> NetworkKernels {
        let mut networks = lock(&self.networks);
        networks.retain(|(cached, _)| cached.strong_count() > 0);
        let found = networks.iter().position(|(cached, _)| std::ptr::eq(cached.as_ptr(), Arc::as_ptr(network)));
        let kernels = found.map(|at| networks.remove(at).1).unwrap_or_default();
        networks.push((Arc::downgrade(network), Arc::clone(&kernels)));
        let surplus = networks.len().saturating_sub(MAX_NETWORKS);
        networks.drain(..surplus);
        kernels
    }

    /// Drops the kernels of networks that were dropped. Returns whether there were any.
    pub(crate) fn release_unused(&self) -> bool {
        let mut networks = lock(&self.networks);
        let before = networks.len();
        networks.retain(|(cached, _)| cached.strong_count() > 0);
        networks.len() < before
    }

    /// Keeps at most [`MAX_BYTES`]: evicts the least recently used networks, then, of the network that was planned
    /// last, the kernels that its last plan does not use.
    pub(crate) fn evict(&self, used: &[KernelKey]) {
        self.shrink_to(MAX_BYTES, used);
    }

    fn shrink_to(&self, most: usize, used: &[KernelKey]) {
        let mut networks = lock(&self.networks);
        let bytes = |kernels: &NetworkKernels| lock(kernels).values().map(|cached| cached.bytes).sum::<usize>();
        let mut total: usize = networks.iter().map(|(_, kernels)| bytes(kernels)).sum();
        while total > most && networks.len() > 1 {
            total -= bytes(&networks.remove(0).1);
        }
        if let Some((_, kernels)) = networks.last().filter(|_| total > most) {
            let used: HashSet<&KernelKey> = used.iter().collect();
            lock(kernels).retain(|key, _| used.contains(key));
        }
    }
}

impl std::fmt::Debug for KernelCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KernelCache")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::cpu::lower::WeightlessKernel;

    fn put(kernels: &NetworkKernels, key: &KernelKey, bytes: usize) {
        lock(kernels).insert(key.clone(), CachedKernel { kernel: Arc::new(WeightlessKernel::default()), bytes });
    }

    fn key(node: usize) -> KernelKey {
        (NodeId(node), Vec::new(), [ConvAlgorithm::Direct; 2])
    }

    #[test]
    fn kernels_are_dropped_with_their_network() {
        let (cache, network) = (KernelCache::default(), Arc::new(Network::new(1, 2, 2)));
        let kernels = cache.for_network(&network);
        put(&kernels, &key(0), 10);
        assert!(!cache.release_unused());
        assert_eq!(lock(&cache.for_network(&network)).len(), 1, "the network is still in use");
        drop(network);
        assert!(cache.release_unused());
        assert_eq!(Arc::strong_count(&kernels), 1, "only this test holds them");
    }

    #[test]
    fn the_least_recently_used_network_is_evicted_first() {
        let cache = KernelCache::default();
        let networks = [(); 3].map(|()| Arc::new(Network::new(1, 2, 2)));
        for (network, bytes) in networks.iter().zip([10, 20, 30]) {
            let kernels = cache.for_network(network);
            put(&kernels, &key(0), bytes);
            put(&kernels, &key(1), bytes);
        }
        let sizes = || networks.each_ref().map(|network| lock(&cache.for_network(network)).len());
        cache.shrink_to(120, &[key(0)]);
        assert_eq!(sizes(), [2, 2, 2]);
        cache.shrink_to(100, &[key(0)]);
        assert_eq!(sizes(), [0, 2, 2], "the first was evicted");
        cache.shrink_to(59, &[key(0)]);
        assert_eq!(sizes(), [0, 0, 1], "of the last network only the kernels of its plan are left");
    }
}
