//! Sources of engines, models and datasets for a pool.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use proxygrad::engine::{CpuSettings, Engine, EngineError, open};
use proxygrad::network::Model;
use proxygrad::network::catalog::{AddOptions, Models};
use proxygrad::train::data::DatasetRoot;

/// Opens the engine of a device, given its name.
pub type OpenEngine = Arc<dyn Fn(&str) -> Result<Box<dyn Engine>, EngineError> + Send + Sync>;

/// Loads the model with this id; may block while it is downloaded.
pub type LoadModel = Arc<dyn Fn(&str) -> Result<Arc<Model>, Box<dyn Error + Send + Sync>> + Send + Sync>;

/// Adds the network in a file to the models.
pub type AddModel = Arc<dyn Fn(&Path, AddOptions) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync>;

/// How a pool opens engines, and loads and adds models.
#[derive(Clone)]
pub struct Sources {
    /// Called on the device thread, at the start and after an engine failed.
    pub engine: OpenEngine,
    /// Called on a separate thread before each batch; expected to cache models.
    pub model: LoadModel,
    /// What trainings need; without it, they fail.
    pub trainings: Option<TrainingSources>,
}

/// What trainings need.
#[derive(Clone)]
pub struct TrainingSources {
    /// Their datasets.
    pub datasets: DatasetRoot,
    /// Called on a blocking thread with the network of a finished training.
    pub add: AddModel,
}

impl Sources {
    /// The engines of this crate, and models from `load`; without trainings.
    pub fn new<E>(cpu: CpuSettings, load: impl Fn(&str) -> Result<Arc<Model>, E> + Send + Sync + 'static) -> Self
    where
        E: Error + Send + Sync + 'static,
    {
        Self {
            engine: Arc::new(move |name| open(name, &cpu)),
            model: Arc::new(move |id| load(id).map_err(Into::into)),
            trainings: None,
        }
    }

    /// The same with trainings on these datasets, whose networks are added to `models`.
    #[must_use]
    pub fn with_trainings(self, datasets: Option<DatasetRoot>, models: &Arc<Models>) -> Self {
        let models = Arc::clone(models);
        let add: AddModel = Arc::new(move |file, options| models.add(file, options).map(drop).map_err(Into::into));
        Self { trainings: datasets.map(|datasets| TrainingSources { datasets, add }), ..self }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}
