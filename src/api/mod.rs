//! HTTP: routes, request and answer documents, problem details, OpenAPI.
//!
//! [`router`] holds every call. A handler parses and checks, asks the job store or the models, and answers; it never runs
//! a network itself. Every error is a [`problem`] document.

mod accepted;
mod base;
mod body;
mod browsers;
mod budget;
mod client;
mod decoding;
mod docs;
mod etag;
mod events;
mod explain;
mod failure;
mod guard;
mod health;
mod idempotency;
mod jobs;
mod json_error;
mod loader;
mod metrics;
mod models;
mod observe;
mod openapi;
mod parameters;
mod prefer;
pub mod problem;
mod server;
mod studies;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use metrics_exporter_prometheus::{BuildError, PrometheusHandle};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

pub use server::{Server, listen};

use crate::config::Config;
use crate::jobs::{Job, Store, Study};
use crate::worker::Pool;
use budget::Budget;
use client::{Client, Site};
use decoding::Decoding;
use loader::{LoadError, Loader};
use problem::{Kind, Problem};
use proxygrad::engine::MemoryModel;
use proxygrad::maximize::{Limits, Request, Resolved};
use proxygrad::network::Model;
use proxygrad::network::catalog::{ModelState, Models};
use studies::Summaries;

/// What handlers work with. Clones share it.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

struct Parts {
    config: Config,
    store: Store,
    models: Loader,
    pool: Arc<Pool>,
    metrics: PrometheusHandle,
    ending: CancellationToken,
    summaries: Summaries,
    /// Requests that wait for a job, a study or a model.
    waiting: Budget,
    /// Streams of events.
    streams: Budget,
    /// Studies that are planned at a time.
    planning: Arc<Semaphore>,
    decoding: Decoding,
    bound: RunBound,
}

/// Time after which a request that is not answered is one that waits.
const MOMENT: Duration = Duration::from_secs(1);

/// Most studies that are planned at a time.
const PLANNING: usize = 2;

/// How much memory a run may take, and what tells how much it would.
#[derive(Clone)]
struct RunBound {
    /// Of each kind of device that there is.
    models: Arc<[MemoryModel]>,
    /// In bytes.
    allowed: u64,
}

impl RunBound {
    fn new(config: &Config) -> Self {
        let cpu = config.cpu.settings(&config.places.data_dir);
        let names: BTreeSet<&String> = config.devices.iter().collect();
        let models = names.into_iter().map(|name| MemoryModel::of_device(name, &cpu)).collect();
        Self { models, allowed: config.memory.run_bytes() }
    }

    /// Refuses a request that would take more on some device.
    fn check(&self, resolved: &Resolved, model: &Model) -> Result<(), Problem> {
        for memory in self.models.iter() {
            match resolved.too_large(memory, model, self.allowed) {
                Ok(None) => {}
                Ok(Some(too_large)) => {
                    return Err(Problem::too_large(Kind::TooMuchMemory, too_large.to_string(), too_large.fields));
                }
                Err(error) => return Err(Problem::internal(error)),
            }
        }
        Ok(())
    }
}

impl Api {
    /// An API over these rooms. Once `ending` is cancelled, requests that wait for jobs are answered and event streams
    /// end.
    ///
    /// # Errors
    /// When this process records metrics in another way.
    pub fn new(
        config: Config,
        store: Store,
        models: Arc<Models>,
        pool: Arc<Pool>,
        ending: CancellationToken,
    ) -> Result<Self, BuildError> {
        let models = Loader::new(models, config.model_timeout);
        let metrics = metrics::recorder()?;
        let (summaries, planning) = (Summaries::default(), Arc::new(Semaphore::new(PLANNING)));
        let (waiting, streams) = (Budget::new(config.max_waiting()), Budget::new(config.max_streams()));
        let (decoding, bound) = (Decoding::new(config.max_image_memory as u64), RunBound::new(&config));
        let parts = Parts {
            config,
            store,
            models,
            pool,
            metrics,
            ending,
            summaries,
            waiting,
            streams,
            planning,
            decoding,
            bound,
        };
        Ok(Self(Arc::new(parts)))
    }

    fn config(&self) -> &Config {
        &self.0.config
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn models(&self) -> &Loader {
        &self.0.models
    }

    fn metrics(&self) -> &PrometheusHandle {
        &self.0.metrics
    }

    fn pool(&self) -> &Pool {
        &self.0.pool
    }

    fn ending(&self) -> &CancellationToken {
        &self.0.ending
    }

    /// Places for requests that wait.
    fn waiting(&self) -> &Budget {
        &self.0.waiting
    }

    /// Places for streams of events.
    fn streams(&self) -> &Budget {
        &self.0.streams
    }

    /// The model. Who has to wait for it longer than a moment takes a place of those who wait.
    async fn load(&self, id: &str, client: Client) -> Result<Arc<Model>, LoadError> {
        if client.site == Site::Foreign && self.models().entry(id).await?.state == ModelState::Pullable {
            let detail = format!("model {id} would have to be fetched, which a page of another site may not ask for");
            return Err(LoadError::Problem(Problem::new(Kind::CrossSiteRequest, detail)));
        }
        let mut load = std::pin::pin!(self.models().load(id, client.since.elapsed()));
        if let Ok(loaded) = tokio::time::timeout(MOMENT, load.as_mut()).await {
            return loaded;
        }
        let Some(_place) = self.waiting().take(client.key) else {
            let detail = format!("model {id} is still being fetched, and too many requests wait already");
            let problem = Problem::new(Kind::ModelUnavailable, detail).retry_after(loader::SOON);
            return Err(LoadError::Problem(problem));
        };
        load.await
    }

    /// What the request means for its model. Refuses what would take more memory than is allowed.
    async fn resolve(&self, request: Request, model: Arc<Model>) -> Result<Resolved, Problem> {
        let invalid = |error| Problem::invalid(Kind::InvalidRequest, error);
        // What is wrong with images is told below, after what is wrong before them; none is unpacked then.
        let memory = request.image_memory(&model).unwrap_or_default();
        let room = match memory {
            Some(bytes) => Some(self.0.decoding.room(bytes).await?),
            None => None,
        };
        let (limits, bound) = (self.config().limits(), self.0.bound.clone());
        let resolved = tokio::task::spawn_blocking(move || {
            // The work goes on when the client goes away, and so does its share of the memory.
            let _room = room;
            let resolved = request.resolve(&model, &limits).map_err(invalid)?;
            bound.check(&resolved, &model)?;
            Ok(resolved)
        });
        resolved.await.map_err(Problem::internal)?
    }

    /// Plans a study, away from the tasks that answer, and not too many at a time. Its requests may bring images.
    async fn plan<T: Send + 'static>(
        &self,
        images: bool,
        work: impl FnOnce(&RunBound) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = Arc::clone(&self.0.planning).acquire_owned().await.map_err(Problem::internal)?;
        let room = if images { Some(self.0.decoding.all_for_large().await?) } else { None };
        let bound = self.0.bound.clone();
        let planned = tokio::task::spawn_blocking(move || {
            let _held = (turn, room);
            work(&bound)
        });
        planned.await.map_err(Problem::internal)?
    }

    /// The job with this id.
    async fn job(&self, id: Uuid) -> Result<Job, Problem> {
        let job = self.store().get(id).await.map_err(Problem::internal)?;
        job.ok_or_else(|| jobs::unknown(id))
    }

    /// The study with this id.
    async fn study(&self, id: Uuid) -> Result<Study, Problem> {
        let study = self.store().study(id).await.map_err(Problem::internal)?;
        study.ok_or_else(|| studies::unknown(id))
    }

    /// The job when it has ended, when the time is over, or when the server shuts down.
    async fn wait(&self, job: Job, limit: Duration) -> Result<Job, Problem> {
        let ended = self.store().wait(job.id, limit);
        match self.ending().run_until_cancelled(ended).await {
            Some(ended) => Ok(ended.map_err(Problem::internal)?.unwrap_or(job)),
            None => self.job(job.id).await,
        }
    }

    /// The study, likewise.
    async fn wait_for_study(&self, study: Study, limit: Duration) -> Result<Study, Problem> {
        let ended = self.store().wait_for_study(study.id, limit);
        match self.ending().run_until_cancelled(ended).await {
            Some(ended) => Ok(ended.map_err(Problem::internal)?.unwrap_or(study)),
            None => self.study(study.id).await,
        }
    }
}

/// Every call and its description.
fn calls() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::frame())
        .merge(jobs::router())
        .merge(studies::router())
        .merge(models::router())
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(explain::all))
        .routes(routes!(explain::one))
}

/// The whole service.
///
/// # Errors
/// When the OpenAPI document cannot be written as JSON.
pub fn router(api: Api) -> Result<Router, serde_json::Error> {
    let (calls, document) = calls().split_for_parts();
    let document = openapi::render(&document, &api.config().limits())?;
    let router = calls
        .merge(openapi::router(document)?)
        .merge(docs::router())
        .layer(CatchPanicLayer::custom(failure::panicked))
        .layer(from_fn_with_state(api.clone(), guard::guard))
        .layer(from_fn_with_state(api.clone(), failure::uniform));
    // Outside of everything that refuses: a page of an allowed origin may also read why.
    let router = match browsers::cors(&api.config().cors_origin) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    let router = router.layer(from_fn(browsers::protect)).layer(from_fn(observe::observe));
    // Routes are looked up below, without the base path.
    let base = api.config().base_path.clone();
    let service =
        router.with_state(api).map_request(move |request: axum::extract::Request| base::strip(&base, request));
    Ok(Router::new().fallback_service(service))
}

/// The OpenAPI document of a server with default limits, as it is committed at `openapi/openapi.json`.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn openapi_document() -> Result<String, serde_json::Error> {
    let document = openapi::render(&calls().into_openapi(), &Limits::default())?;
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
