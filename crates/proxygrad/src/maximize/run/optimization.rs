//! Optimization of a batch: the images of all stimuli that follow one strategy, updated step by step.
//!
//! The images are one tensor, which stays on the engine's device together with everything that a step computes. Only
//! scores are read back, in blocks.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::best::BestImages;
use super::context::Run;
use super::image_state::ImageState;
use super::stage::Stage;
use super::stimulus_state::StimulusState;
use crate::engine::{Forward, Gate};
use crate::maximize::enlarge::Enlargement;
use crate::maximize::error::MaximizeError;
use crate::maximize::gate_schedule::{GateKind, GateSchedule};
use crate::maximize::image8::Image8;
use crate::maximize::model_runner::ModelRunner;
use crate::maximize::objective::{BoundObjective, Scoring};
use crate::maximize::outcome::ArmFindings;
use crate::maximize::transform::Views;

/// Number of batch scores that a GPU computes before they are read: reading waits until the device is idle.
const SCORES_PER_READ: usize = 16;

/// How stimuli are optimized, as far as candidates of a search differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strategy<'a> {
    pub(super) gate: &'a GateSchedule,
    /// Index of the random start; 0 is the start of a run without a search.
    pub(super) restart: u32,
    /// Length of the schedules of gate and optimizer, in steps.
    pub(super) steps: u32,
}

impl Strategy<'_> {
    pub(super) fn findings(&self, steps: u32, passes: u32, score: Option<f32>, won: bool) -> ArmFindings {
        ArmFindings { gate: self.gate.clone(), restart: self.restart, steps, passes, score, won }
    }
}

/// The stimuli of a batch that follow one strategy.
pub(super) struct Optimization<'a> {
    pub(super) strategy: Strategy<'a>,
    /// Steps made so far: the position in the strategy's schedules.
    pub(super) step: u32,
    /// One per image of the batch.
    pub(super) stimuli: Vec<StimulusState>,
    /// The current stage, and the one after the coarse stage.
    pub(super) stage: Stage<'a>,
    pub(super) next: Option<Stage<'a>>,
    /// Of images of the stimuli's size.
    scoring: Scoring,
    /// While images are smaller than the stimuli.
    smaller: Option<Smaller>,
    pub(super) images: ImageState,
    pub(super) best: BestImages,
    /// Scores `[N]` that were not read yet, by step.
    unread_scores: Vec<(u32, Tensor)>,
}

/// Images of the coarse stage that are smaller than the stimuli.
struct Smaller {
    /// To the size of the stimuli.
    enlargement: Enlargement,
    /// Of the smaller images.
    scoring: Scoring,
}

impl<'a> Optimization<'a> {
    /// One stimulus per task of the run, each at its own start. At least one task.
    pub(super) fn new(run: &mut Run<'a>, strategy: Strategy<'a>) -> Result<Self, MaximizeError> {
        let Run { model_runner, coarse_runner, tasks, settings, .. } = run;
        let objectives = model_runner.bind_objectives(tasks.iter())?;
        let stimulus =
            |(i, (task, (objective, passes)))| StimulusState::new(i, task, strategy.restart, objective, passes);
        let mut stimuli: Vec<StimulusState> = tasks.iter().zip(objectives).enumerate().map(stimulus).collect();
        let (stage, next) = Stage::of(settings, strategy.steps);
        let coarse_runner = coarse_runner.as_ref().filter(|_| stage.size != settings.size);
        let decoder = coarse_runner.unwrap_or(model_runner).decoder(settings)?;
        let starts = stimuli
            .iter_mut()
            .map(|stimulus| decoder.draw(&settings.start, &tasks[stimulus.task].reference_images, &mut stimulus.rng));
        let starts = starts.collect::<Result<Vec<_>, _>>()?;
        let placement = &model_runner.placement;
        let images = ImageState::new(decoder, &starts, settings, &stage, placement.arithmetic)?;
        let smaller = |runner: &ModelRunner<'_>| {
            let enlargement = Enlargement::new(stage.size, settings.size, placement)?;
            Ok::<_, candle_core::Error>(Smaller { enlargement, scoring: scoring(runner, &stimuli)? })
        };
        let smaller = coarse_runner.map(smaller).transpose()?;
        let pixels = at_full_size(smaller.as_ref(), &images)?;
        Ok(Self {
            strategy,
            step: 0,
            scoring: scoring(model_runner, &stimuli)?,
            stimuli,
            stage,
            next,
            smaller,
            best: BestImages::new(&pixels, placement.arithmetic)?,
            images,
            unread_scores: Vec::new(),
        })
    }

    /// Counts its steps on from those that each task has spent so far.
    pub(super) fn count_from(&mut self, spent: &[u32]) {
        for stimulus in &mut self.stimuli {
            stimulus.step_offset = spent[stimulus.task] - self.step;
        }
    }

    /// Makes `steps` steps, or fewer if all stimuli are cancelled.
    pub(super) fn advance(&mut self, run: &mut Run<'a>, steps: u32) -> Result<(), MaximizeError> {
        for _ in 0..steps {
            self.drop_cancelled(run)?;
            if self.stimuli.is_empty() {
                break;
            }
            self.update(run)?;
        }
        self.read_scores(run)
    }

    pub(super) fn drop_cancelled(&mut self, run: &mut Run<'_>) -> Result<(), MaximizeError> {
        let cancelled: Vec<bool> =
            self.stimuli.iter().map(|stimulus| run.callback.should_stop(stimulus.task)).collect();
        self.take_rows(run, &cancelled).map(drop)
    }

    /// Takes the stimuli of some rows out of the batch.
    pub(super) fn take_rows(&mut self, run: &mut Run<'_>, taken: &[bool]) -> Result<Vec<StimulusState>, MaximizeError> {
        if !taken.contains(&true) {
            return Ok(Vec::new());
        }
        self.read_scores(run)?;
        let mut take = taken.iter();
        let (stimuli, kept) = std::mem::take(&mut self.stimuli).into_iter().partition(|_| take.next() == Some(&true));
        self.stimuli = kept;
        if self.stimuli.is_empty() {
            return Ok(stimuli);
        }
        let rows = rows(taken, false, &run.model_runner.placement.device)?;
        self.best.retain_rows(&rows)?;
        self.images.retain_rows(&rows)?;
        self.scoring = scoring(&run.model_runner, &self.stimuli)?;
        if let (Some(smaller), Some(runner)) = (&mut self.smaller, &run.coarse_runner) {
            smaller.scoring = scoring(runner, &self.stimuli)?;
        }
        Ok(stimuli)
    }

    /// Records whose gradients of this stage were not finite.
    pub(super) fn note_non_finite_gradients(&mut self) -> Result<(), MaximizeError> {
        for (stimulus, non_finite) in self.stimuli.iter_mut().zip(self.images.non_finite_gradients()?) {
            stimulus.non_finite_gradient |= non_finite;
        }
        Ok(())
    }

    /// Goes on to the next stage if the steps of the current one are done.
    fn enter_stage(&mut self, run: &Run<'a>) -> Result<(), MaximizeError> {
        if self.step < self.stage.steps[1] {
            return Ok(());
        }
        let Some(next) = self.next.take() else { return Ok(()) };
        self.note_non_finite_gradients()?;
        let smaller = self.smaller.take();
        let enlarged = match &smaller {
            Some(Smaller { enlargement, .. }) => Some((enlargement, run.model_runner.decoder(run.settings)?)),
            None => None,
        };
        self.images.enter(&next, enlarged, run.model_runner.placement.arithmetic)?;
        self.stage = next;
        Ok(())
    }

    /// The current images at the stimuli's size: `[N,C,H,W]` in [0, 1].
    pub(super) fn pixels(&self) -> Result<Tensor, MaximizeError> {
        Ok(at_full_size(self.smaller.as_ref(), &self.images)?)
    }

    /// One step of every image.
    fn update(&mut self, run: &mut Run<'a>) -> Result<(), MaximizeError> {
        self.enter_stage(run)?;
        let (settings, strategy, step) = (run.settings, self.strategy, self.step);
        if settings.animation.is_some_and(|animation| animation.shows(step, strategy.steps)) {
            self.record_frame()?;
        }
        let gate = strategy.gate.at(step, strategy.steps);
        let forward = match (strategy.gate.kind, gate) {
            (GateKind::TrueProxy, Gate::Proxy { slope }) => Forward::Proxy { slope },
            _ => Forward::Original,
        };
        // The forward pass of such a step computes the scores of the images themselves.
        let scores_itself = self.steps_score() && forward == Forward::Original;
        if !scores_itself && (self.steps_score() || step.is_multiple_of(settings.score_every)) {
            self.score(run)?;
        }
        let runner = match (&self.smaller, &mut run.coarse_runner) {
            (Some(_), Some(coarse)) => coarse,
            _ => &mut run.model_runner,
        };
        let streams = self.stimuli.iter_mut().map(|stimulus| &mut stimulus.rng);
        let Stage { transforms, size, steps: [first, _], .. } = self.stage;
        let views = Views::draw(transforms, streams, size, runner.placement.arithmetic);
        // Scores are exact, steps need not be.
        runner.allow_reduced_precision(!scores_itself);
        let outputs = runner.forward(&views.apply(self.images.pixels())?, forward)?;
        let scoring = self.smaller.as_ref().map_or(&self.scoring, |smaller| &smaller.scoring);
        let mut scored = scoring.scores_and_seeds(&outputs)?;
        if let Some(diversity) = &runner.diversity {
            let seed = &mut scored.seeds[diversity.target];
            *seed = diversity.subtract_gradient(seed, &outputs[diversity.target], &groups(&self.stimuli))?;
        }
        runner.allow_reduced_precision(true);
        let gradients = runner.backward(&scored.seeds, gate, strategy.gate.relative == Some(true))?;
        runner.allow_reduced_precision(false);
        if scores_itself {
            let pixels = self.images.pixels().clone();
            self.record_scores(run, scored.scores, &pixels)?;
        }
        self.images.step(views.adjoint(&gradients)?, step - first)?;
        self.step += 1;
        for stimulus in &mut self.stimuli {
            stimulus.passes += 2;
            run.callback.on_step(stimulus.task, stimulus.step_offset + self.step);
        }
        Ok(())
    }

    /// Whether the network sees the images themselves in each step, so that its output is their score.
    fn steps_score(&self) -> bool {
        self.stage.transforms.is_empty() && self.smaller.is_none()
    }

    /// Adds the current images to the animations.
    fn record_frame(&mut self) -> Result<(), MaximizeError> {
        let pixels = self.pixels()?.to_device(&Device::Cpu)?;
        for (n, stimulus) in self.stimuli.iter_mut().enumerate() {
            stimulus.frames.push(Image8::round(&pixels.get(n)?)?);
        }
        Ok(())
    }

    /// Makes sure that every stimulus has a score before candidates are dropped, which costs a forward pass unless the
    /// steps have scored the images.
    pub(super) fn ensure_scored(&mut self, run: &mut Run<'_>) -> Result<(), MaximizeError> {
        if !self.steps_score() && !self.stimuli.is_empty() {
            self.score(run)?;
        }
        self.read_scores(run)
    }

    /// Scores the current images, without transforms, at the cost of a forward pass.
    fn score(&mut self, run: &mut Run<'_>) -> Result<(), MaximizeError> {
        let pixels = self.pixels()?;
        let outputs = run.model_runner.forward(&pixels, Forward::Original)?;
        self.stimuli.iter_mut().for_each(|stimulus| stimulus.passes += 1);
        self.record_scores(run, self.scoring.scores(&outputs)?, &pixels)
    }

    /// Records scores `[N]` of the current images, whose `pixels` have the stimuli's size.
    fn record_scores(&mut self, run: &mut Run<'_>, scores: Tensor, pixels: &Tensor) -> Result<(), MaximizeError> {
        self.best.update(&scores, pixels)?;
        self.unread_scores.push((self.step, scores));
        let per_read = if run.model_runner.placement.device.is_cpu() { 1 } else { SCORES_PER_READ };
        if self.unread_scores.len() >= per_read { self.read_scores(run) } else { Ok(()) }
    }

    /// Reads the scores that are still on the device and reports them.
    fn read_scores(&mut self, run: &mut Run<'_>) -> Result<(), MaximizeError> {
        let (steps, scores): (Vec<u32>, Vec<Tensor>) = std::mem::take(&mut self.unread_scores).into_iter().unzip();
        if scores.is_empty() {
            return Ok(());
        }
        for (step, scores) in steps.into_iter().zip(Tensor::stack(&scores, 0)?.to_vec2::<f32>()?) {
            for (stimulus, score) in self.stimuli.iter_mut().zip(scores) {
                stimulus.record_score(step, score, run.callback);
            }
        }
        Ok(())
    }
}

/// The current images `[N,C,H,W]` at the stimuli's size.
fn at_full_size(smaller: Option<&Smaller>, images: &ImageState) -> candle_core::Result<Tensor> {
    match smaller {
        Some(Smaller { enlargement, .. }) => enlargement.pixels(images.pixels()),
        None => Ok(images.pixels().clone()),
    }
}

/// The rows whose flag is `chosen`: `[N]`, u32.
pub(super) fn rows(flags: &[bool], chosen: bool, device: &Device) -> candle_core::Result<Tensor> {
    let rows: Vec<u32> = (0..).zip(flags).filter_map(|(row, &flag)| (flag == chosen).then_some(row)).collect();
    Tensor::new(rows, device)
}

/// Rows of stimuli in the same diversity group.
pub(super) fn groups(stimuli: &[StimulusState]) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (row, stimulus) in stimuli.iter().enumerate() {
        groups.entry(stimulus.group).or_default().push(row);
    }
    groups.into_values().collect()
}

pub(super) fn scoring(model_runner: &ModelRunner<'_>, stimuli: &[StimulusState]) -> candle_core::Result<Scoring> {
    let objectives: Vec<&BoundObjective> = stimuli.iter().map(|stimulus| &stimulus.objective).collect();
    model_runner.scoring(&objectives)
}
