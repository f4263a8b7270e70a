//! Feed: events of jobs, studies and trainings while they run, in memory.
//!
//! Every one of them has a channel while it runs or is watched: a ring buffer of its latest events, with increasing
//! ids. Subscribers read from it at their own pace; a slow or late one learns how many events it missed. A channel is
//! dropped some time after its owner has finished, which bounds memory. Below, "job" means any of them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::Stream;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::watch;
use utoipa::ToSchema;
use uuid::Uuid;

use super::job::Progress;
use super::run_state::RunState;
use super::study::StudyProgress;
use super::training::TrainingProgress;
use proxygrad::train::Epoch;

/// Events that a channel keeps.
const RING: usize = 256;
/// How long a channel is kept after the terminal state of its job.
const RETENTION: Duration = Duration::from_secs(60);

/// Event of a job, study or training.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Event {
    /// Its state changed.
    State {
        /// The new state.
        state: RunState,
    },
    /// A stimulus was scored.
    Progress {
        /// Steps done, over all stimuli of the job.
        step: u32,
        /// Steps to do.
        steps: u32,
        /// The stimulus that was scored, from 0.
        stimulus: usize,
        /// Value of the objective on this stimulus, without transforms; null in JSON if not finite.
        score: f32,
    },
    /// Progress of a study.
    Study(StudyProgress),
    /// Progress of a training.
    Training(TrainingProgress),
    /// An epoch of a training has ended, with these measurements.
    Epoch(Epoch),
}

impl Event {
    /// The kind of event: `state`, `progress` or `epoch`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::State { .. } => "state",
            Self::Progress { .. } | Self::Study(_) | Self::Training(_) => "progress",
            Self::Epoch(_) => "epoch",
        }
    }
}

/// What a subscriber reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// An event.
    Event {
        /// Greater than the ids of all earlier events of the job, even across restarts of the service.
        id: u64,
        /// What happened.
        event: Event,
    },
    /// Events before the next one are no longer available.
    Skipped {
        /// Their number.
        events: u64,
    },
}

/// The events of all jobs.
#[derive(Debug)]
pub struct Feed {
    channels: Mutex<Channels>,
    retention: Duration,
}

#[derive(Debug, Default)]
struct Channels {
    by_job: HashMap<Uuid, Arc<Channel>>,
    /// Channels of finished jobs, oldest first.
    ended: VecDeque<(Instant, Uuid)>,
    /// Whether the service is shutting down.
    closed: bool,
}

#[derive(Debug)]
struct Channel {
    ring: Mutex<Ring>,
    /// Number of callers that are looking up the job's state; changes only under the lock of all channels.
    attached: AtomicUsize,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Ring {
    first: u64,
    next: u64,
    events: VecDeque<(u64, Event)>,
    /// The latest state, kept even after progress events push it out of the ring.
    state: Option<(u64, RunState)>,
    /// The latest progress event since the state changed.
    progress: Option<Event>,
    closed: bool,
}

impl Default for Feed {
    fn default() -> Self {
        Self::new(RETENTION)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while holding one of these locks, and the guarded data is consistent between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    /// A feed that keeps channels for `retention` after their jobs have finished.
    pub(super) fn new(retention: Duration) -> Self {
        Self { channels: Mutex::default(), retention }
    }

    /// Publishes an event to the subscribers of a job. Ignored if the job has finished, as is progress before any
    /// state.
    pub fn publish(&self, job: Uuid, event: Event) {
        let channel = {
            let mut channels = self.channels();
            match (channels.by_job.get(&job), &event) {
                (Some(channel), _) => Arc::clone(channel),
                (None, Event::Progress { .. } | Event::Study(_) | Event::Training(_) | Event::Epoch(_)) => return,
                (None, Event::State { .. }) if channels.closed => return,
                (None, Event::State { .. }) => {
                    let channel = Arc::new(Channel::new());
                    channels.by_job.insert(job, Arc::clone(&channel));
                    channel
                }
            }
        };
        if channel.push(event) {
            self.channels().ended.push_back((Instant::now(), job));
        }
    }

    /// Latest published progress of a running job.
    pub fn progress(&self, job: Uuid) -> Option<Progress> {
        match self.latest(job)? {
            Event::Progress { step, steps, .. } => Some(Progress { step, steps }),
            _ => None,
        }
    }

    /// Latest published progress of a running study.
    pub fn study_progress(&self, study: Uuid) -> Option<StudyProgress> {
        match self.latest(study)? {
            Event::Study(progress) => Some(progress),
            _ => None,
        }
    }

    /// Latest published progress of a running training.
    pub fn training_progress(&self, training: Uuid) -> Option<TrainingProgress> {
        match self.latest(training)? {
            Event::Training(progress) => Some(progress),
            _ => None,
        }
    }

    fn latest(&self, job: Uuid) -> Option<Event> {
        let channel = self.channels().by_job.get(&job).cloned()?;
        let ring = lock(&channel.ring);
        ring.progress.clone()
    }

    /// Number of channels in memory.
    pub fn channels_in_memory(&self) -> usize {
        self.channels().by_job.len()
    }

    /// Opens the channel of a job before its state is looked up, so that no event in between is lost.
    pub(super) fn attach(&self, job: Uuid) -> Attached<'_> {
        let mut channels = self.channels();
        let channel = Arc::clone(channels.by_job.entry(job).or_insert_with(|| Arc::new(Channel::new())));
        channel.attached.fetch_add(1, Ordering::Relaxed);
        Attached { feed: self, job, channel }
    }

    /// Drops the channel of a deleted job; its subscribers still read the remaining events, then the stream ends.
    pub(super) fn remove(&self, job: Uuid) {
        if let Some(channel) = self.channels().by_job.remove(&job) {
            channel.close();
        }
    }

    /// Ends every stream, at shutdown.
    pub(super) fn close(&self) {
        let mut channels = self.channels();
        channels.closed = true;
        channels.ended.clear();
        for (_, channel) in channels.by_job.drain() {
            channel.close();
        }
    }

    /// The channels, without expired ones.
    fn channels(&self) -> MutexGuard<'_, Channels> {
        let mut channels = lock(&self.channels);
        while channels.ended.front().is_some_and(|(ended, _)| ended.elapsed() >= self.retention) {
            if let Some((_, job)) = channels.ended.pop_front() {
                channels.by_job.remove(&job);
            }
        }
        channels
    }
}

/// A channel while the state of its job is being looked up. If dropped without a state, the channel is removed.
pub(super) struct Attached<'a> {
    feed: &'a Feed,
    job: Uuid,
    channel: Arc<Channel>,
}

impl Attached<'_> {
    /// Subscribes to the events after `after`. `state` is published first if the channel has no state yet.
    pub(super) fn subscribe(self, state: RunState, after: Option<u64>) -> Subscription {
        if self.channel.push_first(state) {
            self.feed.channels().ended.push_back((Instant::now(), self.job));
        }
        let ring = lock(&self.channel.ring);
        let next = match after {
            // A greater id was issued before a restart, when the clock was ahead.
            Some(after) if after < ring.next => (after + 1).max(ring.first),
            _ => ring.first,
        };
        drop(ring);
        Subscription { changed: self.channel.changed.subscribe(), channel: Arc::clone(&self.channel), next }
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        let mut channels = self.feed.channels();
        let last = self.channel.attached.fetch_sub(1, Ordering::Relaxed) == 1;
        if last && lock(&self.channel.ring).state.is_none() {
            channels.by_job.remove(&self.job);
        }
        if channels.closed {
            self.channel.close();
        }
    }
}

impl Channel {
    fn new() -> Self {
        // Ids start at the time in microseconds, so that they grow across restarts: no job has a million events per
        // second.
        let now = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000;
        let first = u64::try_from(now).unwrap_or(1);
        let ring = Ring { first, next: first, events: VecDeque::new(), state: None, progress: None, closed: false };
        Self { ring: Mutex::new(ring), attached: AtomicUsize::new(0), changed: watch::Sender::new(()) }
    }

    /// Returns whether this event closed the channel.
    fn push(&self, event: Event) -> bool {
        let ended = lock(&self.ring).push(event);
        self.changed.send_replace(());
        ended
    }

    /// Pushes the state unless there is one. Returns whether that closed the channel.
    fn push_first(&self, state: RunState) -> bool {
        let mut ring = lock(&self.ring);
        let ended = ring.state.is_none() && ring.push(Event::State { state });
        drop(ring);
        self.changed.send_replace(());
        ended
    }

    fn close(&self) {
        lock(&self.ring).closed = true;
        self.changed.send_replace(());
    }
}

impl Ring {
    fn push(&mut self, event: Event) -> bool {
        if self.closed {
            return false;
        }
        match &event {
            Event::State { state } if self.state.is_some_and(|(_, known)| known == *state) => return false,
            &Event::State { state } => {
                self.state = Some((self.next, state));
                self.progress = None;
                self.closed = state.is_terminal();
            }
            Event::Study(_) | Event::Training(_) if self.progress.as_ref() == Some(&event) => return false,
            Event::Progress { .. } | Event::Study(_) | Event::Training(_) => self.progress = Some(event.clone()),
            Event::Epoch(_) => {}
        }
        if self.events.len() == RING {
            self.events.pop_front();
        }
        self.events.push_back((self.next, event));
        self.next += 1;
        self.closed
    }

    /// The first available event with an id of at least `from`.
    fn at_or_after(&self, from: u64) -> Option<(u64, Event)> {
        let pinned = self.state.map(|(id, state)| (id, Event::State { state })).filter(|(id, _)| *id >= from);
        let oldest = self.events.front().map_or(self.next, |(id, _)| *id);
        let offset = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let in_ring = self.events.get(offset).cloned();
        match (pinned, in_ring) {
            (Some(pinned), Some(in_ring)) => Some(if pinned.0 < in_ring.0 { pinned } else { in_ring }),
            (pinned, in_ring) => pinned.or(in_ring),
        }
    }
}

/// Subscription to the events of one job. Ends after the terminal state.
#[derive(Debug)]
pub struct Subscription {
    channel: Arc<Channel>,
    changed: watch::Receiver<()>,
    next: u64,
}

impl Subscription {
    /// Waits for the next event; `None` after the terminal state, or when the service shuts down. Cancel-safe: dropping
    /// the future loses no event.
    pub async fn next(&mut self) -> Option<Update> {
        loop {
            self.changed.borrow_and_update();
            {
                let ring = lock(&self.channel.ring);
                match ring.at_or_after(self.next) {
                    Some((id, _)) if id > self.next => {
                        let events = id - self.next;
                        self.next = id;
                        return Some(Update::Skipped { events });
                    }
                    Some((id, event)) => {
                        self.next = id + 1;
                        return Some(Update::Event { id, event });
                    }
                    None if ring.closed => return None,
                    None => {}
                }
            }
            self.changed.changed().await.ok()?;
        }
    }

    /// The events as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Update> + Send {
        futures_util::stream::unfold(self, |mut subscription| async move {
            subscription.next().await.map(|update| (update, subscription))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const STATE: fn(RunState) -> Event = |state| Event::State { state };

    #[test]
    fn channels_of_ended_jobs_go_and_those_of_living_jobs_stay() {
        let feed = Feed::new(Duration::ZERO);
        let living = Uuid::now_v7();
        feed.publish(living, STATE(RunState::Running));
        for _ in 0..5000 {
            let job = Uuid::now_v7();
            feed.publish(job, STATE(RunState::Running));
            feed.publish(job, Event::Progress { step: 1, steps: 2, stimulus: 0, score: 0.0 });
            feed.publish(job, STATE(RunState::Succeeded));
        }
        assert_eq!(feed.channels_in_memory(), 1);
        assert!(lock(&feed.channels).ended.is_empty());
        feed.publish(living, STATE(RunState::Failed));
        assert_eq!(feed.channels_in_memory(), 0);
    }

    #[test]
    fn a_channel_outlives_its_job_for_a_while() {
        let feed = Feed::new(Duration::from_secs(3600));
        let job = Uuid::now_v7();
        feed.publish(job, STATE(RunState::Canceled));
        assert_eq!(feed.channels_in_memory(), 1);
        feed.remove(job);
        assert_eq!(feed.channels_in_memory(), 0);
    }

    #[test]
    fn watching_jobs_that_ended_long_ago_leaves_nothing_behind() {
        let feed = Feed::new(Duration::ZERO);
        for _ in 0..100 {
            drop(feed.attach(Uuid::now_v7()).subscribe(RunState::Succeeded, None));
            drop(feed.attach(Uuid::now_v7()));
        }
        assert_eq!(feed.channels_in_memory(), 0);
    }

    #[test]
    fn one_of_two_that_look_up_a_job_may_give_up_without_harm_to_the_other() {
        let feed = Feed::new(Duration::ZERO);
        let job = Uuid::now_v7();
        let (stays, gives_up) = (feed.attach(job), feed.attach(job));
        drop(gives_up);
        let events = stays.subscribe(RunState::Queued, None);
        feed.publish(job, STATE(RunState::Running));
        assert_eq!(lock(&events.channel.ring).events.len(), 2);
    }

    #[test]
    fn ids_grow_from_one_life_of_a_channel_to_the_next() {
        let first = lock(&Channel::new().ring).first;
        std::thread::sleep(Duration::from_millis(2));
        assert!(lock(&Channel::new().ring).first > first);
    }
}
