//! Activation maximization: from a request to stimuli and the maxima they reach.

mod animation;
mod callback;
mod coarse;
mod diagnostics;
mod diversity;
mod enlarge;
mod error;
mod gate_schedule;
mod halving;
mod image8;
mod memory;
mod model_runner;
mod objective;
mod ops;
mod optimizer;
mod outcome;
mod parameterization;
mod preprocessor;
mod projection;
mod reference_image;
mod regularization;
mod request;
mod run;
mod start;
mod string_or_object;
mod task;
mod transform;

pub use animation::Animation;
pub(crate) use callback::OffsetCallback;
pub use callback::{Callback, NoCallback};
pub use coarse::{Coarse, CoarseRequest};
pub use diagnostics::{
    Diagnostics, DiagnosticsRequest, Gain, JudgesRequest, NaturalMissing, Naturalness, Robust, Stationarity,
};
pub use diversity::Diversity;
pub use error::MaximizeError;
pub use gate_schedule::{GateKind, GateRequest, GateSchedule};
pub use halving::{Halving, SearchRequest};
pub use memory::{MemoryEstimate, TooLarge, outcome_bytes, plan_batches};
pub use objective::{Objective, ObjectiveDocument, Term};
pub use optimizer::{Decay, Optimizer, OptimizerKind, OptimizerRequest};
pub use outcome::{ArmFindings, Findings, Outcome, Point, Warning};
pub use parameterization::{
    Colour, Parameterization, ParameterizationKind, ParameterizationRequest, SpectrumError, SpectrumKind,
};
pub use reference_image::{ReferenceImage, ReferenceImages};
pub use regularization::Regularizer;
pub use request::{Filled, Limits, Preset, Request, Resolved, Settings};
pub use run::{judges_too_large, maximize, maximize_judged, maximize_within};
pub use start::Start;
pub(crate) use string_or_object::string_or_object;
pub use task::Task;
pub use transform::{Transform, TransformKind};
