//! Requests with several presets: the same objectives once under each, such as a readable image and the maximum.

use super::document::{Limits, Request};
use super::preset::Preset;
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
        let Some(presets) = self.checked_presets()? else { return self.resolve_one(model, limits) };
        let resolve = |&preset: &Preset| {
            self.with_preset(preset).resolve_one(model, limits).map_err(|error| Invalid {
                expected: format!("{}, with preset {}", error.expected, preset.name()),
                ..error
            })
        };
        let mut resolved = resolve(&presets[0])?;
        let stimuli = resolved.objectives.len().saturating_mul(presets.len());
        if stimuli > limits.objectives {
            let expected = format!("fewer presets or objectives: at most {} stimuli in total", limits.objectives);
            return Err(Invalid::new("presets", format!("{} presets, {stimuli} stimuli", presets.len()), expected));
        }
        let others = presets[1..].iter().map(|preset| Ok(resolve(preset)?.settings));
        resolved.other_settings = others.collect::<Result<_, Invalid>>()?;
        Ok(resolved)
    }

    /// This request once for each of its presets, in their order; itself if it has no list of presets.
    ///
    /// # Errors
    /// When the list is not 2 to 4 different presets, or there is a single preset too.
    pub fn per_preset(&self) -> Result<Vec<Self>, Invalid> {
        Ok(match self.checked_presets()? {
            None => vec![self.clone()],
            Some(presets) => presets.iter().map(|&preset| self.with_preset(preset)).collect(),
        })
    }

    /// The list of presets, if there is one: at least two.
    fn checked_presets(&self) -> Result<Option<&[Preset]>, Invalid> {
        let Some(presets) = &self.presets else { return Ok(None) };
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
        Ok(Some(presets))
    }

    fn with_preset(&self, preset: Preset) -> Self {
        Self { preset: Some(preset), presets: None, ..self.clone() }
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
