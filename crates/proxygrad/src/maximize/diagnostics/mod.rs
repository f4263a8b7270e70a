//! Diagnostics of a maximum, measured after a run.

pub(super) mod document;
mod evaluator;
mod gain;
mod measure;
mod natural;
mod naturalness;
pub(super) mod request;
mod robust;
mod spectrum;
mod stationarity;

pub use self::document::{Diagnostics, Gain, NaturalMissing, Robust, Stationarity};
pub(super) use self::measure::add_diagnostics;
pub use self::naturalness::Naturalness;
pub use self::request::{DiagnosticsRequest, JudgesRequest};
