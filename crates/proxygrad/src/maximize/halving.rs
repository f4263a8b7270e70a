//! Several ways to one stimulus within one budget of steps.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::Invalid;
use crate::maximize::gate_schedule::{GateKind, GateRequest, GateSchedule};

/// Successive halving (Karnin, Koren & Somekh, ICML 2013; Jamieson & Talwalkar, AISTATS 2016, arXiv:1502.07943) over gates
/// and starts.
///
/// Every gate from every start is a candidate. In each rung every candidate that is left does some steps; then the better
/// half stays, by the best score so far, and behind the last rung only the best one, which takes all the steps that are
/// left. All candidates together do exactly the steps of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Halving {
    /// The gates that compete.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 16))]
    pub arms: Vec<GateSchedule>,
    /// Number of starts that every gate is tried from. The first is the one that a run without a search has.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 16))]
    pub restarts: u32,
    /// Steps that every candidate left does before the next choice.
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    pub rungs: Vec<u32>,
    /// The gate of stimuli that by half of the winner's steps never rose above their start: with the other half they begin
    /// anew, from their first start. `auto` takes `redirect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<GateSchedule>,
}

/// A search as written in a request; what is left out is filled in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    /// The gates that compete; the request's own gate unless given, several good ones when that is `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 16))]
    pub arms: Option<Vec<GateRequest>>,
    /// Number of starts that every gate is tried from; 1 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 16))]
    pub restarts: Option<u32>,
    /// Steps that every candidate left does before the better half is chosen, choice by choice; chosen from the number of
    /// steps unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    pub rungs: Option<Vec<u32>>,
}

/// Most gates, and most starts, of a search.
const MOST: usize = 16;
/// Most rungs.
const MOST_RUNGS: usize = 8;

impl SearchRequest {
    /// Fills in what was left out, for a run of `steps` whose gate is `gate`.
    ///
    /// # Errors
    /// When a number is out of range, or the rungs leave no step for the winner.
    pub fn resolve(&self, gate: &GateSchedule, steps: u32) -> Result<Halving, Invalid> {
        let arms = match &self.arms {
            Some(arms) => self.given_arms(arms)?,
            None if gate.kind == GateKind::Auto => auto_arms(steps),
            None => vec![gate.clone()],
        };
        let restarts = self.restarts.unwrap_or(1);
        if !(1..=MOST as u32).contains(&restarts) {
            return Err(Invalid::new("restarts", restarts, format!("a whole number from 1 to {MOST}")));
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
        if arms.is_empty() || arms.len() > MOST {
            return Err(Invalid::new("arms", format!("{} gates", arms.len()), format!("1 to {MOST} gates")));
        }
        let resolved = arms.iter().enumerate().map(|(i, gate)| match gate.kind {
            GateKind::Auto => Err(Invalid::new(format!("arms[{i}]"), "auto", "a gate that is not itself a search")),
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

    /// How many candidates are left at the beginning of each rung, and at the end 1.
    pub(super) fn left(&self) -> Vec<u32> {
        let mut left = vec![self.candidates()];
        for rung in 0..self.rungs.len() {
            let now = left[rung];
            left.push(if rung + 1 == self.rungs.len() { 1 } else { now.div_ceil(2) });
        }
        left
    }

    /// Steps that a candidate does which is never dropped, in a run of `steps`; nothing when the rungs leave it no step.
    pub(super) fn horizon(&self, steps: u32) -> Option<u32> {
        let left = self.left();
        let spent_on_others =
            self.rungs.iter().zip(&left).map(|(&rung, &left)| u64::from(rung) * u64::from(left - 1)).sum::<u64>();
        let own: u64 = self.rungs.iter().copied().map(u64::from).sum();
        let horizon = u64::from(steps).checked_sub(spent_on_others)?;
        (horizon > own).then_some(horizon as u32)
    }

    /// Steps that the winner does before a rescue, where it does so many in all; nothing without a rescue, or with too few
    /// steps for one.
    pub(super) fn before_rescue(&self, horizon: u32) -> Option<u32> {
        let before = (horizon / 2).max(self.rungs.iter().sum());
        (self.rescue.is_some() && 0 < before && before < horizon).then_some(before)
    }

    fn check(&self, steps: u32) -> Result<(), Invalid> {
        let found = format!("{:?}", self.rungs);
        if self.rungs.len() > MOST_RUNGS || self.rungs.contains(&0) {
            return Err(Invalid::new(
                "rungs",
                found,
                format!("at most {MOST_RUNGS} numbers of steps, each at least 1"),
            ));
        }
        if self.candidates() > 1 && self.rungs.is_empty() {
            let expected = format!("at least one number of steps, to choose among {} candidates", self.candidates());
            return Err(Invalid::new("rungs", found, expected));
        }
        if self.horizon(steps).is_none() {
            let expected = format!(
                "rungs that leave the winner a step: {} candidates do more than the {steps} steps of the run",
                self.candidates()
            );
            return Err(Invalid::new("rungs", found, expected));
        }
        Ok(())
    }
}

/// Steps below which `auto` does not divide them: what a second gate could gain is less than what the steps it takes cost.
const WORTH_DIVIDING: u32 = 256;

/// The gates that `auto` tries: of all single gates the one that reaches most, and with many steps one of another kind.
fn auto_arms(steps: u32) -> Vec<GateSchedule> {
    let (anneal, polish) = GateSchedule::SOFT_COURSE;
    let temperature = Some(GateSchedule::RELATIVE_TEMPERATURE);
    let mut arms =
        vec![GateSchedule { kind: GateKind::Soft, slope: None, temperature, relative: Some(true), anneal, polish }];
    if steps >= WORTH_DIVIDING {
        let (kind, slope) = (GateKind::Decoupled, Some(0.1));
        arms.push(GateSchedule { kind, slope, temperature: None, relative: None, anneal: 0.9, polish: 0.1 });
    }
    arms
}

impl Halving {
    /// Rungs that leave the winner about three quarters of the steps: each takes as many steps as any other, so that
    /// those who are left in it do twice as many.
    fn default_rungs(&self, steps: u32) -> Vec<u32> {
        let candidates = self.candidates();
        let count = candidates.next_power_of_two().ilog2();
        let first = (steps / (4 * candidates * count.max(1))).max(1);
        (0..count).map(|rung| first << rung).collect()
    }
}
