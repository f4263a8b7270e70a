//! Activation maximization: from a request to stimuli and the maxima they reach.

mod animation;
mod arm;
mod ascent;
mod best;
mod calm;
mod canvas;
mod certificate;
mod contest;
mod diversity;
mod document;
mod gate_schedule;
mod halving;
mod host;
mod leash;
mod levels;
mod located;
mod objective;
mod optimizer;
mod outcome;
mod parameterization;
mod passes;
mod picture;
mod pixels;
mod preset;
mod regularizer;
mod request;
mod run;
mod scales;
mod scoring;
mod search;
mod settings;
mod start;
mod transform;
mod view;

pub use animation::Animation;
pub use certificate::{Certificates, Gain, NaturalMissing, Robust, Stationarity};
pub use diversity::Diversity;
pub(crate) use document::string_or_object;
pub use gate_schedule::{GateKind, GateRequest, GateSchedule};
pub use halving::{Halving, SearchRequest};
pub use objective::{Objective, ObjectiveDocument, Term};
pub use optimizer::{Decay, Optimizer, OptimizerKind, OptimizerRequest};
pub use outcome::{ArmFindings, Findings, Observer, Outcome, Point, Unobserved, Warning};
pub use parameterization::{
    Colour, Parameterization, ParameterizationKind, ParameterizationRequest, SpectrumError, SpectrumKind,
};
pub use picture::{Picture, Pictures};
pub use preset::{Filled, Preset};
pub use regularizer::Regularizer;
pub use request::{Limits, Request, Resolved};
pub use run::{MaximizeError, Task, maximize};
pub use settings::Settings;
pub use start::Start;
pub use transform::{Transform, TransformKind};
