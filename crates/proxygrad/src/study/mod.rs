//! Studies: compare settings on the same units, from the same starts, with the same number of passes.
//!
//! A [`Plan`] lists all runs and is complete before the first one. [`run()`] runs it in a [`Folder`], where an
//! interrupted study resumes; [`report()`] writes tables and a report of the runs done. [`training`] does the same for
//! networks that are trained.

mod error;
mod execute;
mod folder;
mod json;
mod judging;
mod memory;
mod plan;
mod readability;
mod report;
mod request;
mod row;
mod runner;
mod summary;
mod toy;
pub mod training;
mod variant;

pub use error::StudyError;
pub use execute::{Progress, ProgressCallback};
pub use folder::Folder;
pub use plan::{Bounds, Design, Plan, PlannedLayer, PlannedModel, PlannedPart, PlannedSettings, Toys};
pub use readability::Readability;
pub use report::{page, report, summary};
pub use request::{DEFAULTS, Defaults, ModelChoice, ModelLayers, StudyRequest, VariantChoice};
pub use row::{COURSE, Row, RunKey};
pub use runner::{RunOptions, StepResult, StudyRunner, render_exhibits, run};
pub use summary::{
    ArmOnUnit, ArmSummary, Comparison, ComparisonOptions, JudgeSummary, PairedComparison, ReadabilitySummary,
    Recognized, Section, SignTest, Summary, UnitScores,
};
pub use toy::{REACHED, ToyRow, ToySummary};
pub use variant::{Fields, Variant, Variants, merged};
