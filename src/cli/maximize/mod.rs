//! `proxygrad maximize`: optimizes stimuli on this machine, without a server.

mod arguments;
mod files;
mod output;
mod request;

use proxygrad::Invalid;
use proxygrad::engine;
use proxygrad::maximize::{Limits, Preset, Resolved, Settings, judges_too_large, maximize_judged};
use proxygrad::network::catalog;

pub use arguments::Maximize;
use output::{Progress, Stimulus, print_json, print_text};
use request::{as_flag, parts, too_large as too_large_error};

impl Maximize {
    /// Runs the optimization, writes the PNGs and prints the results.
    pub fn run(self) -> anyhow::Result<()> {
        let engine = engine::open(&self.device, &self.cpu.settings(&self.storage.data_dir))?;
        let models = catalog::Models::new(self.storage.models())?;
        let model = self.model(&models)?;
        let limits = Limits::default();
        let request = self.request()?;
        let files = self.files()?;
        // All parts are validated before the first one runs.
        let judges = request.judges().iter().map(|id| super::models::load(&models, id));
        let judges = judges.collect::<anyhow::Result<Vec<_>>>()?;
        let mut runs = Vec::new();
        for mut request in request.per_preset().map_err(|e| as_flag(&e))? {
            let name = request.preset.map(Preset::name).filter(|_| self.method.presets.len() > 1);
            self.method.refine(&mut request, &model, &limits);
            request.attach(&files).map_err(|e| as_flag(&e))?;
            let parts = parts(request).map(|part| part.resolve(&model, &limits)?.judged_by(&model, &judges));
            runs.push((name, parts.collect::<Result<Vec<Resolved>, Invalid>>().map_err(|e| as_flag(&e))?));
        }
        let (memory, allowed) = (engine.memory_model(), self.memory.run_bytes());
        for part in runs.iter().flat_map(|(_, parts)| parts) {
            if let Some(too_large) = part.too_large(&memory, &model, allowed)? {
                return Err(too_large_error(too_large));
            }
        }
        if let Some(too_large) = judges_too_large(&memory, &judges, allowed)? {
            return Err(too_large_error(too_large));
        }
        let mut written = Vec::new();
        for (preset, parts) in &runs {
            let several = parts.iter().map(|part| part.objectives.len()).sum::<usize>() > 1;
            let mut stimuli = 0;
            for part in parts {
                let mut progress = Progress::new(several, part.settings.steps);
                let tasks = part.tasks_after(stimuli as u64);
                let (engine, settings) = (engine.as_ref(), &part.settings);
                let outcomes = maximize_judged(engine, &model, &judges, &tasks, settings, allowed, &mut progress)?;
                progress.bar.finish_and_clear();
                for (outcome, objective) in outcomes.into_iter().flatten().zip(&part.objectives) {
                    let file = self.write(&outcome, *preset, several.then_some(stimuli))?;
                    stimuli += 1;
                    let (preset, findings) = (settings.preset, outcome.findings);
                    written.push(Stimulus { preset, objective, findings, file });
                }
            }
        }
        // Every preset has at least one part, and all of them the same settings.
        let settings: Vec<&Settings> =
            runs.iter().filter_map(|(_, parts)| parts.first()).map(|part| &part.settings).collect();
        match self.json {
            true => print_json(&model, &settings, self.method.seed, &written),
            false => print_text(&model, &written, settings.len() > 1),
        }
    }
}
