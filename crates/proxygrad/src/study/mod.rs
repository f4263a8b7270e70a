//! Studies: the same units, starts and passes under several settings, and what the difference comes to.
//!
//! A [`Plan`] says what runs, and is complete before anything does. [`run()`] runs it in a [`Folder`], where a stopped
//! study goes on; [`report()`] makes tables and a page of what is there.

mod csv;
mod error;
mod execute;
mod folder;
mod json;
mod memory;
mod plan;
mod report;
mod request;
mod row;
mod runner;
pub mod statistics;
mod summary;
mod toy;
mod variant;

pub use error::StudyError;
pub use execute::{Progress, ProgressCallback};
pub use folder::Folder;
pub use plan::{Bounds, Design, Plan, PlannedLayer, PlannedModel, PlannedSettings};
pub use report::{page, report, summary};
pub use request::{DEFAULTS, Defaults, ModelChoice, ModelLayers, StudyRequest, VariantChoice};
pub use row::{COURSE, Row, RunKey};
pub use runner::{RunOptions, StepResult, StudyRunner, render_exhibits, run};
pub use summary::{ArmOnUnit, ArmSummary, ComparisonOptions, PairedComparison, Section, Summary, Table, UnitScores};
pub use toy::{REACHED, ToyRow, ToySummary, Toys};
pub use variant::{Fields, Variant, Variants, merged};
