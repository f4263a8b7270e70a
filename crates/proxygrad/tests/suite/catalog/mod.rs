//! The registry of models: pulling from a package index, folders of models, adding one's own.

mod add;
mod external;
mod folders;
#[cfg(feature = "pull")]
mod hub;
#[cfg(feature = "pull")]
mod hub_server;
#[cfg(feature = "pull")]
mod index;
#[cfg(feature = "pull")]
mod published;
#[cfg(feature = "pull")]
mod pull;
mod weights;
