//! `proxygrad maximize`: optimizes stimuli on this machine, without a server.

mod arguments;
mod files;
mod output;
mod request;

use proxygrad::Invalid;
use proxygrad::engine;
use proxygrad::maximize::{Limits, Resolved, judges_too_large, maximize_judged};
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
        let mut request = self.request()?;
        self.method.refine(&mut request, &model, &limits);
        request.attach(&self.files()?).map_err(|e| as_flag(&e))?;
        // All parts are validated before the first one runs.
        let judges = request.judges().iter().map(|id| super::models::load(&models, id));
        let judges = judges.collect::<anyhow::Result<Vec<_>>>()?;
        let parts = parts(request).map(|part| part.resolve(&model, &limits)?.judged_by(&model, &judges));
        let parts = parts.collect::<Result<Vec<Resolved>, Invalid>>().map_err(|e| as_flag(&e))?;
        let several = parts.iter().map(|part| part.objectives.len()).sum::<usize>() > 1;
        let (memory, allowed) = (engine.memory_model(), self.memory.run_bytes());
        for part in &parts {
            if let Some(too_large) = part.too_large(&memory, &model, allowed)? {
                return Err(too_large_error(too_large));
            }
        }
        if let Some(too_large) = judges_too_large(&memory, &judges, allowed)? {
            return Err(too_large_error(too_large));
        }
        let mut written = Vec::new();
        for part in &parts {
            let mut progress = Progress::new(several, part.settings.steps);
            let tasks = part.tasks_after(written.len() as u64);
            let (engine, settings) = (engine.as_ref(), &part.settings);
            let outcomes = maximize_judged(engine, &model, &judges, &tasks, settings, allowed, &mut progress)?;
            progress.bar.finish_and_clear();
            for (outcome, objective) in outcomes.into_iter().flatten().zip(&part.objectives) {
                let file = self.write(&outcome, several.then_some(written.len()))?;
                written.push(Stimulus { objective, findings: outcome.findings, file });
            }
        }
        // There is at least one part, and all have the same settings.
        let Some(Resolved { settings, seed, .. }) = parts.first() else { return Ok(()) };
        match self.json {
            true => print_json(&model, settings, *seed, &written),
            false => print_text(&model, settings, &written),
        }
    }
}
