//! Target layers: the layers and channels of a network that a batch of tasks reads.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::Target;
use crate::maximize::diversity::DiversityPenalty;
use crate::maximize::error::MaximizeError;
use crate::maximize::request::Settings;
use crate::maximize::task::Task;
use crate::network::{Model, NodeId, Selection};

/// Targets of a plan for some tasks and their settings.
pub(in crate::maximize) struct Targets<'a> {
    /// Names of the target layers.
    pub(super) layers: Vec<&'a str>,
    /// Nodes of the target layers, in the same order.
    pub(in crate::maximize) ids: Vec<NodeId>,
    /// Nodes that objectives read: all but the layer of the diversity penalty, unless an objective reads that too.
    pub(super) objective_layers: Vec<NodeId>,
    pub(in crate::maximize) targets: Vec<Target>,
    pub(super) diversity: Option<DiversityPenalty>,
}

impl<'a> Targets<'a> {
    pub(in crate::maximize) fn new(
        model: &Model,
        tasks: &'a [Task],
        settings: &'a Settings,
    ) -> Result<Self, MaximizeError> {
        let terms = tasks.iter().flat_map(|task| &task.objective.terms);
        let mut nodes_by_layer = nodes_by_layer(model, terms.map(|term| &term.unit.layer))?;
        let objective_layers: Vec<NodeId> = nodes_by_layer.values().copied().collect();
        let compared = settings.diversity.iter().map(|diversity| &diversity.layer);
        nodes_by_layer.extend(self::nodes_by_layer(model, compared)?);
        let (layers, ids): (Vec<&str>, Vec<NodeId>) = nodes_by_layer.into_iter().unzip();
        let diversity = settings.diversity.as_ref().and_then(|diversity| {
            let target = layers.iter().position(|&name| name == diversity.layer)?;
            Some(DiversityPenalty { target, weight: f64::from(diversity.weight) })
        });
        let target = |(t, (&layer, &name)): (usize, (&NodeId, &&str))| {
            let is_compared = diversity.as_ref().is_some_and(|diversity| diversity.target == t);
            Target { layer, channels: if is_compared { None } else { channels(tasks, name) } }
        };
        let targets = ids.iter().zip(&layers).enumerate().map(target).collect();
        Ok(Self { layers, ids, objective_layers, targets, diversity })
    }
}

fn nodes_by_layer<'a>(
    model: &Model,
    layers: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<&'a str, NodeId>, MaximizeError> {
    let node = |layer: &'a String| {
        let id = model.network.layer(layer).map_err(|_| MaximizeError::Layer(layer.to_owned()))?;
        Ok((layer.as_str(), id))
    };
    layers.map(node).collect()
}

/// The channels of a layer that the objectives of some tasks read; `None` if one of them reads all.
fn channels(tasks: &[Task], layer: &str) -> Option<BTreeSet<usize>> {
    let units = tasks.iter().flat_map(|task| &task.objective.terms).map(|term| &term.unit);
    let channel = |selection: &Selection| match *selection {
        Selection::Channel { channel, .. } | Selection::Neuron { channel, .. } => Some(channel),
        _ => None,
    };
    units.filter(|unit| unit.layer == layer).map(|unit| channel(&unit.selection)).collect()
}
