//! Learning-rate schedules, and the fading of surrogates.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// The learning rate over a run. As text: `constant`, `cosine` or `steps:SHARE,SHARE:FACTOR`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum LearningRate {
    /// The same at every step.
    Constant,
    /// Half a cosine, from the full rate to 0 (Loshchilov & Hutter, "SGDR", arXiv:1608.03983, equation 5).
    Cosine,
    /// Multiplied by `factor` at each of these shares of the run.
    Steps {
        /// Shares of the run, in (0, 1).
        at: Vec<f64>,
        /// In (0, 1).
        factor: f64,
    },
}

impl LearningRate {
    /// The factor on the learning rate at a step, of `steps` in all, with a linear warm-up over a share of them.
    pub(super) fn factor(&self, step: u64, steps: u64, warm_up: f64) -> f64 {
        let share = step as f64 / steps.max(1) as f64;
        let factor = match self {
            Self::Constant => 1.0,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
            Self::Steps { at, factor } => factor.powf(at.iter().filter(|&&at| share >= at).count() as f64),
        };
        let warmth = if warm_up > 0.0 { ((share + 1.0 / steps.max(1) as f64) / warm_up).min(1.0) } else { 1.0 };
        factor * warmth
    }
}

impl FromStr for LearningRate {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            Invalid::new("schedule", text, "constant, cosine or steps:SHARES:FACTOR, for example steps:0.5,0.75:0.1")
        };
        let number = |text: &str| text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value));
        match text.split(':').collect::<Vec<_>>()[..] {
            ["constant"] => Ok(Self::Constant),
            ["cosine"] => Ok(Self::Cosine),
            ["steps", shares, factor] => {
                let at = shares.split(',').map(number).collect::<Option<Vec<f64>>>().ok_or_else(wrong)?;
                Ok(Self::Steps { at, factor: number(factor).ok_or_else(wrong)? })
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for LearningRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => write!(f, "constant"),
            Self::Cosine => write!(f, "cosine"),
            Self::Steps { at, factor } => {
                let at: Vec<String> = at.iter().map(f64::to_string).collect();
                write!(f, "steps:{}:{factor}", at.join(","))
            }
        }
    }
}

/// The factor on a slope that fades to 0 over a share of the run; a share of 0 keeps it.
pub(super) fn fade(step: u64, steps: u64, over: f64) -> f64 {
    if over <= 0.0 { 1.0 } else { (1.0 - step as f64 / steps.max(1) as f64 / over).max(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_have_their_values_at_the_start_the_middle_and_the_end() {
        let at = |rate: &LearningRate| [0, 50, 75, 99].map(|step| (rate.factor(step, 100, 0.0) * 1e4).round() / 1e4);
        assert_eq!(at(&LearningRate::Constant), [1.0; 4]);
        assert_eq!(at(&LearningRate::Cosine), [1.0, 0.5, 0.1464, 0.0002]);
        assert_eq!(at(&LearningRate::Steps { at: vec![0.5, 0.75], factor: 0.1 }), [1.0, 0.1, 0.01, 0.01]);
    }

    #[test]
    fn schedules_survive_the_round_trip_and_wrong_ones_name_the_right_ones() {
        for text in ["constant", "cosine", "steps:0.5,0.75:0.1"] {
            assert_eq!(text.parse::<LearningRate>().map(|rate| rate.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "linear", "steps", "steps:2:0.1", "steps:0.5:x"] {
            assert!(text.parse::<LearningRate>().is_err_and(|error| error.to_string().contains("steps:0.5,0.75:0.1")));
        }
    }

    #[test]
    fn a_warm_up_rises_linearly_to_the_full_rate() {
        let warm = |step| (LearningRate::Constant.factor(step, 100, 0.1) * 10.0).round();
        assert_eq!([0, 4, 9, 50].map(warm), [1.0, 5.0, 10.0, 10.0]);
    }

    #[test]
    fn slopes_fade_to_zero_over_their_share() {
        assert_eq!([0, 20, 40, 90].map(|step| (fade(step, 100, 0.4) * 10.0).round()), [10.0, 5.0, 0.0, 0.0]);
        assert!((fade(99, 100, 0.0) - 1.0).abs() < 1e-12);
    }
}
