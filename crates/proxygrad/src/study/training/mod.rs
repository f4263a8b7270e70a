//! Studies of training: surrogates on the same networks, data and seeds.
//!
//! A [`TrainingDesign`] is read from a plan file; a [`TrainingPlan`] lists all runs. Runs with the same seed are paired:
//! they have the same training images, initial weights and order of batches. [`train_study`] runs a plan in a
//! [`Folder`](super::Folder), where an interrupted study resumes, and maximizes units of the trained networks as a
//! [`MaximaPlan`] says; [`training_report`] writes tables and a report.

mod design;
mod export;
mod maxima;
mod plan;
mod plots;
mod report;
mod row;
mod runner;
mod starts;
mod summary;
mod tables;

pub use design::{NetworkDesign, RecipePart, TrainingDesign};
pub use maxima::{ArmMaxima, GateMaxima, MaximaComparison, MaximaDesign, MaximaPlan, MaximumKey, MaximumRow};
pub use plan::{PlannedData, PlannedNetwork, PlannedRecipe, TrainingPlan};
pub use report::{training_report, training_summary};
pub use row::{TrainingKey, TrainingRow};
pub use runner::{StudyData, TrainingOptions, train_study};
pub use starts::StartModels;
pub use summary::{Course, Spread, TrainingArm, TrainingComparison, TrainingSummary, TrainingTable};
