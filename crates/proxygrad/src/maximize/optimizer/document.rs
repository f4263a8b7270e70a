//! Documents of optimizers.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::Invalid;
use crate::maximize::parameterization::ParameterizationKind;
use crate::maximize::string_or_object::{string_or_object, string_or_object_schema};

/// Rules that turn a gradient into a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// `x += lr * g / |g|` with the Euclidean norm of the stimulus' whole gradient: every step has length `lr`, unless
    /// the gradient is zero.
    L2Ascent,
    /// `x += lr * g / sigma`, where `sigma` is the largest singular value (spectral norm) of the stimulus' gradient as
    /// a matrix of `channels * height` rows and `width` columns, from eight power iterations that start at the longest
    /// row. No step for a zero gradient.
    SpectralAscent,
    /// Steepest ascent in the L3 norm, `d = sign(g) * sqrt|g|`, with heavy-ball momentum 0.8: every step has root mean
    /// square `lr` over the pixels with a gradient, spent on those that can move within [0, 1].
    Momentum,
    /// Adam (Kingma & Ba, arXiv:1412.6980, algorithm 1) with beta 0.9 and 0.999, epsilon 1e-8, ascending.
    Adam,
    /// Adam with Nesterov momentum (Dozat, "Incorporating Nesterov Momentum into Adam", 2016), with constant betas,
    /// epsilon 1e-8, ascending.
    Nadam,
}

impl OptimizerKind {
    /// The rule with the highest scores after a few hundred steps, for this parameterization, with or without random
    /// views. Momentum makes pixels noisy with random views.
    pub fn of(changed: ParameterizationKind, views: bool) -> Self {
        match changed {
            ParameterizationKind::Pixel if views => Self::L2Ascent,
            ParameterizationKind::Pixel => Self::Momentum,
            ParameterizationKind::Fourier => Self::Adam,
            ParameterizationKind::Maco => Self::L2Ascent,
        }
    }
}

/// How the step size changes over a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Constant.
    #[default]
    None,
    /// Half a cosine from `lr` down to 0: step `t` of `T`, counted from 0, has step size
    /// `lr / 2 * (1 + cos(pi * t / T))` (Loshchilov & Hutter, arXiv:1608.03983, equation 5, without restarts).
    Cosine,
}

/// An optimizer with defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Optimizer {
    /// The rule.
    pub kind: OptimizerKind,
    /// Step size in units of the parameters (pixel values of range [0, 1], coefficients, radians): the Euclidean norm
    /// of a step (`l2-ascent`), its spectral norm (`spectral-ascent`), its root mean square over parameters with a
    /// gradient (`momentum`), or the size of a step of each value (`adam`, `nadam`).
    pub lr: f32,
    /// How the step size changes over the run.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub decay: Decay,
}

/// An optimizer as in a request. May be written as a string, its kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptimizerRequest {
    /// The rule.
    pub kind: OptimizerKind,
    /// Step size, greater than 0 and at most 1000; default: chosen by parameterization and image size.
    pub lr: Option<f32>,
    /// How the step size changes over the run; default: `cosine` for `momentum`, else `none`.
    pub decay: Option<Decay>,
}

/// An optimizer and its step size.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = OptimizerObject))]
#[serde(deny_unknown_fields)]
struct Full {
    /// The rule.
    kind: OptimizerKind,
    /// Step size in units of the parameters (pixel values of range [0, 1], coefficients, radians); default: chosen by
    /// parameterization and image size.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0, maximum = 1000))]
    lr: Option<f32>,
    /// How the step size changes over the run; default: `cosine` for `momentum`, else `none`.
    decay: Option<Decay>,
}

string_or_object_schema!(
    OptimizerRequest,
    OptimizerKind,
    Full,
    "An optimizer: its kind, or an object; omitted fields get defaults."
);

impl From<Full> for OptimizerRequest {
    fn from(Full { kind, lr, decay }: Full) -> Self {
        Self { kind, lr, decay }
    }
}

impl From<OptimizerKind> for OptimizerRequest {
    /// The kind with default settings.
    fn from(kind: OptimizerKind) -> Self {
        Self { kind, lr: None, decay: None }
    }
}

impl FromStr for OptimizerRequest {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let kind = match text {
            "l2-ascent" => OptimizerKind::L2Ascent,
            "spectral-ascent" => OptimizerKind::SpectralAscent,
            "momentum" => OptimizerKind::Momentum,
            "adam" => OptimizerKind::Adam,
            "nadam" => OptimizerKind::Nadam,
            _ => return Err(Invalid::new("kind", text, "l2-ascent, spectral-ascent, momentum, adam or nadam")),
        };
        Ok(Self::from(kind))
    }
}

impl<'de> Deserialize<'de> for OptimizerRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string_or_object::<D, Self, Full>(deserializer, "an optimizer's kind as text, or an object with a kind")
    }
}

impl OptimizerRequest {
    /// Fills in defaults for images `[C,H,W]` and a parameterization.
    ///
    /// # Errors
    /// When the step size is out of range.
    pub fn resolve(
        &self,
        [channels, height, width]: [usize; 3],
        changed: ParameterizationKind,
    ) -> Result<Optimizer, Invalid> {
        let rates = Rates::of(changed);
        let [rows, columns] = [channels * height, width].map(|length| length as f64);
        let default = match self.kind {
            OptimizerKind::L2Ascent => round(rates.step * (rows * columns).sqrt()),
            OptimizerKind::SpectralAscent => round(2.0 * rates.step * (rows.sqrt() + columns.sqrt())),
            OptimizerKind::Momentum => rates.momentum,
            OptimizerKind::Adam | OptimizerKind::Nadam => rates.adam,
        };
        let lr = self.lr.unwrap_or(default);
        if !(lr > 0.0 && lr <= 1000.0) {
            return Err(Invalid::new("lr", lr, "a number greater than 0 and at most 1000"));
        }
        let decay = match self.kind {
            OptimizerKind::Momentum => Decay::Cosine,
            _ => Decay::None,
        };
        Ok(Optimizer { kind: self.kind, lr, decay: self.decay.unwrap_or(decay) })
    }
}

/// Default step sizes.
struct Rates {
    /// Root mean square of every `l2-ascent` step, and about that of `spectral-ascent` steps. The spectral norm of a
    /// matrix of independent values is about `sqrt(rows) + sqrt(columns)` times their size; gradients of networks have
    /// structure, and about twice that.
    step: f64,
    /// Root mean square of the first step of `momentum` over the values with a gradient.
    momentum: f32,
    /// Step size of `adam` and `nadam`.
    adam: f32,
}

impl Rates {
    /// Step sizes that reach high maxima within a few hundred steps.
    fn of(changed: ParameterizationKind) -> Self {
        match changed {
            ParameterizationKind::Pixel => Self { step: 0.005, momentum: 0.08, adam: 0.02 },
            ParameterizationKind::Fourier => Self { step: 0.02, momentum: 0.03, adam: 0.1 },
            ParameterizationKind::Maco => Self { step: 0.05, momentum: 0.1, adam: 0.3 },
        }
    }
}

/// Rounds to two significant digits, which are easy to write down.
fn round(x: f64) -> f32 {
    let unit = 10f64.powf(x.log10().floor() - 1.0);
    ((x / unit).round() * unit) as f32
}
