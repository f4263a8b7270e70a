//! Requests with several presets: the same objectives once under each, such as a readable image and the maximum.

use super::document::{Limits, Request};
use super::resolve::Resolved;
use super::settings::Settings;
use crate::Invalid;
use crate::network::Model;

/// Largest number of presets of a request.
const MOST_PRESETS: usize = 4;

impl Request {
    /// Checks the request against the model and the limits, and fills in every default, for each of its presets.
    ///
    /// # Errors
    /// Names the first wrong field, its value and what was expected.
    pub fn resolve(&self, model: &Model, limits: &Limits) -> Result<Resolved, Invalid> {
        let mut requests = self.per_preset()?.into_iter();
        let Some(first) = requests.next() else { return self.resolve_one(model, limits) };
        let mut resolved = first.resolve_one(model, limits).map_err(|error| self.of_preset(&first, error))?;
        let presets = 1 + requests.len();
        let stimuli = resolved.objectives.len().saturating_mul(presets);
        if presets > 1 && stimuli > limits.objectives {
            let expected = format!("fewer presets or objectives: at most {} stimuli in total", limits.objectives);
            return Err(Invalid::new("presets", format!("{presets} presets, {stimuli} stimuli"), expected));
        }
        for request in requests {
            let other = request.resolve_one(model, limits).map_err(|error| self.of_preset(&request, error))?;
            resolved.other_settings.push(other.settings);
        }
        Ok(resolved)
    }

    /// This request once for each of its presets, in their order; itself if it has no list of presets.
    ///
    /// # Errors
    /// When the list is not 2 to 4 different presets, or there is a single preset too.
    pub fn per_preset(&self) -> Result<Vec<Self>, Invalid> {
        let Some(presets) = &self.presets else { return Ok(vec![self.clone()]) };
        if let Some(preset) = self.preset {
            return Err(Invalid::new("preset", preset.name(), "either preset or presets, not both"));
        }
        if !(2..=MOST_PRESETS).contains(&presets.len()) {
            let found = if presets.len() == 1 { "1 preset".into() } else { format!("{} presets", presets.len()) };
            return Err(Invalid::new("presets", found, format!("2 to {MOST_PRESETS} different presets")));
        }
        if let Some(i) = (1..presets.len()).find(|&i| presets[..i].contains(&presets[i])) {
            return Err(Invalid::new(format!("presets[{i}]"), presets[i].name(), "each preset once"));
        }
        let with = |&preset| Self { preset: Some(preset), presets: None, ..self.clone() };
        Ok(presets.iter().map(with).collect())
    }

    /// The error of this request, from that of its request for one preset.
    fn of_preset(&self, request: &Self, error: Invalid) -> Invalid {
        match request.preset.filter(|_| self.presets.is_some()) {
            Some(preset) => Invalid { expected: format!("{}, with preset {}", error.expected, preset.name()), ..error },
            None => error,
        }
    }
}

impl Resolved {
    /// Settings of every preset, in their order.
    pub fn all_settings(&self) -> impl Iterator<Item = &Settings> {
        std::iter::once(&self.settings).chain(&self.other_settings)
    }

    /// Number of stimuli: one per preset for each of the objectives.
    pub fn stimuli(&self) -> usize {
        self.objectives.len() * (1 + self.other_settings.len())
    }
}
