//! Summary of a study: arms compared unit by unit.

mod comparison;
mod export;
mod options;
mod readability;
mod types;

pub(super) use comparison::summarize;
pub use options::ComparisonOptions;
pub use readability::{JudgeSummary, ReadabilitySummary, Recognized, SignTest};
pub use types::{ArmOnUnit, ArmSummary, Comparison, PairedComparison, Section, Summary, UnitScores};
