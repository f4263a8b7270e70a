//! What the runs of studies come to: computed once for everybody who asks.

use std::sync::Arc;

use tokio::sync::Mutex;
use uuid::Uuid;

use crate::api::Api;
use crate::api::problem::{Answer, Problem};
use proxygrad::study::{StudyError, Summary, summary};

/// The latest summaries. Intervals are resampled, which takes longer than a client should wait each time it looks.
#[derive(Default)]
pub(in crate::api) struct Summaries(Mutex<Vec<Kept>>);

struct Kept {
    study: Uuid,
    /// Length of the table of runs that it was made of: the table only grows.
    length: usize,
    summary: Arc<Summary>,
}

/// Most summaries that are kept.
const MOST: usize = 8;

impl Api {
    /// What the runs of a study come to so far; nothing when none is done.
    pub(super) async fn summary(&self, study: Uuid) -> Answer<Option<Arc<Summary>>> {
        let folder = self.store().study_folder(study);
        // One is asked for at a time; who asks for the same one meanwhile gets it, too.
        let mut kept = self.0.summaries.0.lock().await;
        let known = kept.iter().find(|kept| kept.study == study).map(|kept| (kept.length, Arc::clone(&kept.summary)));
        let made = tokio::task::spawn_blocking(move || -> Result<_, StudyError> {
            let Some(table) = folder.table()?.filter(|table| table.lines().count() > 1) else { return Ok(None) };
            match known {
                Some((length, summary)) if length == table.len() => Ok(Some((length, summary))),
                _ => Ok(Some((table.len(), Arc::new(summary(&folder, None)?)))),
            }
        });
        let made = match made.await.map_err(Problem::internal)? {
            // The study is known all the same.
            Err(StudyError::Invalid(missing)) => {
                tracing::warn!(%study, %missing, "a file of a study is lost");
                None
            }
            made => made.map_err(Problem::internal)?,
        };
        let Some((length, summary)) = made else { return Ok(None) };
        kept.retain(|kept| kept.study != study);
        kept.truncate(MOST - 1);
        kept.insert(0, Kept { study, length, summary: Arc::clone(&summary) });
        Ok(Some(summary))
    }
}
