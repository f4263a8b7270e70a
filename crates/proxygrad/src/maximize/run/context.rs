//! Run context: the prepared model, tasks, settings and callback that every part of a run shares.

use crate::engine::Engine;
use crate::maximize::callback::Callback;
use crate::maximize::error::MaximizeError;
use crate::maximize::model_runner::ModelRunner;
use crate::maximize::request::Settings;
use crate::maximize::task::Task;
use crate::network::Model;

/// A run of one batch of tasks.
pub(super) struct Run<'a> {
    /// For images of the stimuli's size.
    pub(super) model_runner: ModelRunner<'a>,
    /// For the smaller images of the coarse stage; `None` without one, or if they are not smaller.
    pub(super) coarse_runner: Option<ModelRunner<'a>>,
    pub(super) tasks: &'a [Task],
    pub(super) settings: &'a Settings,
    pub(super) callback: &'a mut dyn Callback,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        engine: &dyn Engine,
        model: &'a Model,
        tasks: &'a [Task],
        settings: &'a Settings,
        callback: &'a mut dyn Callback,
    ) -> Result<Self, MaximizeError> {
        let runner = |size| ModelRunner::new(engine, model, tasks, settings, size);
        let model_runner = runner(settings.size)?;
        let smaller = settings.coarse.as_ref().filter(|coarse| coarse.size != settings.size);
        let coarse_runner = smaller.map(|coarse| runner(coarse.size)).transpose()?;
        Ok(Self { model_runner, coarse_runner, tasks, settings, callback })
    }

    /// Number of passes made before the first step.
    pub(super) fn preparation_passes(&self) -> u32 {
        let coarse = self.coarse_runner.as_ref().map_or(0, ModelRunner::preparation_passes);
        self.model_runner.preparation_passes() + coarse
    }
}
