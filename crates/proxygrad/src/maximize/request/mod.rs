//! Requests: documents, presets, defaults, images, and how they resolve to settings for a model.

mod coarse;
mod defaults;
mod document;
mod images;
mod preset;
mod resolve;
mod settings;
mod several_presets;

pub use self::defaults::Filled;
pub use self::document::{Limits, Request};
pub use self::preset::Preset;
pub use self::resolve::Resolved;
pub use self::settings::Settings;
