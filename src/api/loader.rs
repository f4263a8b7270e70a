//! Models for handlers: loading blocks and can take long, requests must neither.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::problem::{Kind, Problem};
use proxygrad::Invalid;
use proxygrad::network::Model;
use proxygrad::network::catalog::{ModelEntry, ModelError, Models};

/// A model that cannot be had.
pub(super) enum LoadError {
    /// No such model.
    Unknown(Invalid),
    /// It exists, but.
    Problem(Problem),
}

impl LoadError {
    /// The answer to a request whose path named the model.
    pub fn in_path(self) -> Problem {
        match self {
            Self::Unknown(error) => Problem::invalid(Kind::UnknownModel, error),
            Self::Problem(problem) => problem,
        }
    }

    /// The answer to a request whose body named the model.
    pub fn in_body(self) -> Problem {
        match self {
            Self::Unknown(error) => Problem::invalid(Kind::InvalidRequest, error),
            Self::Problem(problem) => problem,
        }
    }
}

type Load = Shared<BoxFuture<'static, Result<Arc<Model>, Problem>>>;

/// The models, loaded on threads of their own: one per model at most, however many requests wait for it.
pub(super) struct Loader {
    models: Arc<Models>,
    /// How long a request waits.
    patience: Duration,
    loads: Arc<Mutex<HashMap<String, Load>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole between any two statements, whoever panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Loader {
    pub fn new(models: Arc<Models>, patience: Duration) -> Self {
        Self { models, patience, loads: Arc::default() }
    }

    /// Every model.
    pub async fn list(&self) -> Result<Vec<ModelEntry>, Problem> {
        self.look(Models::list).await
    }

    /// What is known about a model without loading it.
    pub async fn entry(&self, id: &str) -> Result<ModelEntry, LoadError> {
        let name = id.to_owned();
        match self.look(move |models| models.entry(&name)).await.map_err(LoadError::Problem)? {
            Some(entry) => Ok(entry),
            None => {
                let known: Vec<String> =
                    self.list().await.map_err(LoadError::Problem)?.into_iter().map(|e| e.id).collect();
                Err(LoadError::Unknown(Invalid::new("model", id, format!("one of {}", known.join(", ")))))
            }
        }
    }

    /// Looks something up in the folders of models.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Models) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let models = Arc::clone(&self.models);
        tokio::task::spawn_blocking(move || look(&models)).await.map_err(Problem::internal)
    }

    /// The model, for a request that arrived so long ago. When it takes too long the request is told to come back; the load
    /// goes on.
    pub async fn load(&self, id: &str, waited: Duration) -> Result<Arc<Model>, LoadError> {
        // Unknown ids never get a load: there are at most as many as models.
        self.entry(id).await?;
        let load = lock(&self.loads).entry(id.to_owned()).or_insert_with(|| self.begin(id)).clone();
        match tokio::time::timeout(self.patience.saturating_sub(waited), load).await {
            Ok(loaded) => loaded.map_err(LoadError::Problem),
            Err(_) => {
                let detail = format!("model {id} is still being fetched after {:?}", self.patience);
                Err(LoadError::Problem(Problem::new(Kind::ModelUnavailable, detail).retry_after(SOON)))
            }
        }
    }

    fn begin(&self, id: &str) -> Load {
        let (models, loads, id) = (Arc::clone(&self.models), Arc::clone(&self.loads), id.to_owned());
        let work = tokio::task::spawn_blocking(move || {
            let loaded = models.load(&id);
            lock(&loads).remove(&id);
            loaded.map_err(problem)
        });
        // A task of its own: it goes on when every request that waits for it goes away.
        let load = async move { work.await.unwrap_or_else(|error| Err(Problem::internal(error))) };
        load.boxed().shared()
    }
}

/// Seconds after which a model may have arrived.
pub(super) const SOON: u32 = 10;

fn problem(error: ModelError) -> Problem {
    match error {
        ModelError::Unavailable { .. } => {
            tracing::warn!(%error, "a model could not be fetched");
            Problem::new(Kind::ModelUnavailable, error.to_string()).retry_after(SOON)
        }
        error => {
            tracing::error!(%error, "a model cannot be used");
            Problem::new(Kind::BrokenModel, error.to_string())
        }
    }
}
