//! Model cache of the handlers: single-flight loading on blocking threads, with a timeout per request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::problem::{Kind, Problem};
use proxygrad::Invalid;
use proxygrad::network::Model;
use proxygrad::network::catalog::{ModelEntry, ModelError, Models};

/// Why a model could not be loaded.
pub(super) enum LoadError {
    /// No model has this id.
    Unknown(Invalid),
    /// The model exists, but cannot be used now.
    Problem(Problem),
}

impl LoadError {
    /// The error if this field of the request names the model.
    pub fn at(self, field: &str) -> Self {
        match self {
            Self::Unknown(error) => Self::Unknown(Invalid { field: field.to_owned(), ..error }),
            error @ Self::Problem(_) => error,
        }
    }

    /// The problem if the path of the request names the model.
    pub fn in_path(self) -> Problem {
        match self {
            Self::Unknown(error) => Problem::invalid(Kind::UnknownModel, error),
            Self::Problem(problem) => problem,
        }
    }

    /// The problem if the body of the request names the model.
    pub fn in_body(self) -> Problem {
        match self {
            Self::Unknown(error) => Problem::invalid(Kind::InvalidRequest, error),
            Self::Problem(problem) => problem,
        }
    }
}

type Load = Shared<BoxFuture<'static, Result<Arc<Model>, Problem>>>;

/// Models for handlers. Concurrent requests for a model share a single load.
pub(super) struct ModelCache {
    models: Arc<Models>,
    /// Longest wait of a request.
    timeout: Duration,
    loads: Arc<Mutex<HashMap<String, Load>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Consistent between any two statements, so a poisoned lock is usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ModelCache {
    pub fn new(models: Arc<Models>, timeout: Duration) -> Self {
        Self { models, timeout, loads: Arc::default() }
    }

    /// All models.
    pub async fn list(&self) -> Result<Vec<ModelEntry>, Problem> {
        self.blocking(Models::list).await
    }

    /// The catalog entry of a model, without loading it.
    pub async fn entry(&self, id: &str) -> Result<ModelEntry, LoadError> {
        let name = id.to_owned();
        match self.blocking(move |models| models.entry(&name)).await.map_err(LoadError::Problem)? {
            Some(entry) => Ok(entry),
            None => {
                let known: Vec<String> =
                    self.list().await.map_err(LoadError::Problem)?.into_iter().map(|e| e.id).collect();
                Err(LoadError::Unknown(Invalid::new("model", id, format!("one of {}", known.join(", ")))))
            }
        }
    }

    /// Runs a catalog operation, which reads files, on a blocking thread.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Models) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let models = Arc::clone(&self.models);
        tokio::task::spawn_blocking(move || work(&models)).await.map_err(Problem::internal)
    }

    /// Loads a model for a request that has already waited for `waited`. On timeout the request gets a problem with
    /// `Retry-After`, and the load continues.
    pub async fn load(&self, id: &str, waited: Duration) -> Result<Arc<Model>, LoadError> {
        // Unknown ids never start a load, so there are at most as many loads as models.
        self.entry(id).await?;
        let load = lock(&self.loads).entry(id.to_owned()).or_insert_with(|| self.start(id)).clone();
        match tokio::time::timeout(self.timeout.saturating_sub(waited), load).await {
            Ok(loaded) => loaded.map_err(LoadError::Problem),
            Err(_) => {
                let detail = format!("model {id} is still being downloaded after {:?}", self.timeout);
                Err(LoadError::Problem(Problem::new(Kind::ModelUnavailable, detail).retry_after(RETRY_AFTER)))
            }
        }
    }

    fn start(&self, id: &str) -> Load {
        let (models, loads, id) = (Arc::clone(&self.models), Arc::clone(&self.loads), id.to_owned());
        let work = tokio::task::spawn_blocking(move || {
            let loaded = models.load(&id);
            lock(&loads).remove(&id);
            loaded.map_err(problem)
        });
        // The blocking task continues even if every waiting request is dropped.
        let load = async move { work.await.unwrap_or_else(|error| Err(Problem::internal(error))) };
        load.boxed().shared()
    }
}

/// `Retry-After` while a model is unavailable, in seconds.
pub(super) const RETRY_AFTER: u32 = 10;

fn problem(error: ModelError) -> Problem {
    match error {
        ModelError::Unavailable { .. } => {
            tracing::warn!(%error, "model download failed");
            Problem::new(Kind::ModelUnavailable, error.to_string()).retry_after(RETRY_AFTER)
        }
        error => {
            tracing::error!(%error, "model is broken");
            Problem::new(Kind::BrokenModel, error.to_string())
        }
    }
}
