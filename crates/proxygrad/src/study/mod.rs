//! Studies: the same units, starts and passes under several settings, and what the difference comes to.
//!
//! A [`Plan`] says what runs, and is complete before anything does. [`perform()`] runs it in a [`Folder`], where a stopped
//! study goes on; [`report()`] makes tables and a page of what is there.

mod error;
mod folder;
mod memory;
mod perform;
mod plan;
mod report;
mod request;
mod row;
pub mod statistics;
mod summary;
mod table;
mod toy;
mod variant;

pub use error::StudyError;
pub use folder::Folder;
pub use perform::{Manner, Performance, Progress, Turn, Watch, exhibit, perform};
pub use plan::{Bounds, Design, Plan, PlannedLayer, PlannedModel, PlannedSettings};
pub use report::{page, report, summary};
pub use request::{DEFAULTS, Defaults, ModelChoice, ModelLayers, StudyRequest, VariantChoice};
pub use row::{COURSE, Row, RunKey};
pub use summary::{ArmOnUnit, ArmSummary, Contest, Section, Summary, Table, UnitScores, View};
pub use toy::{REACHED, ToyRow, ToySummary, Toys};
pub use variant::{Fields, Variant, Variants, laid_over};
