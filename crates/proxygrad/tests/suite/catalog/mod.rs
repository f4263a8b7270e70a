//! The registry of models: pulling from a package index, folders of models, adding one's own.

mod add;
mod external;
mod folders;
mod index;
mod pull;
mod weights;
