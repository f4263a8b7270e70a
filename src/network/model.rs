//! A model: a network with the facts needed to show it images.

use super::calibration::Calibration;
use super::graph::Network;
use super::preprocessing::Preprocessing;
use super::unit::{Selection, Unit};

/// A network with frozen weights and its preprocessing, known by an id and a digest.
#[derive(Debug, Clone)]
pub struct Model {
    /// Key of the model, such as `efficientnet-lite0`.
    pub id: String,
    /// SHA-256 of the model's weight file, lower-case hexadecimal.
    pub digest: String,
    /// The graph with its weights.
    pub network: std::sync::Arc<Network>,
    /// From pixels to the network's input.
    pub preprocessing: Preprocessing,
    /// Names of the classes, in the order of the logits; empty when unknown.
    pub classes: Vec<String>,
    /// What natural images do to its units, when that was measured.
    pub calibration: Option<std::sync::Arc<Calibration>>,
}

impl Model {
    /// Name of the class whose logit (or probability) the unit is, when the model's classes are known.
    pub fn class_of(&self, unit: &Unit) -> Option<&str> {
        let id = self.network.find(&unit.layer)?;
        let is_output = self.network.outputs().contains(&id) && self.network.node(id).shape.len() == 1;
        match &unit.selection {
            Selection::Channel { channel, .. } if is_output => self.classes.get(*channel).map(String::as_str),
            _ => None,
        }
    }
}
