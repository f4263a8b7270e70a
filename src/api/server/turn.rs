//! Who has to do the next thing on a connection: the server or the client.
//!
//! A connection costs the server something only as long as it is open, and a client that does nothing keeps it open for
//! nothing. Here is noted since when it is the client's turn: to send (the rest of) a request, or to read an answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that a client has to take within the time limit: slower than this nobody reads.
const PROGRESS: usize = 16 << 10;

/// Whose turn a connection is.
pub(super) struct Turn(Mutex<State>);

struct State {
    /// Requests that have come and are not answered completely.
    open: usize,
    /// Those of them of which the server waits for the body.
    receiving: usize,
    /// Those of them of which the server has a part of the answer that the client does not take.
    held: usize,
    /// Whether the operating system takes no more bytes.
    blocked: bool,
    /// When it became the client's turn; of no meaning while it is the server's.
    since: Instant,
    /// When the client last took as many bytes as [`PROGRESS`].
    progress: Instant,
    /// Bytes that it took since then.
    taken: usize,
}

impl State {
    fn is_clients(&self) -> bool {
        self.blocked || self.open == self.receiving + self.held
    }
}

impl Turn {
    /// A connection that has just been opened: the client has to send a request.
    pub fn new() -> Self {
        let now = Instant::now();
        let (open, receiving, held, blocked, taken) = (0, 0, 0, false, 0);
        Self(Mutex::new(State { open, receiving, held, blocked, since: now, progress: now, taken }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers are whole between any two statements, whoever panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let before = state.is_clients();
        change(&mut state);
        if state.is_clients() && !before {
            state.since = Instant::now();
        }
    }

    /// Since when the server waits for the client; `None` while the client waits for the server.
    pub fn clients_since(&self) -> Option<Instant> {
        let state = self.lock();
        state.is_clients().then_some(state.since)
    }

    /// Whether the server waits for the body of a request.
    pub fn is_receiving(&self) -> bool {
        self.lock().receiving > 0
    }

    /// Whether the client does not read its answer.
    pub fn is_blocked(&self) -> bool {
        self.lock().blocked
    }

    /// When the client's time is over as far as can be said now. The time for bodies is not counted here: the call that
    /// reads one counts it, and answers when it is over.
    fn deadline(&self, limit: Duration) -> Option<Instant> {
        let state = self.lock();
        match state.is_clients() {
            true if state.blocked => Some(state.progress + limit),
            true if state.receiving == 0 => Some(state.since + limit),
            _ => None,
        }
    }

    /// Ends when the client had its turn for longer than `limit`.
    pub async fn overdue(&self, limit: Duration) {
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

    /// The operating system takes no more bytes: the client does not read.
    pub fn blocked(&self) {
        self.change(|state| {
            if !state.blocked {
                (state.blocked, state.progress, state.taken) = (true, Instant::now(), 0);
            }
        });
    }

    /// The operating system took bytes; `all` that there were, or not.
    pub fn wrote(&self, bytes: usize, all: bool) {
        self.change(|state| {
            if state.blocked {
                state.taken += bytes;
                if state.taken >= PROGRESS {
                    (state.progress, state.taken) = (Instant::now(), 0);
                }
                state.blocked = !all;
            }
        });
    }
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The server.
    Working,
    /// The client, which sends the body.
    Receiving,
    /// The client, which has to take a part of the answer before the server goes on.
    Held,
}

/// A request on a connection, from its head to the end of its answer.
pub(super) struct Exchange {
    turn: Arc<Turn>,
    stage: Mutex<Stage>,
}

impl Exchange {
    /// A request whose head has come.
    pub fn new(turn: Arc<Turn>) -> Self {
        turn.change(|state| state.open += 1);
        Self { turn, stage: Mutex::new(Stage::Working) }
    }

    /// Notes what the request waits for.
    pub fn waits_for(&self, next: Stage) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if *stage != next {
            self.turn.change(|state| {
                count(state, *stage, false);
                count(state, next, true);
            });
            *stage = next;
        }
    }

    /// What the request waits for.
    pub fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let stage = self.stage();
        self.turn.change(|state| {
            count(state, stage, false);
            state.open -= 1;
        });
    }
}

fn count(state: &mut State, stage: Stage, more: bool) {
    let number = match stage {
        Stage::Working => return,
        Stage::Receiving => &mut state.receiving,
        Stage::Held => &mut state.held,
    };
    *number = if more { *number + 1 } else { *number - 1 };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn clients(turn: &Turn) -> bool {
        turn.clients_since().is_some()
    }

    #[test]
    fn the_turn_goes_to_and_fro() {
        let turn = Arc::new(Turn::new());
        let opened = turn.clients_since().expect("a new connection waits for its client");
        let exchange = Exchange::new(Arc::clone(&turn));
        assert!(!clients(&turn), "the server works");
        exchange.waits_for(Stage::Receiving);
        assert!(clients(&turn) && turn.is_receiving());
        assert!(turn.clients_since().unwrap() > opened);
        let second = Exchange::new(Arc::clone(&turn));
        assert!(!clients(&turn), "the server works on another request of the same connection");
        second.waits_for(Stage::Held);
        assert!(clients(&turn));
        exchange.waits_for(Stage::Working);
        assert!(!clients(&turn) && !turn.is_receiving());
        drop(exchange);
        drop(second);
        assert!(clients(&turn), "idle");
    }

    #[test]
    fn an_answer_that_is_not_read_is_the_clients_turn_until_it_is_read_to_its_end() {
        let turn = Arc::new(Turn::new());
        let _exchange = Exchange::new(Arc::clone(&turn));
        turn.wrote(100, true);
        assert!(!clients(&turn));
        turn.blocked();
        let since = turn.clients_since().unwrap();
        turn.wrote(10, false);
        turn.blocked();
        assert_eq!(turn.clients_since(), Some(since), "a few bytes change nothing");
        turn.wrote(PROGRESS, true);
        assert!(!clients(&turn));
    }

    #[test]
    fn a_trickle_is_no_progress() {
        let turn = Turn::new();
        turn.blocked();
        let limit = Duration::from_millis(20);
        let first = turn.deadline(limit).unwrap();
        turn.wrote(PROGRESS - 1, false);
        assert_eq!(turn.deadline(limit), Some(first));
        turn.wrote(1, false);
        assert!(turn.deadline(limit).unwrap() >= first);
        assert!(turn.lock().taken == 0);
    }

    #[tokio::test]
    async fn a_clients_time_ends_but_not_the_servers_and_not_a_bodys() {
        let limit = Duration::from_millis(1);
        Turn::new().overdue(limit).await;
        let turn = Arc::new(Turn::new());
        let exchange = Exchange::new(Arc::clone(&turn));
        assert_eq!(turn.deadline(limit), None);
        exchange.waits_for(Stage::Receiving);
        assert_eq!(turn.deadline(limit), None);
        exchange.waits_for(Stage::Held);
        turn.overdue(limit).await;
    }
}
