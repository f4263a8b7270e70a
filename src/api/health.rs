//! Health probes: liveness and readiness.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::problem::{ApiResult, Kind, Problem, declare_problems};
use crate::jobs::RunState;
use crate::worker::DeviceStatus;

/// Response of the liveness probe.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    /// Always `alive`.
    #[schema(examples("alive"))]
    status: &'static str,
    /// Version of the service.
    version: &'static str,
}

/// Response of the readiness probe.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    /// Always `ready`.
    #[schema(examples("ready"))]
    status: &'static str,
    /// State of each device.
    devices: Vec<DeviceStatus>,
    /// Number of jobs in each state.
    jobs: BTreeMap<&'static str, u64>,
}

declare_problems!(NoProblems: );
declare_problems!(NotReady: NotReady);

/// Liveness probe
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "operation",
    responses((status = 200, description = "The process is alive.", body = Alive), NoProblems))]
pub(super) async fn livez() -> Json<Alive> {
    Json(Alive { status: "alive", version: env!("CARGO_PKG_VERSION") })
}

/// Time limit for the store, so that probes are answered immediately.
const STORE_TIMEOUT: Duration = Duration::from_millis(50);

/// Readiness probe
///
/// The service is ready if at least one device accepts jobs and a test write to the data directory succeeds.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "operation",
    responses((status = 200, description = "The service can run jobs.", body = Ready), NotReady))]
pub(super) async fn readyz(State(api): State<Api>) -> ApiResult<Json<Ready>> {
    let devices = api.pool().devices();
    let mut reasons = Vec::new();
    if api.shutdown().is_cancelled() {
        reasons.push("the server is shutting down".to_owned());
    } else if !api.pool().ready() {
        let state = |DeviceStatus { device, state, .. }: &_| format!("device {device} is {state:?}").to_lowercase();
        reasons.extend(devices.iter().map(state));
    }
    let (counts, fault) =
        tokio::join!(api.store().counts_within(STORE_TIMEOUT), api.store().check_writable(STORE_TIMEOUT));
    reasons.extend(fault.map(|fault| fault.to_string()));
    if let Err(error) = &counts {
        tracing::error!(%error, "the job store does not respond");
        reasons.push("the job store does not respond".into());
    }
    match (counts, reasons.is_empty()) {
        (Ok(counts), true) => {
            let jobs = RunState::ALL.map(|state| (state.as_str(), counts.get(&state).copied().unwrap_or(0)));
            Ok(Json(Ready { status: "ready", devices, jobs: jobs.into_iter().collect() }))
        }
        _ => Err(Problem::new(Kind::NotReady, reasons.join("; ")).with_reasons(reasons)),
    }
}
