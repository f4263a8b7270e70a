//! What each device is doing, as shown to clients.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

/// A device and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeviceStatus {
    /// Its name, such as `cuda:0`.
    pub device: String,
    /// Its state.
    pub state: DeviceState,
    /// Number of jobs running on it; 0 while it runs a study or training.
    pub jobs: usize,
}

/// State of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceState {
    /// Waiting for work.
    Idle,
    /// Running jobs, a study or a training.
    Busy,
    /// Its engine could not be reopened after a failure; retried from time to time.
    Unavailable,
    /// Takes no more work.
    Stopped,
}

/// State of a device and its number of running jobs, shared by the device and the pool.
#[derive(Debug)]
pub(super) struct SharedStatus(Mutex<(DeviceState, usize)>);

impl SharedStatus {
    pub(super) fn new() -> Self {
        Self(Mutex::new((DeviceState::Idle, 0)))
    }

    pub(super) fn set(&self, state: DeviceState, jobs: usize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (state, jobs);
    }

    pub(super) fn get(&self) -> (DeviceState, usize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
