//! Which class of a judge a unit stands for.

use crate::Invalid;
use crate::network::{Model, Selection, Unit};

/// Index of the judge's class that a unit of a model stands for, matched by name, or by index if the two models have the
/// same classes, or equally many of which at least one model has no names. `None` if the unit is not a class.
///
/// # Errors
/// An [`Invalid`] `judges` if the unit is a class, and the judge does not have exactly one class for it.
pub fn class_of(model: &Model, unit: &Unit, judge: &Model) -> Result<Option<usize>, Invalid> {
    let Selection::Channel { channel, .. } = unit.selection else { return Ok(None) };
    if !is_class_layer(model, &unit.layer) {
        return Ok(None);
    }
    let refuse = |expected: String| Err(Invalid::new("judges", &judge.id, expected));
    let Some(logits) = judge.network.logits() else {
        return refuse("a classifier: its first output must be one vector of logits or probabilities".to_owned());
    };
    let count = judge.network.node(logits).shape.channels();
    let own = model.network.logits().map_or(0, |id| model.network.node(id).shape.channels());
    let unnamed = model.classes.is_empty() || judge.classes.is_empty();
    if unnamed || model.classes == judge.classes {
        return match own == count {
            true => Ok(Some(channel)),
            false => refuse(format!("a model with the {own} classes of {}, not {count}", model.id)),
        };
    }
    let Some(name) = model.classes.get(channel) else { return Ok(None) };
    let once = |model: &Model| model.classes.iter().filter(|class| class.eq_ignore_ascii_case(name)).count() == 1;
    match judge.classes.iter().position(|class| class.eq_ignore_ascii_case(name)) {
        Some(index) if once(model) && once(judge) => Ok(Some(index)),
        Some(_) => refuse(format!("a model with one class called {name}, or with exactly the classes of {}", model.id)),
        None => refuse(format!("a model with a class called {name}, like {}", model.id)),
    }
}

/// Whether a layer has the logits or probabilities of the classes.
fn is_class_layer(model: &Model, layer: &str) -> bool {
    let network = &model.network;
    let (Some(found), Some(logits)) = (network.find(layer), network.logits()) else { return false };
    let mut id = network.outputs().first().copied();
    while let Some(at) = id {
        if at == found {
            return true;
        }
        id = if at == logits { None } else { network.node(at).inputs.first().copied() };
    }
    false
}
