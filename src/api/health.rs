//! Probes: is the process alive, can it do its work?

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::problem::{Answer, Kind, Problem, declare_problems};
use crate::jobs::JobState;
use crate::worker::DeviceStatus;

/// The process is alive.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    /// Always `alive`.
    #[schema(examples("alive"))]
    status: &'static str,
    /// Version of the service.
    version: &'static str,
}

/// The service can run jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    /// Always `ready`.
    #[schema(examples("ready"))]
    status: &'static str,
    /// What the devices do.
    devices: Vec<DeviceStatus>,
    /// Number of jobs by state.
    jobs: BTreeMap<&'static str, u64>,
}

declare_problems!(NeverRefused: );
declare_problems!(NotReady: NotReady);

/// Is the process alive?
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "operation",
    responses((status = 200, description = "It is.", body = Alive), NeverRefused))]
pub(super) async fn livez() -> Json<Alive> {
    Json(Alive { status: "alive", version: env!("CARGO_PKG_VERSION") })
}

/// Longest time to wait for the store: probes are answered at once, with what is known.
const PATIENCE: Duration = Duration::from_millis(50);

/// Can the service run jobs?
///
/// It can when a device takes jobs and the data directory can be written, which is tried.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "operation",
    responses((status = 200, description = "It can.", body = Ready), NotReady))]
pub(super) async fn readyz(State(api): State<Api>) -> Answer<Json<Ready>> {
    let devices = api.pool().devices();
    let mut reasons = Vec::new();
    if api.ending().is_cancelled() {
        reasons.push("the server is shutting down".to_owned());
    } else if !api.pool().ready() {
        let state = |DeviceStatus { device, state, .. }: &_| format!("device {device} is {state:?}").to_lowercase();
        reasons.extend(devices.iter().map(state));
    }
    let (counts, fault) = tokio::join!(api.store().counts_within(PATIENCE), api.store().unwritable(PATIENCE));
    reasons.extend(fault.map(|fault| fault.to_string()));
    if let Err(error) = &counts {
        tracing::error!(%error, "the job store does not answer");
        reasons.push("the job store does not answer".into());
    }
    match (counts, reasons.is_empty()) {
        (Ok(counts), true) => {
            let jobs = JobState::ALL.map(|state| (state.as_str(), counts.get(&state).copied().unwrap_or(0)));
            Ok(Json(Ready { status: "ready", devices, jobs: jobs.into_iter().collect() }))
        }
        _ => Err(Problem::new(Kind::NotReady, reasons.join("; ")).because(reasons)),
    }
}
