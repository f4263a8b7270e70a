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
    pub(super) model_runner: ModelRunner<'a>,
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
        let model_runner = ModelRunner::new(engine, model, tasks, settings)?;
        Ok(Self { model_runner, tasks, settings, callback })
    }
}
