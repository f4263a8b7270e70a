//! A training run: epochs of steps, evaluation, checkpoints, and what the trained network is stored as.

use std::path::{Path, PathBuf};

use super::checkpoint::{self, Begun, Progress};
use super::data::{Splits, shuffled};
use super::error::TrainError;
use super::evaluation::{Evaluation, Measuring, append, evaluate};
use super::loss::{Loss, cross_entropy};
use super::metrics::Epoch;
use super::optimizer::Optimizer;
use super::recipe::Recipe;
use super::starting::Starting;
use crate::Invalid;
use crate::engine::{Forward, Gradients, Mode, Surrogate, TrainingEngine, TrainingPlan};
use crate::file;
use crate::network::trainable::{Parameters, TrainableNetwork};
use crate::network::{Model, Network, Preprocessing};

/// First random stream of the order of the images, one for each epoch.
const ORDER_STREAM: u64 = 1 << 41;

/// File names in the folder of a run.
const LAST: &str = "last.safetensors";
const BEST: &str = "best.safetensors";
/// Name of the file with the measurements of all epochs, in the folder of a run.
pub const METRICS_FILE: &str = "epochs.csv";

/// A run between two steps.
pub struct Training {
    recipe: Recipe,
    splits: Splits,
    network: TrainableNetwork,
    plan: Box<dyn TrainingPlan>,
    parameters: Parameters,
    /// Those after the best epoch; before the first epoch has ended, the ones that the run starts from.
    best_parameters: Parameters,
    optimizer: Optimizer,
    epochs: Vec<Epoch>,
    begun: Begun,
    /// Measurements of the epoch that was begun, once all its steps are done.
    measuring: Measuring,
    /// Whether the last epoch has yet to be written to the folder.
    unsaved: bool,
    preprocessing: Preprocessing,
    data_digest: String,
    folder: Option<PathBuf>,
}

/// Limits of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingLimits {
    /// Of its estimated memory, in bytes.
    pub memory: u64,
    /// Of the steps of all epochs.
    pub steps: u64,
}

impl TrainingLimits {
    /// No limits.
    pub const NONE: Self = Self { memory: u64::MAX, steps: u64::MAX };
}

/// A step of an epoch, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Step of the epoch, counted from 1.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Share of correctly classified images of the epoch so far.
    pub accuracy: f64,
    /// Test images that the epoch was measured on so far; 0 before its last step.
    pub tested: usize,
}

impl Training {
    /// Prepares a run with weights drawn by the recipe, without limits.
    ///
    /// # Errors
    /// As [`Training::within`].
    pub fn new(recipe: Recipe, splits: Splits, engine: &dyn TrainingEngine) -> Result<Self, TrainError> {
        Self::within(recipe, splits, None, engine, &TrainingLimits::NONE)
    }

    /// Prepares a run that starts from the weights of a model, which the recipe names, if there is one, and otherwise
    /// from weights drawn by the recipe. The model's last layer is replaced unless its classes are those of the data.
    ///
    /// # Errors
    /// When a setting is out of range, the images do not fit the network or are too few, the run exceeds a limit, or the
    /// engine fails.
    pub fn within(
        recipe: Recipe,
        splits: Splits,
        model: Option<&Model>,
        engine: &dyn TrainingEngine,
        limits: &TrainingLimits,
    ) -> Result<Self, TrainError> {
        recipe.check()?;
        let splits = subset(&recipe, splits)?;
        let steps = (splits.train.len() / recipe.batch) as u64 * recipe.epochs as u64;
        too_large(steps, "steps", limits.steps, "reduce epochs or limit, or raise batch")?;
        let starting = Starting::new(&recipe, &splits.train, model)?;
        let memory = memory_bytes(&recipe, &splits, &starting.network);
        too_large(memory, "bytes of memory", limits.memory, "reduce batch, width or the size of the images")?;
        let parameters = starting.parameters(&recipe);
        let Starting { network, preprocessing, .. } = starting;
        let optimizer = Optimizer::new(recipe.optimizer.clone(), network.tensors());
        let plan = engine.training_plan(&network)?;
        let data_digest = splits.digest();
        Ok(Self {
            recipe,
            splits,
            network,
            plan,
            best_parameters: parameters.clone(),
            parameters,
            optimizer,
            epochs: Vec::new(),
            begun: Begun::default(),
            measuring: Measuring::default(),
            unsaved: false,
            preprocessing,
            data_digest,
            folder: None,
        })
    }

    /// Keeps checkpoints in a folder, and resumes from the last one there.
    ///
    /// # Errors
    /// When the folder cannot be used, or its checkpoint belongs to another recipe or other data.
    pub fn in_folder(mut self, folder: &Path) -> Result<Self, TrainError> {
        std::fs::create_dir_all(folder).map_err(|source| TrainError::Write { path: folder.into(), source })?;
        let path = folder.join(LAST);
        if let Some(state) = checkpoint::load(&path, &self.network, self.recipe.optimizer.kind)? {
            if state.progress.recipe != self.recipe {
                return Err(TrainError::OtherRun { path, what: "with other settings" });
            }
            if state.progress.data != self.data_digest {
                return Err(TrainError::OtherRun { path, what: "on other data" });
            }
            self.parameters = state.parameters;
            self.optimizer.moments = state.moments;
            self.optimizer.steps = state.progress.steps;
            self.epochs = state.progress.epochs;
            self.begun = state.progress.begun;
            if !self.epochs.is_empty() {
                self.best_parameters = match self.is_at_best() && self.begun.steps == 0 {
                    true => self.parameters.clone(),
                    // After a crash between the two checkpoints of an epoch it is ahead; that epoch is repeated.
                    false => self.saved_best(&folder.join(BEST))?,
                };
            }
        }
        self.folder = Some(folder.into());
        Ok(self)
    }

    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The network that is trained.
    pub fn network(&self) -> &TrainableNetwork {
        &self.network
    }

    /// Name of the layer of logits.
    pub fn output(&self) -> &str {
        self.network.nodes().last().map_or("", |node| node.name.as_str())
    }

    /// The weights after the last epoch.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Names of the classes.
    pub fn classes(&self) -> &[String] {
        self.splits.train.classes()
    }

    /// Measurements of the epochs so far.
    pub fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    /// The epoch with the best test accuracy so far, the first of several.
    pub fn best(&self) -> Option<&Epoch> {
        let better =
            |best: Option<&'_ Epoch>, epoch: &Epoch| best.is_none_or(|best| epoch.test_accuracy > best.test_accuracy);
        self.epochs.iter().fold(None, |best, epoch| if better(best, epoch) { Some(epoch) } else { best })
    }

    /// Whether the last epoch is the best.
    fn is_at_best(&self) -> bool {
        self.best().is_some_and(|best| best.epoch == self.epochs.len())
    }

    /// Whether all epochs are done, or early stopping ended the run.
    pub fn is_finished(&self) -> bool {
        let since_best = self.best().map_or(0, |best| self.epochs.len() - best.epoch);
        self.epochs.len() >= self.recipe.epochs || self.recipe.patience.is_some_and(|patience| since_best >= patience)
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.splits.train.len() / self.recipe.batch
    }

    /// Normalization of the network's input: that of the model that the run started from, or measured on the training
    /// images.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// The network with the weights after the last epoch, frozen.
    ///
    /// # Errors
    /// When it is not a valid network.
    pub fn freeze(&self) -> Result<Network, TrainError> {
        Ok(self.network.freeze(&self.parameters)?)
    }

    /// The network with the weights after the [best](Self::best) epoch, frozen.
    ///
    /// # Errors
    /// When it is not a valid network.
    pub fn freeze_best(&self) -> Result<Network, TrainError> {
        Ok(self.network.freeze(&self.best_parameters)?)
    }

    /// Trains one epoch, measures it and, in a folder, writes a checkpoint. `on_step` is called after every step and
    /// every batch of test images, and pauses the run by returning true: the next call goes on there. Returns `None` if
    /// the run is finished or paused.
    ///
    /// # Errors
    /// When the loss is not finite, or the engine or a checkpoint fails. After [`TrainError::Write`] the next call
    /// writes the same epoch again.
    pub fn epoch(&mut self, on_step: &mut dyn FnMut(Step) -> bool) -> Result<Option<&Epoch>, TrainError> {
        if !self.unsaved {
            if self.is_finished() || self.train(on_step)? || self.evaluate(on_step)? {
                return Ok(None);
            }
            self.unsaved = true;
        }
        self.save_epoch()?;
        self.unsaved = false;
        Ok(self.epochs.last())
    }

    /// The steps of an epoch. Returns whether the run was paused.
    fn train(&mut self, on_step: &mut dyn FnMut(Step) -> bool) -> Result<bool, TrainError> {
        let epoch = self.epochs.len() + 1;
        let order = shuffled(self.splits.train.len(), self.recipe.seed, ORDER_STREAM + epoch as u64);
        let total = (self.steps_per_epoch() * self.recipe.epochs) as u64;
        for (step, indices) in order.chunks_exact(self.recipe.batch).enumerate().skip(self.begun.steps) {
            let (loss, rate) = self.scheduled_step(epoch, indices, total)?;
            if !(loss.mean.is_finite() && self.parameters.are_finite()) {
                return Err(TrainError::Diverged { epoch, step: step + 1 });
            }
            self.begun = Begun {
                steps: step + 1,
                loss_sum: self.begun.loss_sum + loss.mean,
                correct: self.begun.correct + loss.correct,
                learning_rate: rate,
            };
            if on_step(self.position()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where the epoch that was begun is.
    fn position(&self) -> Step {
        let Begun { steps: step, loss_sum, correct, .. } = self.begun;
        let seen = step.max(1) as f64;
        Step {
            epoch: self.epochs.len() + 1,
            step,
            steps: self.steps_per_epoch(),
            loss: loss_sum / seen,
            accuracy: correct as f64 / (seen * self.recipe.batch as f64),
            tested: self.measuring.images,
        }
    }

    /// One update of the weights at the next step, of `total` in all; returns the loss before it and the learning rate.
    fn scheduled_step(&mut self, epoch: usize, indices: &[usize], total: u64) -> Result<(Loss, f64), TrainError> {
        let done = self.optimizer.steps;
        let rate = self.recipe.learning_rate * self.recipe.schedule.factor(done, total, self.recipe.warm_up);
        let (loss, gradients) = self.gradients(epoch, indices, self.recipe.surrogate.at(done, total))?;
        self.optimizer.update(&mut self.parameters, &gradients, self.network.tensors(), rate as f32);
        Ok((loss, rate))
    }

    /// Loss and gradients of a batch; running statistics are updated.
    fn gradients(
        &mut self,
        epoch: usize,
        indices: &[usize],
        surrogate: Surrogate,
    ) -> Result<(Loss, Gradients), TrainError> {
        let images = self.batch(indices, epoch);
        let labels: Vec<u32> = indices.iter().map(|&index| self.splits.train.label(index)).collect();
        let update = Mode::Training { update: true };
        let logits = self.plan.forward(&images, &mut self.parameters, update, Forward::Original)?;
        let loss = cross_entropy(&logits, &labels, self.recipe.label_smoothing);
        if let proxy @ Forward::Proxy { .. } = surrogate.forward() {
            // The proxy's own pass; the error at the logits remains that of the original.
            self.plan.forward(&images, &mut self.parameters, Mode::Training { update: false }, proxy)?;
        }
        let gradients = self.plan.backward(&loss.gradient, surrogate)?;
        Ok((loss, gradients))
    }

    /// Normalized images `[N,C,H,W]` of an epoch, augmented.
    fn batch(&self, indices: &[usize], epoch: usize) -> Vec<f32> {
        let data = &self.splits.train;
        let mut images = Vec::with_capacity(indices.len() * data.size().iter().product::<usize>());
        for &index in indices {
            let stream = (epoch as u64) << 32 | index as u64;
            let image = self.recipe.augmentation.apply(data.image(index), data.size(), self.recipe.seed, stream);
            append(&self.preprocessing, &image, &mut images);
        }
        images
    }

    /// Share of the training images, without augmentation, that the network classifies correctly at inference. That of
    /// an [`Epoch`] is measured before each update, and with the statistics of the batch.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn train_accuracy(&mut self) -> Result<f64, TrainError> {
        let Self { network, plan, parameters, preprocessing, splits, .. } = self;
        let (mut measuring, never) = (Measuring::default(), &mut |_| false);
        let measured = evaluate(network, &mut **plan, parameters, preprocessing, &splits.train, &mut measuring, never)?;
        Ok(measured.map_or(0.0, |measured| measured.accuracy))
    }

    /// Measures the network on the test images, and ends the epoch. Returns whether the run was paused.
    fn evaluate(&mut self, on_step: &mut dyn FnMut(Step) -> bool) -> Result<bool, TrainError> {
        let position = self.position();
        let mut on_batch = |tested| on_step(Step { tested, ..position });
        let Self { network, plan, parameters, preprocessing, splits, measuring, .. } = self;
        let measured =
            evaluate(network, &mut **plan, parameters, preprocessing, &splits.test, measuring, &mut on_batch)?;
        let Some(Evaluation { loss, accuracy, layers }) = measured else { return Ok(true) };
        self.measuring = Measuring::default();
        let begun = std::mem::take(&mut self.begun);
        self.epochs.push(Epoch {
            epoch: position.epoch,
            train_loss: begun.loss_sum / begun.steps as f64,
            train_accuracy: begun.correct as f64 / (begun.steps * self.recipe.batch) as f64,
            test_loss: loss,
            test_accuracy: accuracy,
            learning_rate: begun.learning_rate,
            dead: Epoch::dead_share(&layers),
            layers,
        });
        if self.is_at_best() {
            self.best_parameters = self.parameters.clone();
        }
        Ok(false)
    }

    /// Writes a checkpoint of the steps so far, so that a resumed run does not repeat them. Does nothing without a
    /// folder, or between two epochs, whose checkpoints are written with them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn checkpoint(&self) -> Result<(), TrainError> {
        match &self.folder {
            Some(folder) if self.begun.steps > 0 => write(folder, LAST, &self.state()?),
            _ => Ok(()),
        }
    }

    /// The weights in the checkpoint of the best epoch.
    fn saved_best(&self, path: &Path) -> Result<Parameters, TrainError> {
        let state = checkpoint::load(path, &self.network, self.recipe.optimizer.kind)?;
        let missing = || "is missing; it holds the weights of the best epoch".to_owned();
        Ok(state.ok_or_else(|| TrainError::Checkpoint { path: path.into(), why: missing() })?.parameters)
    }

    /// The content of a checkpoint.
    fn state(&self) -> Result<Vec<u8>, TrainError> {
        let progress = Progress {
            recipe: self.recipe.clone(),
            data: self.data_digest.clone(),
            steps: self.optimizer.steps,
            epochs: self.epochs.clone(),
            begun: self.begun,
        };
        checkpoint::serialize(&self.network, &self.parameters, &self.optimizer, &progress)
            .map_err(|why| TrainError::Checkpoint { path: LAST.into(), why })
    }

    /// Writes the checkpoint of the last epoch, and that of the best one if it is the same.
    fn save_epoch(&self) -> Result<(), TrainError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let state = self.state()?;
        // The best first: a crash between the two repeats the epoch and writes it again.
        for name in [BEST, LAST].into_iter().skip(usize::from(!self.is_at_best())) {
            write(folder, name, &state)?;
        }
        write(folder, "report.html", super::report(&self.recipe, &self.epochs).as_bytes())?;
        write(folder, METRICS_FILE, super::csv(&self.epochs).as_bytes())?;
        let lines = self.epochs.iter().filter_map(|epoch| serde_json::to_string(epoch).ok());
        write(folder, "epochs.jsonl", lines.map(|line| line + "\n").collect::<String>().as_bytes())
    }
}

/// Writes a file of a run as a whole.
pub(super) fn write(folder: &Path, name: &str, contents: &[u8]) -> Result<(), TrainError> {
    let path = folder.join(name);
    file::replace(&path, contents).map_err(|source| TrainError::Write { path, source })
}

/// The training images that the seed draws, if the recipe limits their number.
pub(super) fn subset(recipe: &Recipe, splits: Splits) -> Result<Splits, Invalid> {
    let available = splits.train.len();
    let expected = format!("at most the number of training images, {available}");
    let splits = match recipe.limit {
        Some(limit) if limit > available => return Err(Invalid::new("limit", limit, expected)),
        Some(limit) => Splits { train: splits.train.sample(limit, recipe.seed), ..splits },
        None => splits,
    };
    match recipe.batch > splits.train.len() {
        true => Err(Invalid::new("batch", recipe.batch, expected)),
        false => Ok(splits),
    }
}

fn too_large(needed: u64, unit: &'static str, limit: u64, remedy: &'static str) -> Result<(), TrainError> {
    if needed > limit { Err(TrainError::TooLarge { needed, unit, limit, remedy }) } else { Ok(()) }
}

/// Estimated memory of a run in bytes: the images, the weights with their gradients and moments, and the maps of a batch
/// with theirs.
fn memory_bytes(recipe: &Recipe, splits: &Splits, network: &TrainableNetwork) -> u64 {
    let images =
        [&splits.train, &splits.test].map(|part| part.len() as u64 * part.size().iter().product::<usize>() as u64);
    let weights: u64 = network.tensors().iter().map(|spec| spec.len() as u64).sum();
    let maps: u64 = network.nodes().iter().map(|node| node.shape.elements() as u64).sum();
    // Weights, gradients and the best weights; checkpoints copy weights and moments.
    let copies = 5 + 2 * Optimizer::moment_names(recipe.optimizer.kind).len() as u64;
    images.iter().sum::<u64>()
        + weights.saturating_mul(4 * copies)
        + maps.saturating_mul(recipe.batch as u64).saturating_mul(3 * 4)
}

#[cfg(test)]
mod parity;
