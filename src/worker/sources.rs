//! Sources of engines and models for a pool.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use proxygrad::engine::{CpuSettings, Engine, EngineError, open};
use proxygrad::network::Model;

/// Opens the engine of a device, given its name.
pub type OpenEngine = Arc<dyn Fn(&str) -> Result<Box<dyn Engine>, EngineError> + Send + Sync>;

/// Loads the model with this id; may block while it is downloaded.
pub type LoadModel = Arc<dyn Fn(&str) -> Result<Arc<Model>, Box<dyn Error + Send + Sync>> + Send + Sync>;

/// How a pool opens engines and loads models.
#[derive(Clone)]
pub struct Sources {
    /// Called on the device thread, at the start and after an engine failed.
    pub engine: OpenEngine,
    /// Called on a separate thread before each batch; expected to cache models.
    pub model: LoadModel,
}

impl Sources {
    /// The engines of this crate, and models from `load`.
    pub fn new<E>(cpu: CpuSettings, load: impl Fn(&str) -> Result<Arc<Model>, E> + Send + Sync + 'static) -> Self
    where
        E: Error + Send + Sync + 'static,
    {
        Self { engine: Arc::new(move |name| open(name, &cpu)), model: Arc::new(move |id| load(id).map_err(Into::into)) }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}
