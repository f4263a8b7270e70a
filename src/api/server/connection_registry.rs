//! Connection registry: limits on open connections, in total and per client, with eviction of the longest idle one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use crate::api::client::ClientKey;

/// Reserve connections beyond the limit. They answer probes and metrics only, everything else with 503.
const RESERVE: usize = 64;

/// Minimum time between two log messages about evictions.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// All open connections.
pub(super) struct ConnectionRegistry {
    max: usize,
    max_per_client: usize,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    last_id: u64,
    open: HashMap<u64, Connection>,
    /// Number of reserve connections.
    reserve: usize,
    /// Number of other connections by client, for clients with a limit.
    by_client: HashMap<ClientKey, usize>,
    last_warning: Option<Instant>,
}

struct Connection {
    client: Option<ClientKey>,
    reserve: bool,
    activity: Arc<Activity>,
    evicted: CancellationToken,
}

/// Permission for a connection to stay open, released when dropped.
pub(super) struct ConnectionPermit {
    registry: Arc<ConnectionRegistry>,
    id: u64,
    /// Whether this is a reserve connection.
    pub reserve: bool,
    /// Activity of the connection.
    pub activity: Arc<Activity>,
    /// Cancelled when the connection is evicted.
    pub evicted: CancellationToken,
}

impl ConnectionRegistry {
    /// At most `max` connections, and `max_per_client` of one client.
    pub fn new(max: usize, max_per_client: usize) -> Self {
        Self { max, max_per_client, connections: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        // Every method leaves a consistent state, so a poisoned lock is usable.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a new connection; `client` is `None` if there is no per-client limit. At a limit, the connection that
    /// has kept the server waiting the longest is evicted. If the server works for all connections, the new one goes to
    /// the reserve. `None` if the reserve is full, too.
    pub fn admit(self: &Arc<Self>, client: Option<ClientKey>) -> Option<ConnectionPermit> {
        let mut connections = self.lock();
        let own = client.and_then(|client| connections.by_client.get(&client)).copied().unwrap_or(0);
        let fits = (own < self.max_per_client || connections.evict(|other| !other.reserve && other.client == client))
            && (connections.open.len() - connections.reserve < self.max || connections.evict(|other| !other.reserve));
        if !fits && connections.reserve >= RESERVE && !connections.evict(|other| other.reserve) {
            metrics::counter!("proxygrad_http_connections_total", "answered" => "nothing").increment(1);
            return None;
        }
        metrics::counter!("proxygrad_http_connections_total", "answered" => if fits { "all" } else { "probes" })
            .increment(1);
        let (activity, evicted) = (Arc::new(Activity::new()), CancellationToken::new());
        let connection =
            Connection { client, reserve: !fits, activity: Arc::clone(&activity), evicted: evicted.clone() };
        let id = connections.add(connection);
        Some(ConnectionPermit { registry: Arc::clone(self), id, reserve: !fits, activity, evicted })
    }

    /// Evicts the connection that has kept the server waiting the longest; false if there is none.
    pub fn evict_longest_idle(&self) -> bool {
        self.lock().evict(|_| true)
    }
}

impl Connections {
    fn add(&mut self, connection: Connection) -> u64 {
        self.last_id += 1;
        match (connection.reserve, connection.client) {
            (true, _) => self.reserve += 1,
            (false, Some(client)) => *self.by_client.entry(client).or_default() += 1,
            (false, None) => {}
        }
        self.open.insert(self.last_id, connection);
        self.update_gauge();
        self.last_id
    }

    fn remove(&mut self, id: u64) -> Option<Connection> {
        let connection = self.open.remove(&id)?;
        match (connection.reserve, connection.client) {
            (true, _) => self.reserve -= 1,
            (false, Some(client)) => {
                if let Some(number) = self.by_client.get_mut(&client) {
                    *number -= 1;
                    if *number == 0 {
                        self.by_client.remove(&client);
                    }
                }
            }
            (false, None) => {}
        }
        self.update_gauge();
        Some(connection)
    }

    fn update_gauge(&self) {
        metrics::gauge!("proxygrad_http_connections").set(self.open.len() as f64);
    }

    /// Evicts the candidate that has waited for its client the longest; false if none waits for its client.
    fn evict(&mut self, is_candidate: impl Fn(&Connection) -> bool) -> bool {
        let idle = self.open.iter().filter(|(_, connection)| is_candidate(connection));
        let idle = idle.filter_map(|(&id, connection)| Some((connection.activity.waiting_for_client_since()?, id)));
        let Some(connection) = idle.min().and_then(|(_, id)| self.remove(id)) else { return false };
        connection.evicted.cancel();
        metrics::counter!("proxygrad_http_connections_displaced_total").increment(1);
        if self.last_warning.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            self.last_warning = Some(Instant::now());
            tracing::warn!(connections = self.open.len(), "too many connections: closing the longest idle ones");
        }
        true
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.registry.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::activity::ActiveRequest;
    use super::*;

    fn evicted(permit: &ConnectionPermit) -> bool {
        permit.evicted.is_cancelled()
    }

    #[test]
    fn the_longest_idle_connection_is_evicted_for_a_new_one() {
        let registry = Arc::new(ConnectionRegistry::new(3, 9));
        let permits: Vec<ConnectionPermit> = (0..3).map(|_| registry.admit(None).unwrap()).collect();
        let working = ActiveRequest::new(Arc::clone(&permits[0].activity));
        let fourth = registry.admit(None).unwrap();
        assert!(!evicted(&permits[0]) && evicted(&permits[1]) && !evicted(&permits[2]) && !fourth.reserve);
        drop(working);
        let fifth = registry.admit(None).unwrap();
        assert!(
            evicted(&permits[2]) && !evicted(&permits[0]) && !fifth.reserve,
            "the first has only just been answered"
        );
    }

    #[test]
    fn busy_connections_stay_and_the_reserve_is_bounded() {
        let registry = Arc::new(ConnectionRegistry::new(1, 9));
        let permit = registry.admit(None).unwrap();
        let _working = ActiveRequest::new(Arc::clone(&permit.activity));
        let reserve: Vec<ConnectionPermit> = (0..RESERVE).map(|_| registry.admit(None).unwrap()).collect();
        assert!(reserve.iter().all(|permit| permit.reserve) && !evicted(&permit));
        let next = registry.admit(None).unwrap();
        assert!(evicted(&reserve[0]) && next.reserve);
        let _busy: Vec<ActiveRequest> =
            reserve[1..].iter().chain([&next]).map(|permit| ActiveRequest::new(Arc::clone(&permit.activity))).collect();
        assert!(registry.admit(None).is_none());
        assert!(!registry.evict_longest_idle());
        drop(permit);
        assert!(!registry.admit(None).unwrap().reserve, "a connection was closed");
    }

    #[test]
    fn a_client_at_its_limit_evicts_its_own_connections() {
        let registry = Arc::new(ConnectionRegistry::new(9, 2));
        let [alice, bob] = ["10.0.0.1", "10.0.0.2"].map(|address| Some(ClientKey::new(address.parse().unwrap())));
        let other = registry.admit(bob).unwrap();
        let permits: Vec<ConnectionPermit> = (0..2).map(|_| registry.admit(alice).unwrap()).collect();
        let third = registry.admit(alice).unwrap();
        assert!(evicted(&permits[0]) && !evicted(&permits[1]) && !evicted(&other) && !third.reserve);
        let _working = [&permits[1], &third].map(|permit| ActiveRequest::new(Arc::clone(&permit.activity)));
        assert!(registry.admit(alice).unwrap().reserve, "no more than two of one client");
        assert!(!registry.admit(bob).unwrap().reserve);
        assert!(!registry.admit(None).unwrap().reserve, "proxies are not bounded");
        drop(permits);
        assert_eq!(registry.lock().by_client[&alice.unwrap()], 1);
    }
}
