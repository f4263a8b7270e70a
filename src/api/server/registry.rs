//! Who is connected, who may stay, and who has to go for whom.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::turn::Turn;
use crate::api::client::ClientKey;

/// Connections beyond the limit: there only probes and metrics are answered, everything else with 503.
const RESERVE: usize = 64;

/// Time between two lines of the log about connections that had to go.
const QUIET: Duration = Duration::from_secs(60);

/// Every open connection.
pub(super) struct Registry {
    most: usize,
    per_client: usize,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    last: u64,
    open: HashMap<u64, Member>,
    /// Connections of the reserve.
    reserve: usize,
    /// Other connections by client, where that is bounded.
    by_client: HashMap<ClientKey, usize>,
    warned: Option<Instant>,
}

struct Member {
    client: Option<ClientKey>,
    reserve: bool,
    turn: Arc<Turn>,
    leave: CancellationToken,
}

/// A place among the connections; free again when dropped.
pub(super) struct Place {
    registry: Arc<Registry>,
    number: u64,
    /// Whether the connection belongs to the reserve.
    pub reserve: bool,
    /// Whose turn the connection is.
    pub turn: Arc<Turn>,
    /// Cancelled when somebody else gets the place.
    pub leave: CancellationToken,
}

impl Registry {
    /// At most `most` connections, and of one client `per_client`.
    pub fn new(most: usize, per_client: usize) -> Self {
        Self { most, per_client, members: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        // Every method leaves it whole; none can panic on the way.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection, of a client whose connections are bounded if it is given. Where there is none, the
    /// connection that has kept the server waiting for the longest time goes; where none does, there is a place in the
    /// reserve. `None` when that is full, too.
    pub fn admit(self: &Arc<Self>, client: Option<ClientKey>) -> Option<Place> {
        let mut members = self.lock();
        let own = client.and_then(|client| members.by_client.get(&client)).copied().unwrap_or(0);
        let room = (own < self.per_client || members.displace(|member| !member.reserve && member.client == client))
            && (members.open.len() - members.reserve < self.most || members.displace(|member| !member.reserve));
        if !room && members.reserve >= RESERVE && !members.displace(|member| member.reserve) {
            metrics::counter!("proxygrad_http_connections_total", "answered" => "nothing").increment(1);
            return None;
        }
        metrics::counter!("proxygrad_http_connections_total", "answered" => if room { "all" } else { "probes" })
            .increment(1);
        let (turn, leave) = (Arc::new(Turn::new()), CancellationToken::new());
        let number = members.add(Member { client, reserve: !room, turn: Arc::clone(&turn), leave: leave.clone() });
        Some(Place { registry: Arc::clone(self), number, reserve: !room, turn, leave })
    }

    /// Makes the connection go that has kept the server waiting for the longest time; whether there was one.
    pub fn make_room(&self) -> bool {
        self.lock().displace(|_| true)
    }
}

impl Members {
    fn add(&mut self, member: Member) -> u64 {
        self.last += 1;
        match (member.reserve, member.client) {
            (true, _) => self.reserve += 1,
            (false, Some(client)) => *self.by_client.entry(client).or_default() += 1,
            (false, None) => {}
        }
        self.open.insert(self.last, member);
        self.measure();
        self.last
    }

    fn remove(&mut self, number: u64) -> Option<Member> {
        let member = self.open.remove(&number)?;
        match (member.reserve, member.client) {
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
        self.measure();
        Some(member)
    }

    fn measure(&self) {
        metrics::gauge!("proxygrad_http_connections").set(self.open.len() as f64);
    }

    /// Makes one of these connections go: the one whose client had its turn for the longest time.
    fn displace(&mut self, concerned: impl Fn(&Member) -> bool) -> bool {
        let waiting = self.open.iter().filter(|(_, member)| concerned(member));
        let waiting = waiting.filter_map(|(&number, member)| Some((member.turn.clients_since()?, number)));
        let Some(member) = waiting.min().and_then(|(_, number)| self.remove(number)) else { return false };
        member.leave.cancel();
        metrics::counter!("proxygrad_http_connections_displaced_total").increment(1);
        if self.warned.is_none_or(|warned| warned.elapsed() >= QUIET) {
            self.warned = Some(Instant::now());
            tracing::warn!(
                connections = self.open.len(),
                "too many connections: those whose clients keep the server waiting the longest are closed"
            );
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::turn::Exchange;
    use super::*;

    fn gone(place: &Place) -> bool {
        place.leave.is_cancelled()
    }

    #[test]
    fn the_one_that_waits_the_longest_goes_for_a_new_one() {
        let registry = Arc::new(Registry::new(3, 9));
        let places: Vec<Place> = (0..3).map(|_| registry.admit(None).unwrap()).collect();
        let working = Exchange::new(Arc::clone(&places[0].turn));
        let fourth = registry.admit(None).unwrap();
        assert!(!gone(&places[0]) && gone(&places[1]) && !gone(&places[2]) && !fourth.reserve);
        drop(working);
        let fifth = registry.admit(None).unwrap();
        assert!(gone(&places[2]) && !gone(&places[0]) && !fifth.reserve, "the first has only just been answered");
    }

    #[test]
    fn whom_the_server_works_for_stays_and_the_reserve_is_bounded() {
        let registry = Arc::new(Registry::new(1, 9));
        let place = registry.admit(None).unwrap();
        let _working = Exchange::new(Arc::clone(&place.turn));
        let reserve: Vec<Place> = (0..RESERVE).map(|_| registry.admit(None).unwrap()).collect();
        assert!(reserve.iter().all(|place| place.reserve) && !gone(&place));
        let next = registry.admit(None).unwrap();
        assert!(gone(&reserve[0]) && next.reserve);
        let _busy: Vec<Exchange> =
            reserve[1..].iter().chain([&next]).map(|place| Exchange::new(Arc::clone(&place.turn))).collect();
        assert!(registry.admit(None).is_none());
        assert!(!registry.make_room());
        drop(place);
        assert!(!registry.admit(None).unwrap().reserve, "a place came free");
    }

    #[test]
    fn a_client_makes_room_among_its_own() {
        let registry = Arc::new(Registry::new(9, 2));
        let [alice, bob] = ["10.0.0.1", "10.0.0.2"].map(|address| Some(ClientKey::new(address.parse().unwrap())));
        let other = registry.admit(bob).unwrap();
        let places: Vec<Place> = (0..2).map(|_| registry.admit(alice).unwrap()).collect();
        let third = registry.admit(alice).unwrap();
        assert!(gone(&places[0]) && !gone(&places[1]) && !gone(&other) && !third.reserve);
        let _working = [&places[1], &third].map(|place| Exchange::new(Arc::clone(&place.turn)));
        assert!(registry.admit(alice).unwrap().reserve, "no more than two of one client");
        assert!(!registry.admit(bob).unwrap().reserve);
        assert!(!registry.admit(None).unwrap().reserve, "proxies are not bounded");
        drop(places);
        assert_eq!(registry.lock().by_client[&alice.unwrap()], 1);
    }
}
