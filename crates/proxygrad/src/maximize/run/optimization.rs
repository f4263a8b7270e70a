//! An arm: searches that go the same way, step by step, as one batch.
//!
//! The images of all searches are one tensor, and everything that a step needs of them stays on the engine's device.
//! Only scores come back, in blocks.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::best::Best;
use super::image_state::Canvas;
use super::stimulus_state::{Ending, Search};
use crate::engine::{Forward, Gate};
use crate::maximize::callback::Observer;
use crate::maximize::error::MaximizeError;
use crate::maximize::gate_schedule::{GateKind, GateSchedule};
use crate::maximize::image8::Levels;
use crate::maximize::model_runner::Passes;
use crate::maximize::objective::{Aims, Scoring};
use crate::maximize::outcome::{Outcome, Point};
use crate::maximize::request::Settings;
use crate::maximize::task::Task;
use crate::maximize::transform::Views;

/// How many scores of a batch wait on a device before they are read: reading waits for the device to be done.
const SCORES_AT_ONCE: usize = 16;

/// How the searches of an arm go.
#[derive(Debug, Clone, Copy)]
pub(in crate::maximize) struct Way<'a> {
    pub(in crate::maximize) gate: &'a GateSchedule,
    /// Which of a task's starts: 0 is the one that a run without a search has.
    pub(in crate::maximize) restart: u32,
    /// Steps of the whole way; the schedules of gate and optimizer run over them.
    pub(in crate::maximize) steps: u32,
}

/// Searches that go one way.
pub(in crate::maximize) struct Arm<'a> {
    settings: &'a Settings,
    way: Way<'a>,
    /// One per image of the batch.
    pub(in crate::maximize) searches: Vec<Search>,
    scoring: Scoring,
    canvas: Canvas,
    best: Best,
    /// Scores `[N]` that nobody has read yet, by step.
    unread: Vec<(u32, Tensor)>,
}

impl<'a> Arm<'a> {
    /// One search per task, each at its own start. At least one task.
    pub(in crate::maximize) fn new(
        passes: &mut Passes<'_>,
        tasks: &[Task],
        settings: &'a Settings,
        way: Way<'a>,
    ) -> Result<Self, MaximizeError> {
        let search = |(i, task): (usize, &Task)| Search::new(i, task, way.restart, passes.aims(task));
        let mut searches: Vec<Search> = tasks.iter().enumerate().map(search).collect();
        passes.refer(&mut searches, tasks)?;
        let painter = passes.painter(settings)?;
        let starts = searches
            .iter_mut()
            .map(|search| painter.draw(&settings.start, &tasks[search.task].pictures, &mut search.rng));
        let starts = starts.collect::<Result<Vec<_>, _>>()?;
        let canvas = Canvas::new(painter, &starts, settings, way.steps, passes.placement.arithmetic)?;
        Ok(Self {
            settings,
            way,
            scoring: scoring(passes, &searches)?,
            searches,
            best: Best::new(canvas.pixels(), passes.placement.arithmetic)?,
            canvas,
            unread: Vec::new(),
        })
    }

    /// Drops the searches that the observer wants no more; false when none is left.
    pub(in crate::maximize) fn ask(
        &mut self,
        passes: &Passes<'_>,
        observer: &mut dyn Observer,
    ) -> Result<bool, MaximizeError> {
        let wanted: Vec<bool> = self.searches.iter().map(|search| observer.keep(search.task)).collect();
        self.keep(passes, &wanted, observer)?;
        Ok(!self.searches.is_empty())
    }

    /// Goes on with the searches that are wanted alone.
    pub(in crate::maximize) fn keep(
        &mut self,
        passes: &Passes<'_>,
        wanted: &[bool],
        observer: &mut dyn Observer,
    ) -> Result<(), MaximizeError> {
        if wanted.iter().all(|&wanted| wanted) {
            return Ok(());
        }
        self.read_scores(observer)?;
        let mut keep = wanted.iter();
        self.searches.retain(|_| keep.next().is_none_or(|&wanted| wanted));
        if self.searches.is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = (0..).zip(wanted).filter_map(|(row, &wanted)| wanted.then_some(row)).collect();
        let rows = Tensor::from_vec(rows, self.searches.len(), &passes.placement.device)?;
        self.best.keep(&rows)?;
        self.canvas.keep(&rows)?;
        self.scoring = scoring(passes, &self.searches)?;
        Ok(())
    }

    /// One update of every image; `step` counts from 0 along the arm's own way.
    pub(in crate::maximize) fn step(
        &mut self,
        passes: &mut Passes<'_>,
        step: u32,
        observer: &mut dyn Observer,
    ) -> Result<(), MaximizeError> {
        let settings = self.settings;
        if settings.animation.is_some_and(|animation| animation.shows(step, self.way.steps)) {
            self.film()?;
        }
        let gate = self.way.gate.at(step, self.way.steps);
        let forward = match (self.way.gate.kind, gate) {
            (GateKind::TrueProxy, Gate::Proxy { slope }) => Forward::Proxy { slope },
            _ => Forward::Original,
        };
        let as_it_is = settings.transforms.is_empty();
        let free = as_it_is && forward == Forward::Original;
        if !free && (as_it_is || step.is_multiple_of(settings.score_every)) {
            self.score(passes, step, observer)?;
        }
        let streams = self.searches.iter_mut().map(|search| &mut search.rng);
        let views = Views::draw(&settings.transforms, streams, settings.size, passes.placement.arithmetic);
        let outputs = passes.forward(&views.apply(self.canvas.pixels())?, forward)?;
        let mut scored = self.scoring.scores_and_seeds(&outputs)?;
        if let Some(penalty) = &passes.penalty {
            let seed = &mut scored.seeds[penalty.target];
            *seed = penalty.subtract(seed, &outputs[penalty.target], &groups(&self.searches))?;
        }
        if free {
            self.note(passes, step, scored.scores, observer)?;
        }
        let gradients = passes.backward(&scored.seeds, gate, self.way.gate.relative == Some(true))?;
        self.searches.iter_mut().for_each(|search| search.passes += 2);
        Ok(self.canvas.step(views.adjoint(&gradients)?)?)
    }

    /// Keeps the images as they are for the animation.
    fn film(&mut self) -> Result<(), MaximizeError> {
        let pixels = self.canvas.pixels().to_device(&Device::Cpu)?;
        for (n, search) in self.searches.iter_mut().enumerate() {
            search.frames.push(Levels::round(&pixels.get(n)?)?);
        }
        Ok(())
    }

    /// Knows how good the images are before a choice is made, behind so many steps: the steps themselves tell it unless
    /// they look at views of the images.
    pub(in crate::maximize) fn look(
        &mut self,
        passes: &mut Passes<'_>,
        step: u32,
        observer: &mut dyn Observer,
    ) -> Result<(), MaximizeError> {
        if !self.settings.transforms.is_empty() && !self.searches.is_empty() {
            self.score(passes, step, observer)?;
        }
        self.read_scores(observer)
    }

    /// Scores the images as they are, behind so many steps.
    fn score(&mut self, passes: &mut Passes<'_>, step: u32, observer: &mut dyn Observer) -> Result<(), MaximizeError> {
        let outputs = passes.forward(self.canvas.pixels(), Forward::Original)?;
        self.searches.iter_mut().for_each(|search| search.passes += 1);
        self.note(passes, step, self.scoring.scores(&outputs)?, observer)
    }

    /// Takes note of scores `[N]` of the images as they are.
    fn note(
        &mut self,
        passes: &Passes<'_>,
        step: u32,
        scores: Tensor,
        observer: &mut dyn Observer,
    ) -> Result<(), MaximizeError> {
        self.best.offer(&scores, self.canvas.pixels())?;
        self.unread.push((step, scores));
        let at_once = if passes.placement.device.is_cpu() { 1 } else { SCORES_AT_ONCE };
        if self.unread.len() >= at_once { self.read_scores(observer) } else { Ok(()) }
    }

    /// Reads the scores that wait and tells the observer.
    pub(in crate::maximize) fn read_scores(&mut self, observer: &mut dyn Observer) -> Result<(), MaximizeError> {
        let (steps, scores): (Vec<u32>, Vec<Tensor>) = std::mem::take(&mut self.unread).into_iter().unzip();
        if scores.is_empty() {
            return Ok(());
        }
        for (step, scores) in steps.into_iter().zip(Tensor::stack(&scores, 0)?.to_vec2::<f32>()?) {
            for (search, score) in self.searches.iter_mut().zip(scores) {
                let point = Point { step: search.ahead + step, score };
                search.note(point);
                observer.scored(search.task, point);
            }
        }
        Ok(())
    }

    /// Scores the last images behind `steps` steps, and once more the best ones as the 8-bit images that are delivered:
    /// outcomes by task.
    pub(in crate::maximize) fn finish(
        mut self,
        passes: &mut Passes<'_>,
        steps: u32,
        observer: &mut dyn Observer,
    ) -> Result<Vec<(usize, Outcome)>, MaximizeError> {
        if self.searches.is_empty() {
            return Ok(Vec::new());
        }
        self.score(passes, steps, observer)?;
        self.read_scores(observer)?;
        let best = self.best.images().to_device(&Device::Cpu)?;
        let last = self.canvas.pixels().to_device(&Device::Cpu)?;
        let looks = self.canvas.looks().map(|looks| looks.to_vec3::<f32>()).transpose()?;
        let levels = self.searches.iter().enumerate().map(|(n, search)| {
            // Where no score was finite there is no best image.
            let levels = Levels::round(&if search.best.is_some() { &best } else { &last }.get(n)?)?;
            Ok(match &looks {
                Some(looks) => levels.seen_by(&looks[n].concat()),
                None => levels,
            })
        });
        let levels = levels.collect::<candle_core::Result<Vec<_>>>()?;
        let placement = &passes.placement;
        let pixels = levels.iter().map(|levels| levels.pixels(&placement.device, placement.dtype));
        let pixels = Tensor::stack(&pixels.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let outputs = passes.forward(&pixels, Forward::Original)?;
        self.searches.iter_mut().for_each(|search| search.passes += 1);
        let scores = self.scoring.scores(&outputs)?.to_vec1::<f32>()?;
        let broken = self.canvas.broken()?;
        let mut outcomes = Vec::with_capacity(levels.len());
        for (((search, levels), score), broken) in self.searches.iter().zip(&levels).zip(scores).zip(broken) {
            let ending = Ending { score, levels, broken, is_softmax: passes.is_softmax };
            outcomes.push((search.task, search.outcome(&ending)?));
        }
        Ok(outcomes)
    }
}

/// Rows of searches that are kept unlike each other.
fn groups(searches: &[Search]) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (row, search) in searches.iter().enumerate() {
        groups.entry(search.group).or_default().push(row);
    }
    groups.into_values().collect()
}

/// The objectives of these searches at work.
fn scoring(passes: &Passes<'_>, searches: &[Search]) -> candle_core::Result<Scoring> {
    let aims: Vec<&Aims> = searches.iter().map(|search| &search.aims).collect();
    passes.scoring(&aims)
}
