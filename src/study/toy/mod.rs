//! Toy functions whose best value is known.

use serde::{Deserialize, Serialize};

/// How many toys, and how many starts each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toys {
    /// Random networks of each random kind.
    pub networks: u32,
    /// Starts of each network.
    pub starts: u32,
    /// Steps of an arm whose step costs two passes.
    pub steps: u32,
}
