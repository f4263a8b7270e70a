//! A model: a network with its preprocessing, class names and statistics.

use std::sync::Arc;

use super::calibration::Calibration;
use super::class_names;
use super::colour::ColourMatrix;
use super::graph::{Network, NodeId};
use super::preprocessing::Preprocessing;
use super::spectrum::Spectrum;
use super::unit::{Selection, Unit};
use crate::Invalid;

/// A network with frozen weights and its preprocessing, identified by an id and a digest.
#[derive(Debug, Clone)]
pub struct Model {
    /// Key of the model, such as `efficientnet-lite0`.
    pub id: String,
    /// SHA-256 of the model's weights, lower-case hexadecimal: see [`ModelEntry`](super::catalog::ModelEntry).
    pub digest: String,
    /// The graph with its weights.
    pub network: Arc<Network>,
    /// Preprocessing from pixels to the network's input.
    pub preprocessing: Preprocessing,
    /// Names of the classes, in the order of the logits; empty when unknown.
    pub classes: Vec<String>,
    /// Activations of its units on natural images, if measured.
    pub calibration: Option<Arc<Calibration>>,
    /// Statistics of images from its domain.
    pub statistics: ImageStatistics,
}

/// Statistics of images from a model's domain.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageStatistics {
    /// Their colour decorrelation matrix.
    pub colour: Option<ColourMatrix>,
    /// Their magnitude spectrum.
    pub spectrum: Option<Arc<Spectrum>>,
}

impl Model {
    /// Name of the class whose logit (or probability) the unit is, if the class names are known.
    pub fn class_of(&self, unit: &Unit) -> Option<&str> {
        match &unit.selection {
            Selection::Channel { channel, .. } if self.names_classes(&unit.layer) => {
                self.classes.get(*channel).map(String::as_str)
            }
            _ => None,
        }
    }

    /// Replaces a class name in a unit by the class index.
    ///
    /// # Errors
    /// When the layer has no classes, or the name does not belong to exactly one class.
    pub fn resolve_class(&self, unit: &Unit) -> Result<Unit, Invalid> {
        let Selection::Class { name, reduction } = &unit.selection else { return Ok(unit.clone()) };
        if !self.names_classes(&unit.layer) {
            let layers = self.network.layers().map(|layer| layer.name).filter(|name| self.names_classes(name));
            let layers: Vec<&str> = layers.collect();
            let expected = match layers.as_slice() {
                [] => "an index: this model has no class names".to_owned(),
                layers => format!("an index: only {} has class names", layers.join(", ")),
            };
            return Err(Invalid::new("class", name, expected));
        }
        let channel = class_names::find(&self.classes, name)?;
        Ok(Unit { layer: unit.layer.clone(), selection: Selection::Channel { channel, reduction: *reduction } })
    }

    /// Whether a layer has one channel per class name: it is an output `[K]` (or a scalar, for one class), or the input
    /// of an output softmax.
    fn names_classes(&self, layer: &str) -> bool {
        let Some(id) = self.network.find(layer) else { return false };
        let is_output = |id: NodeId| self.network.outputs().contains(&id);
        let node = self.network.node(id);
        let outputs = self.network.outputs().iter().map(|&output| self.network.node(output));
        let below_softmax = outputs.filter(|output| output.op.is_softmax()).any(|softmax| softmax.inputs.contains(&id));
        let one_each = node.shape.len() <= 1 && node.shape.channels() == self.classes.len();
        one_each && (is_output(id) || below_softmax)
    }
}
