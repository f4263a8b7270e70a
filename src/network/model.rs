//! A model: a network with the facts needed to show it images.

use std::sync::Arc;

use super::calibration::Calibration;
use super::colour::ColourMatrix;
use super::graph::Network;
use super::preprocessing::Preprocessing;
use super::spectrum::Spectrum;
use super::unit::{Selection, Unit};

/// A network with frozen weights and its preprocessing, known by an id and a digest.
#[derive(Debug, Clone)]
pub struct Model {
    /// Key of the model, such as `efficientnet-lite0`.
    pub id: String,
    /// SHA-256 of the model's weight file, lower-case hexadecimal.
    pub digest: String,
    /// The graph with its weights.
    pub network: Arc<Network>,
    /// From pixels to the network's input.
    pub preprocessing: Preprocessing,
    /// Names of the classes, in the order of the logits; empty when unknown.
    pub classes: Vec<String>,
    /// What natural images do to its units, when that was measured.
    pub calibration: Option<Arc<Calibration>>,
    /// What is known of the images that it is at home with.
    pub statistics: Statistics,
}

/// What is known of the images that a model is at home with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// How their colours hang together.
    pub colour: Option<ColourMatrix>,
    /// Their magnitude spectrum.
    pub spectrum: Option<Arc<Spectrum>>,
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
