//! Activity of a connection: whether it waits for the server or for the client, and since when.
//!
//! A connection waits for its client until the client sends (the rest of) a request or reads the response. Idle time is
//! the basis for timeouts and for evicting connections.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that a client has to read within the time limit; slower clients time out.
const MIN_PROGRESS: usize = 16 << 10;

/// Activity of a connection, shared by its requests and its socket.
pub(super) struct Activity(Mutex<State>);

struct State {
    /// Requests whose response is not complete.
    open: usize,
    /// Open requests whose body is incomplete.
    receiving: usize,
    /// Open requests with a part of the response that the client has not read.
    unread: usize,
    /// Whether the socket's send buffer is full.
    blocked: bool,
    /// Start of the wait for the client; meaningless while the server works.
    since: Instant,
    /// When the client last completed [`MIN_PROGRESS`] bytes.
    progress: Instant,
    /// Bytes read by the client since then.
    read: usize,
}

impl State {
    fn waits_for_client(&self) -> bool {
        self.blocked || self.open == self.receiving + self.unread
    }
}

impl Activity {
    /// A new connection, which waits for the client's first request.
    pub fn new() -> Self {
        let now = Instant::now();
        let (open, receiving, unread, blocked, read) = (0, 0, 0, false, 0);
        Self(Mutex::new(State { open, receiving, unread, blocked, since: now, progress: now, read }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Consistent between any two statements, so a poisoned lock is usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let before = state.waits_for_client();
        change(&mut state);
        if state.waits_for_client() && !before {
            state.since = Instant::now();
        }
    }

    /// Start of the wait for the client; `None` while the client waits for the server.
    pub fn waiting_for_client_since(&self) -> Option<Instant> {
        let state = self.lock();
        state.waits_for_client().then_some(state.since)
    }

    /// Whether the server waits for the body of a request.
    pub fn is_receiving(&self) -> bool {
        self.lock().receiving > 0
    }

    /// Whether the client does not read its response.
    pub fn is_blocked(&self) -> bool {
        self.lock().blocked
    }

    /// Current deadline of the client. The deadline for request bodies is enforced by the handler that reads them,
    /// which can still respond.
    fn deadline(&self, limit: Duration) -> Option<Instant> {
        let state = self.lock();
        match state.waits_for_client() {
            true if state.blocked => Some(state.progress + limit),
            true if state.receiving == 0 => Some(state.since + limit),
            _ => None,
        }
    }

    /// Returns when the connection has waited for the client for longer than `limit`.
    pub async fn timed_out(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let next = match self.deadline(limit) {
                Some(deadline) if deadline <= now => return,
                Some(deadline) => deadline,
                None => now + limit,
            };
            tokio::time::sleep_until(next.into()).await;
        }
    }

    /// Records that the socket's send buffer is full: the client does not read.
    pub fn blocked(&self) {
        self.change(|state| {
            if !state.blocked {
                (state.blocked, state.progress, state.read) = (true, Instant::now(), 0);
            }
        });
    }

    /// Records that the socket accepted `bytes`; `all`: nothing is left to write.
    pub fn wrote(&self, bytes: usize, all: bool) {
        self.change(|state| {
            if state.blocked {
                state.read += bytes;
                if state.read >= MIN_PROGRESS {
                    (state.progress, state.read) = (Instant::now(), 0);
                }
                state.blocked = !all;
            }
        });
    }
}

/// Party that a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitingFor {
    /// The server.
    Server,
    /// The client, to send the body.
    RequestBody,
    /// The client, to read a part of the response.
    ClientRead,
}

/// A request on a connection, from its head to the end of its response.
pub(super) struct ActiveRequest {
    activity: Arc<Activity>,
    waiting_for: Mutex<WaitingFor>,
}

impl ActiveRequest {
    /// A request whose head has arrived.
    pub fn new(activity: Arc<Activity>) -> Self {
        activity.change(|state| state.open += 1);
        Self { activity, waiting_for: Mutex::new(WaitingFor::Server) }
    }

    /// Records what the request waits for.
    pub fn set(&self, next: WaitingFor) {
        let mut current = self.waiting_for.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != next {
            self.activity.change(|state| {
                count(state, *current, false);
                count(state, next, true);
            });
            *current = next;
        }
    }

    /// What the request waits for.
    pub fn waiting_for(&self) -> WaitingFor {
        *self.waiting_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let waiting_for = self.waiting_for();
        self.activity.change(|state| {
            count(state, waiting_for, false);
            state.open -= 1;
        });
    }
}

fn count(state: &mut State, waiting_for: WaitingFor, add: bool) {
    let number = match waiting_for {
        WaitingFor::Server => return,
        WaitingFor::RequestBody => &mut state.receiving,
        WaitingFor::ClientRead => &mut state.unread,
    };
    *number = if add { *number + 1 } else { *number - 1 };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn clients(activity: &Activity) -> bool {
        activity.waiting_for_client_since().is_some()
    }

    #[test]
    fn client_and_server_wait_for_each_other_in_turns() {
        let activity = Arc::new(Activity::new());
        let opened = activity.waiting_for_client_since().expect("a new connection waits for its client");
        let active = ActiveRequest::new(Arc::clone(&activity));
        assert!(!clients(&activity), "the server works");
        active.set(WaitingFor::RequestBody);
        assert!(clients(&activity) && activity.is_receiving());
        assert!(activity.waiting_for_client_since().unwrap() > opened);
        let second = ActiveRequest::new(Arc::clone(&activity));
        assert!(!clients(&activity), "the server works on another request of the same connection");
        second.set(WaitingFor::ClientRead);
        assert!(clients(&activity));
        active.set(WaitingFor::Server);
        assert!(!clients(&activity) && !activity.is_receiving());
        drop(active);
        drop(second);
        assert!(clients(&activity), "idle");
    }

    #[test]
    fn an_unread_response_waits_for_the_client_until_it_is_read_completely() {
        let activity = Arc::new(Activity::new());
        let _exchange = ActiveRequest::new(Arc::clone(&activity));
        activity.wrote(100, true);
        assert!(!clients(&activity));
        activity.blocked();
        let since = activity.waiting_for_client_since().unwrap();
        activity.wrote(10, false);
        activity.blocked();
        assert_eq!(activity.waiting_for_client_since(), Some(since), "a few bytes change nothing");
        activity.wrote(MIN_PROGRESS, true);
        assert!(!clients(&activity));
    }

    #[test]
    fn a_trickle_is_no_progress() {
        let activity = Activity::new();
        activity.blocked();
        let limit = Duration::from_millis(20);
        let first = activity.deadline(limit).unwrap();
        activity.wrote(MIN_PROGRESS - 1, false);
        assert_eq!(activity.deadline(limit), Some(first));
        activity.wrote(1, false);
        assert!(activity.deadline(limit).unwrap() >= first);
        assert!(activity.lock().read == 0);
    }

    #[tokio::test]
    async fn a_clients_time_ends_but_not_the_servers_and_not_a_bodys() {
        let limit = Duration::from_millis(1);
        Activity::new().timed_out(limit).await;
        let activity = Arc::new(Activity::new());
        let active = ActiveRequest::new(Arc::clone(&activity));
        assert_eq!(activity.deadline(limit), None);
        active.set(WaitingFor::RequestBody);
        assert_eq!(activity.deadline(limit), None);
        active.set(WaitingFor::ClientRead);
        activity.timed_out(limit).await;
    }
}
