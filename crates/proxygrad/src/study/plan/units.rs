//! Choice of units: layers spread by depth, and units drawn from them by the seed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::types::{Design, PlannedLayer, PlannedPart};
use crate::Invalid;
use crate::network::{Model, Network, NodeId, Op, Selection, Unit};

/// Number of layers chosen if none are named.
const DEFAULT_LAYERS: usize = 4;

/// Checks that this is a reduction of a channel to a number.
pub(super) fn check_reduce(reduce: &str) -> Result<(), Invalid> {
    let unit: Option<Unit> = if reduce.is_empty() { None } else { format!("x:0@{reduce}").parse().ok() };
    match unit.map(|unit| unit.selection) {
        Some(Selection::Channel { .. }) => Ok(()),
        None if reduce.is_empty() => Ok(()),
        _ => Err(Invalid::new("reduce", reduce, "mean, center, max or topF, such as top0.25")),
    }
}

/// The layers of a model with the units drawn from them.
pub(super) fn planned_layers(design: &Design, model: &Model, layers: &[String]) -> Result<Vec<PlannedLayer>, Invalid> {
    let network = &model.network;
    let logits = network.logits();
    let named: Vec<String> = match layers {
        [] => spread(&activations(network)).into_iter().map(|id| network.node(id).name.clone()).collect(),
        layers => layers.to_vec(),
    };
    let mut planned: Vec<PlannedLayer> = Vec::new();
    let wanted = named.iter().filter(|_| design.units_per_layer > 0).map(|name| (name.clone(), design.units_per_layer));
    let wanted = wanted.collect::<Vec<_>>().into_iter();
    let output = logits.filter(|_| design.logits > 0).map(|id| (network.node(id).name.clone(), design.logits));
    for (i, (layer, count)) in wanted.chain(output).enumerate() {
        // What follows the @ may be a token of the layer.
        let reduced = if network.find(&layer).is_some() { None } else { layer.rsplit_once('@') };
        let (name, reduce) = reduced.unwrap_or((&layer, &design.reduce));
        // A layer may have several names.
        let name = network.find(name).map_or(name, |id| &network.node(id).name);
        let locate = |error| Invalid { field: format!("layers[{i}]"), ..error };
        if planned.iter().any(|earlier| earlier.name == name) {
            return Err(locate(Invalid::new("", name, "each layer once; logits are drawn separately")));
        }
        planned.push(draw(design.seed, model, name, reduce, count).map_err(locate)?);
    }
    Ok(planned)
}

/// Draws units of a layer. The choice depends only on the seed, the model and the layer.
pub(in crate::study) fn draw(
    seed: u64,
    model: &Model,
    layer: &str,
    reduce: &str,
    count: usize,
) -> Result<PlannedLayer, Invalid> {
    let network = &model.network;
    let unit = |channel: usize| -> Result<Unit, Invalid> {
        let id = network.find(layer);
        let is_map = id.is_some_and(|id| network.node(id).shape.feature_map().is_some());
        let text = match (is_map, reduce) {
            (false, _) | (true, "mean" | "") => format!("{layer}:{channel}"),
            (true, reduce) => format!("{layer}:{channel}@{reduce}"),
        };
        let unit: Unit =
            text.parse().map_err(|_| Invalid::new("", layer, "NAME or NAME@REDUCTION, such as conv1@center"))?;
        if !matches!(unit.selection, Selection::Channel { .. }) {
            return Err(Invalid::new("", format!("{layer}@{reduce}"), "mean, center, max or topF after the @"));
        }
        network.layer(&unit.layer).and_then(|id| unit.check(&network.node(id).shape))?;
        Ok(unit)
    };
    // Also checks that the layer exists.
    let id = network.find(&unit(0)?.layer).unwrap_or(Network::INPUT);
    let channels = network.node(id).shape.channels();
    let mut stream = [0u8; 8];
    stream.copy_from_slice(&Sha256::digest(format!("{} {layer}", model.id))[..8]);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from_le_bytes(stream));
    let mut left: Vec<usize> = (0..channels).collect();
    let drawn = (0..count.min(channels)).map(|_| left.swap_remove(rng.random_range(0..left.len())));
    let units = drawn.map(unit).collect::<Result<Vec<Unit>, Invalid>>()?;
    let classes: Option<Vec<String>> = units.iter().map(|unit| model.class_of(unit).map(str::to_owned)).collect();
    let units = units.iter().map(Unit::to_string).collect();
    let part = if reduce == "center" { PlannedPart::of_centre(network, layer) } else { None };
    Ok(PlannedLayer { name: layer.to_owned(), units, classes: classes.unwrap_or_default(), part })
}

/// Activations with feature maps below the logits.
pub(in crate::study) fn activations(network: &Network) -> Vec<NodeId> {
    let below = match network.logits() {
        Some(logits) => network.below(&[logits]),
        None => (0..network.nodes().len()).map(NodeId).collect(),
    };
    let is_activation = |id: &NodeId| {
        let shape = &network.node(network.shown(*id)).shape;
        matches!(network.node(*id).op, Op::Activation(_)) && shape.feature_map().is_some()
    };
    below.into_iter().filter(is_activation).collect()
}

/// Some of these layers, spread evenly.
fn spread(layers: &[NodeId]) -> Vec<NodeId> {
    let chosen = DEFAULT_LAYERS.min(layers.len());
    (0..chosen).map(|i| layers[(2 * i + 1) * layers.len() / (2 * chosen)]).collect()
}
