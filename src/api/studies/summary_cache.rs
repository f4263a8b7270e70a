//! Cache of study summaries, shared by all requests.

use std::sync::Arc;

use tokio::sync::Mutex;
use uuid::Uuid;

use crate::api::Api;
use crate::api::problem::{ApiResult, Problem};
use proxygrad::study::{StudyError, Summary, summary};

/// The most recent summaries. Bootstrap intervals are too expensive to compute for every request.
#[derive(Default)]
pub(in crate::api) struct SummaryCache(Mutex<Vec<CachedSummary>>);

struct CachedSummary {
    study: Uuid,
    /// Length of the table of runs it was computed from. The table only grows, so the length is its version.
    length: usize,
    summary: Arc<Summary>,
}

/// Maximum number of summaries.
const CAPACITY: usize = 8;

impl Api {
    /// Summary of the finished runs of a study; `None` if there are none.
    pub(super) async fn summary(&self, study: Uuid) -> ApiResult<Option<Arc<Summary>>> {
        let folder = self.store().study_folder(study);
        // Held while computing, so that concurrent requests share the result.
        let mut cached = self.0.summary_cache.0.lock().await;
        let known = cached.iter().find(|entry| entry.study == study);
        let known = known.map(|entry| (entry.length, Arc::clone(&entry.summary)));
        let computed = tokio::task::spawn_blocking(move || -> Result<_, StudyError> {
            let Some(table) = folder.table()?.filter(|table| table.lines().count() > 1) else { return Ok(None) };
            match known {
                Some((length, summary)) if length == table.len() => Ok(Some((length, summary))),
                _ => Ok(Some((table.len(), Arc::new(summary(&folder, None)?)))),
            }
        });
        let computed = match computed.await.map_err(Problem::internal)? {
            // The study itself still exists.
            Err(StudyError::Invalid(missing)) => {
                tracing::warn!(%study, %missing, "study file is missing");
                None
            }
            computed => computed.map_err(Problem::internal)?,
        };
        let Some((length, summary)) = computed else { return Ok(None) };
        cached.retain(|entry| entry.study != study);
        cached.truncate(CAPACITY - 1);
        cached.insert(0, CachedSummary { study, length, summary: Arc::clone(&summary) });
        Ok(Some(summary))
    }
}
