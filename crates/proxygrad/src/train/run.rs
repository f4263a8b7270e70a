//! A training run: epochs of steps, evaluation, checkpoints, and what the trained network is stored as.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::checkpoint::{self, Progress};
use super::data::{Dataset, Splits, shuffled};
use super::error::TrainError;
use super::evaluation::{Evaluation, Normalization, evaluate};
use super::loss::{Loss, cross_entropy};
use super::metrics::Epoch;
use super::optimizer::Optimizer;
use super::recipe::Recipe;
use crate::Invalid;
use crate::engine::{Forward, Gradients, Mode, Surrogate, TrainingEngine, TrainingPlan};
use crate::file;
use crate::network::trainable::{Parameters, TrainableArchitecture, TrainableNetwork};
use crate::network::{Activation, ChannelOrder, Network, Preprocessing};

/// Random streams: of the subset, and, from here on, of the order of the images of each epoch.
const SUBSET_STREAM: u64 = 1 << 40;
const ORDER_STREAM: u64 = 1 << 41;

/// File names in the folder of a run.
const LAST: &str = "last.safetensors";
const BEST: &str = "best.safetensors";

/// A run between two epochs.
pub struct Training {
    recipe: Recipe,
    splits: Splits,
    network: TrainableNetwork,
    plan: Box<dyn TrainingPlan>,
    parameters: Parameters,
    optimizer: Optimizer,
    epochs: Vec<Epoch>,
    normalization: Normalization,
    data_digest: String,
    folder: Option<PathBuf>,
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
}

impl Training {
    /// Prepares a run with weights drawn by the recipe.
    ///
    /// # Errors
    /// When a setting is out of range, the images are too small or too few, or the engine fails.
    pub fn new(recipe: Recipe, splits: Splits, engine: &dyn TrainingEngine) -> Result<Self, TrainError> {
        recipe.check()?;
        let splits = match recipe.limit {
            Some(limit) if limit > splits.train.len() => {
                let expected = format!("at most the number of training images, {}", splits.train.len());
                return Err(Invalid::new("limit", limit, expected).into());
            }
            Some(limit) => {
                let order = shuffled(splits.train.len(), recipe.seed, SUBSET_STREAM);
                Splits { train: splits.train.select(&order[..limit]), ..splits }
            }
            None => splits,
        };
        if recipe.batch > splits.train.len() {
            let expected = format!("at most the number of training images, {}", splits.train.len());
            return Err(Invalid::new("batch", recipe.batch, expected).into());
        }
        let activation = match recipe.leaky {
            0.0 => Activation::Relu,
            slope => Activation::LeakyRelu { slope },
        };
        let architecture = TrainableArchitecture {
            width: recipe.width.or(recipe.architecture.width),
            stem_stride: recipe.stem_stride.or(recipe.architecture.stem_stride),
            activation,
            ..recipe.architecture.clone()
        };
        let network = architecture.build(splits.train.size(), splits.train.classes().len())?;
        let parameters = network.initialize(recipe.initialization, recipe.seed);
        let optimizer = Optimizer::new(recipe.optimizer.clone(), network.tensors());
        let plan = engine.training_plan(&network)?;
        let normalization = Normalization::of(&splits.train);
        let data_digest = digest(&splits);
        let (epochs, folder) = (Vec::new(), None);
        Ok(Self { recipe, splits, network, plan, parameters, optimizer, epochs, normalization, data_digest, folder })
    }

    /// Keeps checkpoints in a folder, and resumes from the last one there.
    ///
    /// # Errors
    /// When the folder cannot be used, or its checkpoint belongs to another recipe or other data.
    pub fn in_folder(mut self, folder: &Path) -> Result<Self, TrainError> {
        let failed = |path: &Path, why: String| TrainError::Checkpoint { path: path.into(), why };
        std::fs::create_dir_all(folder).map_err(|why| failed(folder, why.to_string()))?;
        let path = folder.join(LAST);
        if let Some(state) = checkpoint::load(&path, &self.network, self.recipe.optimizer.kind)? {
            if state.progress.recipe != self.recipe {
                return Err(failed(&path, "belongs to a run with other settings; choose another folder".into()));
            }
            if state.progress.data != self.data_digest {
                return Err(failed(&path, "belongs to a run on other data; choose another folder".into()));
            }
            self.parameters = state.parameters;
            self.optimizer.moments = state.moments;
            self.optimizer.steps = state.progress.steps;
            self.epochs = state.progress.epochs;
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

    /// Whether all epochs are done, or early stopping ended the run.
    pub fn is_finished(&self) -> bool {
        let since_best = self.best().map_or(0, |best| self.epochs.len() - best.epoch);
        self.epochs.len() >= self.recipe.epochs || self.recipe.patience.is_some_and(|patience| since_best >= patience)
    }

    fn steps_per_epoch(&self) -> usize {
        self.splits.train.len() / self.recipe.batch
    }

    /// Normalization of the network's input.
    pub fn preprocessing(&self) -> Preprocessing {
        let Normalization { mean, std } = self.normalization.clone();
        let channels = if self.splits.train.size()[0] == 1 { ChannelOrder::Grey } else { ChannelOrder::Rgb };
        Preprocessing { channels, range: 1.0, mean, std }
    }

    /// The trained network with frozen weights.
    ///
    /// # Errors
    /// When it is not a valid network.
    pub fn freeze(&self) -> Result<Network, TrainError> {
        Ok(self.network.freeze(&self.parameters)?)
    }

    /// Trains one epoch, measures it and, in a folder, writes a checkpoint. `on_step` is called after every step and
    /// cancels the run by returning true. Returns `None` if the run is finished or canceled.
    ///
    /// # Errors
    /// When the loss is not finite, or the engine or a checkpoint fails.
    pub fn epoch(&mut self, on_step: &mut dyn FnMut(Step) -> bool) -> Result<Option<&Epoch>, TrainError> {
        if self.is_finished() {
            return Ok(None);
        }
        let epoch = self.epochs.len() + 1;
        let order = shuffled(self.splits.train.len(), self.recipe.seed, ORDER_STREAM + epoch as u64);
        let steps = self.steps_per_epoch();
        let total = (steps * self.recipe.epochs) as u64;
        let (mut loss_sum, mut correct, mut rate) = (0.0, 0, 0.0);
        for (step, indices) in order.chunks_exact(self.recipe.batch).enumerate() {
            let (loss, step_rate) = self.scheduled_step(epoch, indices, total)?;
            rate = step_rate;
            if !(loss.mean.is_finite() && self.parameters.are_finite()) {
                return Err(TrainError::Diverged { epoch, step: step + 1 });
            }
            loss_sum += loss.mean;
            correct += loss.correct;
            let seen = (step + 1) as f64;
            let accuracy = correct as f64 / (seen * self.recipe.batch as f64);
            if on_step(Step { epoch, step: step + 1, steps, loss: loss_sum / seen, accuracy }) {
                return Ok(None);
            }
        }
        let Evaluation { loss, accuracy, layers } = self.evaluate(|splits| &splits.test)?;
        self.epochs.push(Epoch {
            epoch,
            train_loss: loss_sum / steps as f64,
            train_accuracy: correct as f64 / (steps * self.recipe.batch) as f64,
            test_loss: loss,
            test_accuracy: accuracy,
            learning_rate: rate,
            dead: Epoch::dead_share(&layers),
            layers,
        });
        self.save()?;
        Ok(self.epochs.last())
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
            self.normalization.append(&image, &mut images);
        }
        images
    }

    /// Share of the training images, without augmentation, that the network classifies correctly at inference. That of
    /// an [`Epoch`] is measured before each update, and with the statistics of the batch.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn train_accuracy(&mut self) -> Result<f64, TrainError> {
        Ok(self.evaluate(|splits| &splits.train)?.accuracy)
    }

    fn evaluate(&mut self, part: impl Fn(&Splits) -> &Dataset) -> Result<Evaluation, TrainError> {
        let data = part(&self.splits);
        evaluate(&self.network, &mut *self.plan, &mut self.parameters, &self.normalization, data)
    }

    /// Writes the checkpoint of the last epoch, and that of the best one if it is the same.
    fn save(&self) -> Result<(), TrainError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let progress = Progress {
            recipe: self.recipe.clone(),
            data: self.data_digest.clone(),
            steps: self.optimizer.steps,
            epochs: self.epochs.clone(),
        };
        let is_best = self.best().map(|best| best.epoch) == Some(self.epochs.len());
        let write = |name: &str, contents: &[u8]| {
            let path = folder.join(name);
            let failed = |why: String| TrainError::Checkpoint { path: path.clone(), why };
            file::replace(&path, contents).map_err(|why| failed(why.to_string()))
        };
        let state = checkpoint::serialize(&self.network, &self.parameters, &self.optimizer, &progress)
            .map_err(|why| TrainError::Checkpoint { path: folder.join(LAST), why })?;
        // The best first: a crash between the two repeats the epoch and writes it again.
        for name in [BEST, LAST].into_iter().skip(usize::from(!is_best)) {
            write(name, &state)?;
        }
        write("epochs.csv", super::csv(&self.epochs).as_bytes())?;
        let lines = self.epochs.iter().filter_map(|epoch| serde_json::to_string(epoch).ok());
        write("epochs.jsonl", lines.map(|line| line + "\n").collect::<String>().as_bytes())
    }
}

/// SHA-256 of the images and labels.
fn digest(splits: &Splits) -> String {
    let mut hash = Sha256::new();
    for part in [&splits.train, &splits.test] {
        hash.update(format!("{:?} {} {:?}", part.size(), part.len(), part.classes()));
        (0..part.len()).for_each(|index| {
            hash.update(part.label(index).to_le_bytes());
            hash.update(part.image(index));
        });
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod parity;
