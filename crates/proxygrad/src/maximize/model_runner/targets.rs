//! The layers of a network that a batch of tasks reads.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::Target;
use crate::maximize::diversity::Penalty;
use crate::maximize::error::MaximizeError;
use crate::maximize::request::Settings;
use crate::maximize::task::Task;
use crate::network::{Model, NodeId, Selection};

/// The layers of these names.
fn layers<'a>(
    model: &Model,
    names: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<&'a str, NodeId>, MaximizeError> {
    let layer = |name: &'a String| {
        let id = model.network.layer(name).map_err(|_| MaximizeError::Layer(name.to_owned()))?;
        Ok((name.as_str(), id))
    };
    names.map(layer).collect()
}

/// The channels of a layer that the objectives of some tasks look at; none are named where one looks at all.
fn channels(tasks: &[Task], layer: &str) -> Option<BTreeSet<usize>> {
    let units = tasks.iter().flat_map(|task| &task.objective.terms).map(|term| &term.unit);
    let channel = |selection: &Selection| match *selection {
        Selection::Channel { channel, .. } | Selection::Neuron { channel, .. } => Some(channel),
        _ => None,
    };
    units.filter(|unit| unit.layer == layer).map(|unit| channel(&unit.selection)).collect()
}

/// What of a network some tasks and their settings look at.
pub(in crate::maximize) struct Aimed<'a> {
    /// Names of the target layers.
    pub(super) layers: Vec<&'a str>,
    /// The same layers.
    pub(in crate::maximize) ids: Vec<NodeId>,
    /// Those of them that objectives look at.
    pub(super) objectives: Vec<NodeId>,
    pub(in crate::maximize) targets: Vec<Target>,
    pub(super) penalty: Option<Penalty>,
}

impl<'a> Aimed<'a> {
    pub(in crate::maximize) fn new(
        model: &Model,
        tasks: &'a [Task],
        settings: &'a Settings,
    ) -> Result<Self, MaximizeError> {
        let terms = tasks.iter().flat_map(|task| &task.objective.terms);
        let mut layers_by_name = layers(model, terms.map(|term| &term.unit.layer))?;
        let objectives: Vec<NodeId> = layers_by_name.values().copied().collect();
        layers_by_name.extend(layers(model, settings.diversity.iter().map(|diversity| &diversity.layer))?);
        let (layers, ids): (Vec<&str>, Vec<NodeId>) = layers_by_name.into_iter().unzip();
        let penalty = settings.diversity.as_ref().and_then(|diversity| {
            let target = layers.iter().position(|&name| name == diversity.layer)?;
            Some(Penalty { target, weight: f64::from(diversity.weight) })
        });
        let target = |(t, (&layer, &name)): (usize, (&NodeId, &&str))| {
            let is_compared = penalty.as_ref().is_some_and(|penalty| penalty.target == t);
            Target { layer, channels: if is_compared { None } else { channels(tasks, name) } }
        };
        let targets = ids.iter().zip(&layers).enumerate().map(target).collect();
        Ok(Self { layers, ids, objectives, targets, penalty })
    }
}
