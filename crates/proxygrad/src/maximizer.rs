//! The library in a few lines: a builder that leads from a model and an objective to a stimulus.

use std::sync::Arc;

use crate::Invalid;
use crate::engine::{Cpu, CpuSettings, Engine};
use crate::maximize::{
    Callback, DiagnosticsRequest, GateRequest, JudgesRequest, Limits, MaximizeError, NoCallback, Objective,
    OffsetCallback, Outcome, Preset, Request, maximize_judged,
};
use crate::network::Model;

/// Builder of a run: which units of a model to maximize, and how. What is not set has the value that the server uses.
///
/// # Examples
/// ```
/// use proxygrad::{Maximizer, Models};
///
/// # let data = tempfile::tempdir()?;
/// # let data_dir = data.path();
/// let model = Models::open(data_dir)?.load("fashion-resnet8")?;
/// let stimulus = Maximizer::new(&model).objective("logits:Bag").steps(16).run()?;
/// assert!(stimulus.findings.score > stimulus.findings.initial_score);
/// std::fs::write(data_dir.join("bag.png"), &stimulus.png)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing runs before `run` or `run_all`"]
pub struct Maximizer<'a> {
    model: &'a Model,
    engine: Option<&'a dyn Engine>,
    callback: Option<&'a mut dyn Callback>,
    objectives: Vec<Objective>,
    request: Request,
    judges: &'a [Arc<Model>],
    invalid: Option<Invalid>,
}

/// Why [`Maximizer`] found no stimulus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is wrong or does not fit the model.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The run failed.
    #[error(transparent)]
    Maximize(#[from] MaximizeError),
    /// The callback stopped the run.
    #[error("the run was stopped by its callback")]
    Stopped,
}

impl<'a> Maximizer<'a> {
    /// A run on `model` that still needs an objective.
    pub fn new(model: &'a Model) -> Self {
        let request = Request { model: model.id.clone(), ..Request::default() };
        Self { model, engine: None, callback: None, objectives: Vec::new(), request, judges: &[], invalid: None }
    }

    /// Adds an objective: a unit as text, such as `logits:banana` or `layer3:17@center`, or an [`Objective`]. One stimulus
    /// is made for each.
    pub fn objective<T>(mut self, objective: T) -> Self
    where
        T: TryInto<Objective>,
        T::Error: Into<Invalid>,
    {
        match objective.try_into() {
            Ok(objective) => self.objectives.push(objective),
            Err(error) => {
                let field = format!("objectives[{}]", self.objectives.len());
                self.invalid.get_or_insert_with(|| error.into().within(&field));
            }
        }
        self
    }

    /// Runs on this engine; by default, on a CPU engine that is opened for the run and uses all cores.
    pub fn engine(mut self, engine: &'a dyn Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Reports progress to `callback`, which can also stop the run.
    pub fn callback(mut self, callback: &'a mut dyn Callback) -> Self {
        self.callback = Some(callback);
        self
    }

    /// Settings to start from. Default: [`Preset::default`].
    pub fn preset(mut self, preset: Preset) -> Self {
        self.request.preset = Some(preset);
        self
    }

    /// Two to four different presets: every objective gets a stimulus under each, for example [`Preset::Readable`] and
    /// [`Preset::Maximum`]. Excludes [`Maximizer::preset`].
    pub fn presets(mut self, presets: impl IntoIterator<Item = Preset>) -> Self {
        self.request.presets = Some(presets.into_iter().collect());
        self
    }

    /// Backward rule of activations. Default: the preset's.
    pub fn gate(mut self, gate: impl Into<GateRequest>) -> Self {
        self.request.gate = Some(gate.into());
        self
    }

    /// Number of steps. Default: the preset's.
    pub fn steps(mut self, steps: u32) -> Self {
        self.request.steps = Some(steps);
        self
    }

    /// Height and width of the stimulus in pixels, for networks that accept several sizes. Default: the model's.
    pub fn size(mut self, height: usize, width: usize) -> Self {
        self.request.size = Some([height, width]);
        self
    }

    /// Seed of everything random. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.request.seed = Some(seed);
        self
    }

    /// Changes any other setting; objectives of the request are replaced by those of the builder.
    ///
    /// # Examples
    /// ```
    /// # use proxygrad::{Maximizer, Models};
    /// # let data = tempfile::tempdir()?;
    /// # let model = Models::open(data.path())?.load("fashion-resnet8")?;
    /// let maximizer = Maximizer::new(&model)
    ///     .objective("layer2/Relu_1:3")
    ///     .configure(|request| request.transforms = Some(vec![]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn configure(mut self, change: impl FnOnce(&mut Request)) -> Self {
        change(&mut self.request);
        self
    }

    /// Measures diagnostics of every stimulus, and shows it to these other models; see [`judge`](crate::judge).
    pub fn judges(mut self, judges: &'a [Arc<Model>]) -> Self {
        let ids = judges.iter().map(|judge| judge.id.clone()).collect();
        self.request.diagnostics = Some(DiagnosticsRequest::Judged(JudgesRequest { judges: ids }));
        self.judges = judges;
        self
    }

    /// Finds the stimulus of the only objective. Blocks until done.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is not exactly one objective, or a setting is wrong; [`Error::Maximize`] when the
    /// network cannot run; [`Error::Stopped`] when the callback stopped it.
    pub fn run(self) -> Result<Outcome, Error> {
        let count = self.objectives.len();
        let mut outcomes = self.run_all()?;
        match (outcomes.pop(), outcomes.is_empty()) {
            (Some(outcome), true) => outcome.ok_or(Error::Stopped),
            _ => Err(Invalid::new("objectives", count, "one objective, or `run_all` for several").into()),
        }
    }

    /// Finds a stimulus for every objective, in their order, all in one batch; `None` for those that the callback stopped.
    /// With diversity, every objective has as many stimuli in a row as there are copies. With several presets, the
    /// stimuli of each follow those of the one before, and the callback counts on. Blocks until done.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a setting is wrong or there is no objective; [`Error::Maximize`] when the network cannot run.
    pub fn run_all(self) -> Result<Vec<Option<Outcome>>, Error> {
        if let Some(invalid) = self.invalid {
            return Err(invalid.into());
        }
        let objectives = Some(self.objectives).filter(|objectives| !objectives.is_empty());
        let request = Request { objective: None, objectives, ..self.request };
        let resolved = request.resolve(self.model, &Limits::default())?.judged_by(self.model, self.judges)?;
        let opened;
        let engine = match self.engine {
            Some(engine) => engine,
            None => {
                opened = Cpu::new(&CpuSettings::default()).map_err(MaximizeError::from)?;
                &opened
            }
        };
        let mut ignored = NoCallback;
        let callback = self.callback.unwrap_or(&mut ignored);
        let (tasks, mut outcomes) = (resolved.tasks(), Vec::with_capacity(resolved.stimuli()));
        for settings in resolved.all_settings() {
            let mut callback = OffsetCallback { first: outcomes.len(), callback: &mut *callback };
            let found = maximize_judged(engine, self.model, self.judges, &tasks, settings, u64::MAX, &mut callback)?;
            outcomes.extend(found);
        }
        Ok(outcomes)
    }
}
