//! Model registry: finds, pulls, adds and loads models by id.
//!
//! A model is a folder with a manifest, [`model.toml`](Manifest), and the files that it names. Folders are created by
//! hand, by [`Models::add`] from a user's own network, by [`Models::add_from_hub`] from a repository of the Hugging Face
//! Hub, or by [`Models::pull`] from the [catalog](CatalogEntry); one model is embedded in the program.

mod add;
mod archive;
mod builtin;
mod calibrations;
mod class_list;
mod discovery;
#[cfg(feature = "pull")]
mod download;
mod entry;
mod error;
#[cfg(feature = "pull")]
mod http;
mod hub;
mod id;
mod load;
mod manifest;
mod model_dir;
mod models;
mod package_index;
mod pull;
mod pull_error;

pub use add::{AddOptions, Assumption};
pub use builtin::{ArchiveKind, CatalogEntry};
pub use entry::{ModelEntry, ModelState};
pub use error::ModelError;
#[cfg(feature = "pull")]
pub use http::install_crypto_provider;
pub use hub::{Hub, HubAddress};
pub use id::check_id;
pub use manifest::{Classes, ColourStatistic, Manifest, ManifestError};
pub use models::{Added, Models, ModelsConfig, Pulled};
pub use package_index::{PackageIndex, Progress};
pub use pull_error::PullError;
