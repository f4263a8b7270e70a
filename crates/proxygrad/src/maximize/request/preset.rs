//! Presets: named combinations of settings.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::maximize::coarse::CoarseRequest;
use crate::maximize::gate_schedule::{GateKind, GateRequest};
use crate::maximize::optimizer::{Decay, OptimizerKind, OptimizerRequest};
use crate::maximize::parameterization::ParameterizationKind;
use crate::maximize::regularization::Regularizer;
use crate::maximize::start::Start;
use crate::maximize::transform::{Transform, TransformKind};

/// Named combination of settings. A preset fills in only what a request omits; the response shows the resulting
/// settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Images that people and other networks recognize: Fourier coefficients of decorrelated colours, Adam, gate `auto`,
    /// 192 steps. The first two thirds are a coarse stage on a smaller image, with crops at all scales and a penalty on
    /// total variation; the others use Lucid's transforms, scaled to the size of the image. The default.
    #[default]
    Readable,
    /// A high maximum rather than a recognizable image: pixels without transforms, momentum, the gate `decoupled`,
    /// 256 steps.
    Maximum,
    /// The highest maximum: like `maximum`, with the gate `auto` and 512 steps.
    Best,
    /// A quick result: like `readable`, with 64 steps.
    Fast,
    /// As in Lucid (Olah et al., "Feature Visualization", 2017): Fourier coefficients of decorrelated colours, Adam
    /// with step size 0.05, its usual transforms, 512 steps, gate `redirect`.
    Lucid,
    /// As in MACO (Fel et al., arXiv:2306.06805): phases under fixed magnitudes, Nadam with step size 1, noisy crops,
    /// 256 steps, gate `plain`.
    Maco,
    /// As in the ProxyGrad paper (Linse, Barth, Martinetz, arXiv:2410.16958): pixels, the gate `decoupled` with a fixed
    /// slope of 0.3, ascent along the normalized gradient from uniform noise, no transforms, 256 steps.
    ProxygradPaper,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 7] =
        [Self::Readable, Self::Maximum, Self::Best, Self::Fast, Self::Lucid, Self::Maco, Self::ProxygradPaper];
}

/// Settings of a preset.
pub(super) struct Choice {
    pub(super) gate: GateRequest,
    pub(super) steps: u32,
    pub(super) parameterization: ParameterizationKind,
    /// The optimizer for this parameterization; `None` for its default.
    pub(super) optimizer: Option<OptimizerRequest>,
    /// The optimizer's step size after the coarse stage; `None` for that of the optimizer.
    pub(super) refining_lr: Option<f32>,
    /// Coarse stage; `None` for none.
    pub(super) coarse: Option<CoarseRequest>,
    pub(super) transforms: Vec<Transform>,
    /// `None` for the parameterization's default.
    pub(super) start: Option<Start>,
}

/// Side in pixels of the images that Lucid's transforms were chosen for.
const LUCID_SIDE: f64 = 224.0;

/// Smallest side in pixels of an image that a coarse stage helps, and that its own image may have: smaller ones have no
/// room for crops at several scales.
pub(super) const SMALLEST_SIDE: usize = 96;

/// Lucid's random views of images of this side. Lucid pads by 12 and crops 8, then 4 pixels at random, so that the
/// image shifts by up to 4 and 2 pixels either way; six of its 26 angles are 0.
fn lucid_views(side: f64) -> Vec<Transform> {
    let pixels = |of_lucid: f64, most: f64| (of_lucid * side / LUCID_SIDE).round().clamp(1.0, most) as u32;
    let always = |kind| Transform { kind, probability: 1.0 };
    vec![
        always(TransformKind::Pad { pixels: pixels(12.0, 64.0) }),
        always(TransformKind::Jitter { pixels: pixels(4.0, 1024.0) }),
        always(TransformKind::Scale { low: 0.9, high: 1.1 }),
        Transform { kind: TransformKind::Rotate { degrees: 10.0 }, probability: 0.8 },
        always(TransformKind::Jitter { pixels: pixels(2.0, 1024.0) }),
    ]
}

/// Crops of a fifth to a half of each side, as in MACO.
fn maco_views() -> Vec<Transform> {
    let kinds = [TransformKind::Crop { low: 0.04, high: 0.25 }, TransformKind::Noise { sd: 0.08 }];
    kinds.map(|kind| Transform { kind, probability: 1.0 }).into()
}

/// The coarse stage of readable images: crops of a twelfth to all of the image, in which the objective must be met at
/// every scale, and a penalty on total variation, which keeps out the texture that other networks do not recognize.
fn composition() -> CoarseRequest {
    let crop = Transform { kind: TransformKind::Crop { low: 0.08, high: 1.0 }, probability: 1.0 };
    let rotate = Transform { kind: TransformKind::Rotate { degrees: 10.0 }, probability: 0.8 };
    CoarseRequest {
        share: Some(2.0 / 3.0),
        scale: Some(5.0 / 7.0),
        lr: Some(0.03),
        transforms: Some(vec![crop, rotate]),
        regularizers: Some(vec![Regularizer::TotalVariation { weight: 0.5 }]),
    }
}

impl Preset {
    /// Its name in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Readable => "readable",
            Self::Maximum => "maximum",
            Self::Best => "best",
            Self::Fast => "fast",
            Self::Lucid => "lucid",
            Self::Maco => "maco",
            Self::ProxygradPaper => "proxygrad-paper",
        }
    }

    /// Settings for images of height and width `size`.
    pub(super) fn choice(self, size: [usize; 2]) -> Choice {
        let optimizer = |kind, lr| Some(OptimizerRequest { kind, lr: Some(lr), decay: Some(Decay::None) });
        let readable = |steps| Choice {
            gate: GateKind::Auto.into(),
            steps,
            parameterization: ParameterizationKind::Fourier,
            optimizer: optimizer(OptimizerKind::Adam, 0.05),
            refining_lr: Some(0.02),
            coarse: (size[0].min(size[1]) >= SMALLEST_SIDE).then(composition),
            transforms: lucid_views(size[0].min(size[1]) as f64),
            start: None,
        };
        let pixels = |gate, steps| Choice {
            gate,
            steps,
            parameterization: ParameterizationKind::Pixel,
            optimizer: None,
            refining_lr: None,
            coarse: None,
            transforms: Vec::new(),
            start: None,
        };
        match self {
            Self::Readable => readable(192),
            Self::Fast => readable(64),
            Self::Maximum => pixels(GateKind::Decoupled.into(), 256),
            Self::Best => pixels(GateKind::Auto.into(), 512),
            Self::Lucid => Choice {
                gate: GateKind::Redirect.into(),
                coarse: None,
                transforms: lucid_views(LUCID_SIDE),
                ..readable(512)
            },
            Self::Maco => Choice {
                gate: GateKind::Plain.into(),
                steps: 256,
                parameterization: ParameterizationKind::Maco,
                optimizer: optimizer(OptimizerKind::Nadam, 1.0),
                refining_lr: None,
                coarse: None,
                transforms: maco_views(),
                start: None,
            },
            Self::ProxygradPaper => {
                let (slope, anneal, polish) = (Some(0.3), Some(0.0), Some(0.0));
                Choice {
                    optimizer: Some(OptimizerRequest {
                        kind: OptimizerKind::L2Ascent,
                        lr: None,
                        decay: Some(Decay::None),
                    }),
                    start: Some(Start::Uniform),
                    ..pixels(GateRequest { slope, anneal, polish, ..GateKind::Decoupled.into() }, 256)
                }
            }
        }
    }
}
