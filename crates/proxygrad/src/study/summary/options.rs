//! Options of a comparison: reference, focus, rivals and tolerance.

use serde::Serialize;

use crate::Invalid;
use crate::study::variant::Variant;

/// Options of a comparison; changing them needs no new runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparisonOptions {
    /// The reference arm, with which all others are compared.
    pub against: String,
    /// The arm in focus, which is compared with the best of its rivals.
    pub focus: String,
    /// The rivals of the arm in focus.
    pub rivals: Vec<String>,
    /// Relative tolerance: two scores tie if they differ by at most this share of the larger one.
    pub tie: f64,
    /// Number of resamples of a bootstrap interval.
    pub resamples: usize,
}

impl ComparisonOptions {
    /// Default options for these arms: reference `plain` (or the first arm), focus `auto` (or the last arm), and all
    /// others as rivals.
    pub fn for_arms(arms: &[Variant]) -> Self {
        let named = |name: &str| arms.iter().find(|arm| arm.name == name).map(|arm| arm.name.clone());
        let against = named("plain").or_else(|| arms.first().map(|arm| arm.name.clone())).unwrap_or_default();
        let focus = named("auto").or_else(|| arms.last().map(|arm| arm.name.clone())).unwrap_or_default();
        let rivals = Self::rivals_of(arms, &against, &focus);
        Self { against, focus, rivals, tie: 1e-3, resamples: 2000 }
    }

    /// All arms except these two; only the reference if no other is left; none if the two are the same.
    pub fn rivals_of(arms: &[Variant], against: &str, focus: &str) -> Vec<String> {
        let others = arms.iter().map(|arm| arm.name.clone()).filter(|name| name != focus && name != against);
        let others: Vec<String> = others.collect();
        if others.is_empty() && focus != against { vec![against.to_owned()] } else { others }
    }

    /// Whether two scores tie.
    pub(in crate::study) fn ties(&self, a: f64, b: f64) -> bool {
        (a - b).abs() <= self.tie * a.abs().max(b.abs())
    }

    /// Checks that the arms exist.
    ///
    /// # Errors
    /// Names the arm that does not.
    pub fn check(&self, arms: &[Variant]) -> Result<(), Invalid> {
        let fields = [("against", &self.against), ("focus", &self.focus)];
        for (field, name) in fields.into_iter().chain(self.rivals.iter().map(|name| ("rivals", name))) {
            if !arms.iter().any(|arm| arm.name == *name) {
                let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
                return Err(Invalid::new(field, name, format!("an arm of the study: {}", names.join(", "))));
            }
        }
        if self.rivals.contains(&self.focus) {
            return Err(Invalid::new("rivals", &self.focus, "arms other than the one in focus"));
        }
        Ok(())
    }
}
