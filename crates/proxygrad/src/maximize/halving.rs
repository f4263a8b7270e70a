//! Settings of a search: successive halving over gates and starts.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::Invalid;
use crate::maximize::gate_schedule::{GateKind, GateRequest, GateSchedule};

/// Successive halving (Karnin, Koren & Somekh, ICML 2013; Jamieson & Talwalkar, AISTATS 2016, arXiv:1502.07943) over
/// gates and starts.
///
/// Every combination of a gate and a start is a candidate. In each rung every remaining candidate makes some steps;
/// then the half with the better best scores is kept, and after the last rung only the best one, which makes the
/// remaining steps. All candidates together make exactly the steps of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Halving {
    /// Gates of the candidates.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 16))]
    pub arms: Vec<GateSchedule>,
    /// Number of random starts per gate. The first is the start of a run without a search.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 16))]
    pub restarts: u32,
    /// Steps per remaining candidate before each selection.
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    pub rungs: Vec<u32>,
    /// Gate for stimuli that have not improved on their start after half of the winner's steps: they restart from their
    /// first start and use this gate for the other half. `auto` uses `redirect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<GateSchedule>,
}

/// A search as written in a request; omitted fields get defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    /// Gates of the candidates. Default: the request's gate, or with `auto` one or two gates chosen by the number of
    /// steps; with a coarse stage one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 16))]
    pub arms: Option<Vec<GateRequest>>,
    /// Number of random starts per gate. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 16))]
    pub restarts: Option<u32>,
    /// Steps per remaining candidate before each selection of the better half. Default: chosen from the number of
    /// steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    pub rungs: Option<Vec<u32>>,
}

/// Largest number of gates, and of starts.
const MAX_ARMS: usize = 16;
/// Largest number of rungs.
const MAX_RUNGS: usize = 8;

impl SearchRequest {
    /// Fills in defaults, for a run of `steps` steps with gate `gate`, with or without a coarse stage.
    ///
    /// # Errors
    /// When a number is out of range, or the rungs leave no steps for the winner.
    pub fn resolve(&self, gate: &GateSchedule, steps: u32, coarse: bool) -> Result<Halving, Invalid> {
        let arms = match &self.arms {
            Some(arms) => self.given_arms(arms)?,
            None if gate.kind == GateKind::Auto => auto_arms(steps, coarse),
            None => vec![gate.clone()],
        };
        let restarts = self.restarts.unwrap_or(1);
        if !(1..=MAX_ARMS as u32).contains(&restarts) {
            return Err(Invalid::new("restarts", restarts, format!("a whole number from 1 to {MAX_ARMS}")));
        }
        let rescue = match &self.arms {
            None if gate.kind == GateKind::Auto => Some(GateRequest::from(GateKind::Redirect).resolve()?),
            _ => None,
        };
        let mut halving = Halving { arms, restarts, rungs: Vec::new(), rescue };
        halving.rungs = match &self.rungs {
            Some(rungs) => rungs.clone(),
            None => halving.default_rungs(steps),
        };
        halving.check(steps)?;
        Ok(halving)
    }

    fn given_arms(&self, arms: &[GateRequest]) -> Result<Vec<GateSchedule>, Invalid> {
        if arms.is_empty() || arms.len() > MAX_ARMS {
            return Err(Invalid::new("arms", format!("{} gates", arms.len()), format!("1 to {MAX_ARMS} gates")));
        }
        let resolved = arms.iter().enumerate().map(|(i, gate)| match gate.kind {
            GateKind::Auto => Err(Invalid::new(format!("arms[{i}]"), "auto", "a single gate")),
            _ => gate.resolve().map_err(|e| e.within(&format!("arms[{i}]"))),
        });
        resolved.collect()
    }
}

impl Halving {
    /// Number of candidates at the beginning.
    pub fn candidates(&self) -> u32 {
        self.arms.len() as u32 * self.restarts
    }

    /// Number of candidates in each rung, and 1 at the end.
    pub(super) fn left(&self) -> Vec<u32> {
        let mut left = vec![self.candidates()];
        for rung in 0..self.rungs.len() {
            let now = left[rung];
            left.push(if rung + 1 == self.rungs.len() { 1 } else { now.div_ceil(2) });
        }
        left
    }

    /// Steps of the winner in a run of `steps`; `None` if the rungs leave it none.
    pub(super) fn horizon(&self, steps: u32) -> Option<u32> {
        let left = self.left();
        let spent_on_others =
            self.rungs.iter().zip(&left).map(|(&rung, &left)| u64::from(rung) * u64::from(left - 1)).sum::<u64>();
        let own: u64 = self.rungs.iter().copied().map(u64::from).sum();
        let horizon = u64::from(steps).checked_sub(spent_on_others)?;
        (horizon > own).then_some(horizon as u32)
    }

    /// Steps of the winner before a rescue, of `horizon` in all; `None` without a rescue or with too few steps for one.
    pub(super) fn before_rescue(&self, horizon: u32) -> Option<u32> {
        let before = (horizon / 2).max(self.rungs.iter().sum());
        (self.rescue.is_some() && 0 < before && before < horizon).then_some(before)
    }

    fn check(&self, steps: u32) -> Result<(), Invalid> {
        let found = format!("{:?}", self.rungs);
        if self.rungs.len() > MAX_RUNGS || self.rungs.contains(&0) {
            return Err(Invalid::new("rungs", found, format!("at most {MAX_RUNGS} numbers of steps, each at least 1")));
        }
        if self.candidates() > 1 && self.rungs.is_empty() {
            let expected = format!("at least one number of steps, to select among {} candidates", self.candidates());
            return Err(Invalid::new("rungs", found, expected));
        }
        if self.horizon(steps).is_none() {
            let expected = format!(
                "rungs that leave steps for the winner: {} candidates use more than the {steps} steps of the run",
                self.candidates()
            );
            return Err(Invalid::new("rungs", found, expected));
        }
        Ok(())
    }
}

/// Fewest steps with which `auto` tries a second gate: with fewer, the steps spent on it cost more than it gains.
const STEPS_FOR_TWO_GATES: u32 = 256;

/// Gates of `auto`: the single gate with the best scores, and with many steps one of another kind.
///
/// A run with a coarse stage seeks images that other networks recognize, not the highest score: it has one gate, which
/// does not fade, because the composition that is found under it is recognized more often.
fn auto_arms(steps: u32, coarse: bool) -> Vec<GateSchedule> {
    let (fading, polish) = GateSchedule::SOFT_COURSE;
    let anneal = if coarse { 0.0 } else { fading };
    let temperature = Some(GateSchedule::RELATIVE_TEMPERATURE);
    let mut arms =
        vec![GateSchedule { kind: GateKind::Soft, slope: None, temperature, relative: Some(true), anneal, polish }];
    if steps >= STEPS_FOR_TWO_GATES && !coarse {
        let (kind, slope) = (GateKind::Decoupled, Some(0.1));
        arms.push(GateSchedule { kind, slope, temperature: None, relative: None, anneal: 0.9, polish: 0.1 });
    }
    arms
}

impl Halving {
    /// Rungs that leave the winner about three quarters of the steps. All rungs take the same number of steps in total:
    /// with each, the steps per candidate double.
    fn default_rungs(&self, steps: u32) -> Vec<u32> {
        let candidates = self.candidates();
        let count = candidates.next_power_of_two().ilog2();
        let first = (steps / (4 * candidates * count.max(1))).max(1);
        (0..count).map(|rung| first << rung).collect()
    }
}
