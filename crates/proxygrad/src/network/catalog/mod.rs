//! The models a service knows: what there is, where it comes from, and how it becomes a [`Model`](super::Model).
//!
//! A model is a folder with a manifest, [`model.toml`](Manifest), and the files that it names. Folders are made by
//! hand, by [`Models::add`] from a user's own network, or by [`Models::pull`] from the [catalog](CatalogEntry); one
//! model is embedded in the program.

mod add;
mod archive;
mod builtin;
mod calibrations;
#[cfg(feature = "pull")]
mod download;
mod embedded;
mod entry;
mod error;
mod id;
mod load;
mod manifest;
mod models;
mod package_index;
mod pull;
mod pull_error;
mod shelf;
mod survey;

pub use add::{AddOptions, Assumption};
pub use builtin::{ArchiveKind, CatalogEntry};
pub use entry::{ModelEntry, ModelState};
pub use error::ModelError;
pub use id::check_id;
pub use manifest::{Classes, ColourStatistic, Manifest, ManifestError};
pub use models::{Added, Models, ModelsConfig, Pulled};
pub use package_index::{PackageIndex, Progress};
pub use pull_error::PullError;
