//! The end of stimuli, after their last step or when their score has settled: their last images are scored, and the best
//! ones again as the 8-bit images that are returned.

use candle_core::{Device, Tensor};

use super::best::BestImages;
use super::context::Run;
use super::optimization::{Optimization, groups, rows, scoring};
use super::patience::Patience;
use super::stimulus_state::{FinalImage, StimulusState};
use crate::engine::Forward;
use crate::maximize::error::MaximizeError;
use crate::maximize::image8::Image8;
use crate::maximize::objective::Scoring;
use crate::maximize::outcome::Outcome;

impl<'a> Optimization<'a> {
    /// Makes the remaining steps, or fewer of stimuli whose score settles. Outcomes by task; cancelled stimuli have none.
    pub(super) fn complete(mut self, run: &mut Run<'a>) -> Result<Vec<(usize, Outcome)>, MaximizeError> {
        let patience = run.settings.patience;
        if let Some(steps) = patience {
            let last_stage = self.next.as_ref().unwrap_or(&self.stage).steps[0];
            // While a gate fades, scores may rest long before they rise.
            let same_gate = self.strategy.gate.last_change(self.strategy.steps);
            for stimulus in &mut self.stimuli {
                let after = stimulus.step_offset + self.step.max(last_stage).max(same_gate);
                stimulus.patience = Some(Patience { steps, after });
            }
        }
        let mut outcomes = Vec::with_capacity(self.stimuli.len());
        while self.step < self.strategy.steps && !self.stimuli.is_empty() {
            // Scores are read after these steps, so that the step at which one has settled is that of any batch.
            let steps = if patience.is_some() { 1 } else { self.strategy.steps - self.step };
            self.advance(run, steps)?;
            outcomes.extend(self.end(run, &self.settled(run))?);
        }
        self.drop_cancelled(run)?;
        outcomes.extend(self.end(run, &vec![true; self.stimuli.len()])?);
        Ok(outcomes)
    }

    /// For every row, whether its score has settled; with diversity, those of its whole group.
    fn settled(&self, run: &Run<'_>) -> Vec<bool> {
        let mut settled: Vec<bool> = self.stimuli.iter().map(|stimulus| stimulus.has_settled).collect();
        if run.settings.diversity.is_some() {
            for group in groups(&self.stimuli) {
                let all = group.iter().all(|&row| settled[row]);
                group.into_iter().for_each(|row| settled[row] = all);
            }
        }
        settled
    }

    /// Ends the stimuli of some rows, which leave the batch. Outcomes by task.
    fn end(&mut self, run: &mut Run<'_>, ended: &[bool]) -> Result<Vec<(usize, Outcome)>, MaximizeError> {
        if !ended.contains(&true) {
            return Ok(Vec::new());
        }
        self.note_non_finite_gradients()?;
        let rows = rows(ended, true, &run.model_runner.placement.device)?;
        let last = self.pixels()?.index_select(&rows, 0)?;
        let saliency = self.images.saliency().map(|saliency| saliency.index_select(&rows, 0)).transpose()?;
        let mut best = self.best.clone();
        best.retain_rows(&rows)?;
        let stimuli = self.take_rows(run, ended)?;
        let scoring = scoring(&run.model_runner, &stimuli)?;
        Ending { stimuli, scoring, step: self.step, last, best, saliency }.outcomes(run)
    }
}

/// Stimuli that make no more steps.
struct Ending {
    stimuli: Vec<StimulusState>,
    /// Their scores.
    scoring: Scoring,
    /// Steps of their optimization.
    step: u32,
    /// The images after the last step, `[N,C,H,W]` in [0, 1] of the stimuli's size.
    last: Tensor,
    /// The best images before.
    best: BestImages,
    /// `[N,H,W]`, f32, if the settings ask for alpha.
    saliency: Option<Tensor>,
}

impl Ending {
    /// Outcomes by task.
    fn outcomes(mut self, run: &mut Run<'_>) -> Result<Vec<(usize, Outcome)>, MaximizeError> {
        let outputs = run.model_runner.forward(&self.last, Forward::Original)?;
        let scores = self.scoring.scores(&outputs)?;
        self.best.update(&scores, &self.last)?;
        for (stimulus, score) in self.stimuli.iter_mut().zip(scores.to_vec1::<f32>()?) {
            stimulus.record_score(self.step, score, run.callback);
            run.callback.on_end(stimulus.task);
        }
        let images = self.final_images()?;
        let placement = &run.model_runner.placement;
        let pixels = images.iter().map(|image| image.pixels(&placement.device, placement.dtype));
        let pixels = Tensor::stack(&pixels.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let outputs = run.model_runner.forward(&pixels, Forward::Original)?;
        let scores = self.scoring.scores(&outputs)?.to_vec1::<f32>()?;
        let mut outcomes = Vec::with_capacity(images.len());
        for ((mut stimulus, image), score) in self.stimuli.into_iter().zip(&images).zip(scores) {
            stimulus.passes += 2;
            let last = FinalImage { score, image, step: self.step, is_softmax: run.model_runner.is_softmax };
            outcomes.push((stimulus.task, stimulus.outcome(&last)?));
        }
        Ok(outcomes)
    }

    /// The best image of every stimulus, or the last one where no score was finite, rounded to 8 bits and with alpha if
    /// asked for.
    fn final_images(&self) -> candle_core::Result<Vec<Image8>> {
        let best = self.best.images().to_device(&Device::Cpu)?;
        let last = self.last.to_device(&Device::Cpu)?;
        let saliency = self.saliency.as_ref().map(Tensor::to_vec3::<f32>).transpose()?;
        let image = |(n, stimulus): (usize, &StimulusState)| {
            let image = Image8::round(&if stimulus.best.is_some() { &best } else { &last }.get(n)?)?;
            Ok(match &saliency {
                Some(saliency) => image.with_alpha_from(&saliency[n].concat()),
                None => image,
            })
        };
        self.stimuli.iter().enumerate().map(image).collect()
    }
}
