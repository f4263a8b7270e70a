//! `GET /metrics`: metrics in the Prometheus text format.

use std::sync::{Mutex, OnceLock, PoisonError};

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::Api;
use super::problem::{ApiResult, Problem, declare_problems};

/// Histogram buckets in seconds, from a lookup to a long `Prefer: wait`.
const BUCKETS: &[f64] = &[0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0];

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the metrics recorder, which all servers of the process share.
///
/// # Errors
/// If another recorder is installed in this process.
pub(super) fn recorder() -> Result<PrometheusHandle, BuildError> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _lock = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let durations = Matcher::Suffix("_seconds".into());
    let handle = PrometheusBuilder::new().set_buckets_for_metric(durations, BUCKETS)?.install_recorder()?;
    metrics::describe_counter!("proxygrad_http_requests_total", "Completed requests.");
    metrics::describe_histogram!(
        "proxygrad_http_request_duration_seconds",
        "Time from the request to the response head."
    );
    metrics::describe_gauge!("proxygrad_http_connections", "Open connections.");
    metrics::describe_counter!(
        "proxygrad_http_connections_total",
        "Accepted connections, by the requests answered on them."
    );
    metrics::describe_counter!(
        "proxygrad_http_connections_displaced_total",
        "Connections evicted in favour of a new one."
    );
    metrics::describe_counter!(
        "proxygrad_http_connections_overdue_total",
        "Connections closed because the client timed out."
    );
    crate::jobs::describe_metrics();
    crate::worker::describe_metrics();
    Ok(RECORDER.get_or_init(|| handle).clone())
}

declare_problems!(NoProblems: );

/// Get metrics
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "operation",
    responses((status = 200, description = "Metrics in the Prometheus text format, version 0.0.4.", content_type = "text/plain",
               body = String), NoProblems))]
pub(super) async fn metrics(State(api): State<Api>) -> ApiResult<([(HeaderName, HeaderValue); 1], String)> {
    api.store().measure().await.map_err(Problem::internal)?;
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, text)], api.metrics().render()))
}
