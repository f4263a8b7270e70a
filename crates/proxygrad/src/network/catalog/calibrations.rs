//! Which calibration a model is loaded with.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::network::Model;
use crate::network::calibration::Calibration;

/// What changes when somebody calibrates a model anew: when its index was written and how long it is.
pub(super) type Stamp = Option<(SystemTime, u64)>;

/// The state of the calibration in `folder`.
pub(super) fn stamp(folder: Option<&Path>) -> Stamp {
    let index = std::fs::metadata(folder?.join(Calibration::INDEX)).ok()?;
    Some((index.modified().ok()?, index.len()))
}

/// The model with the calibration in `folder`, if there is one and it belongs to these weights. One that cannot be used
/// is as good as none: the model itself works without.
pub(super) fn with(model: Model, folder: Option<&Path>) -> Model {
    let calibration = folder.filter(|folder| folder.join(Calibration::INDEX).exists()).and_then(|folder| {
        let mut calibration = match Calibration::read(folder) {
            Ok(calibration) => calibration,
            Err(error) => {
                tracing::warn!(model = model.id, %error, "the calibration cannot be used");
                return None;
            }
        };
        if let Err(why) = fits(&calibration, &model) {
            tracing::warn!(model = model.id, why, "the calibration is ignored; calibrate the model again");
            return None;
        }
        // It may know layers by other names than the listed ones.
        let listed = |name: String| model.network.find(&name).map_or(name, |id| model.network.node(id).name.clone());
        let layers = std::mem::take(&mut calibration.layers);
        calibration.layers = layers.into_iter().map(|(name, record)| (listed(name), record)).collect();
        Some(Arc::new(calibration))
    });
    Model { calibration, ..model }
}

/// Whether the calibration was measured with this model.
fn fits(calibration: &Calibration, model: &Model) -> Result<(), String> {
    if calibration.digest != model.digest {
        return Err(format!("it was measured with the weights {}, not {}", calibration.digest, model.digest));
    }
    if model.network.input_shape()[1..] != calibration.size {
        return Err(format!("it was measured at {:?}, not {}", calibration.size, model.network.input_shape()));
    }
    for (name, record) in &calibration.layers {
        let units = model.network.find(name).map(|id| model.network.node(id).shape.channels());
        if units != Some(record.units.len()) {
            return Err(format!("layer {name} has {units:?} units, not {}", record.units.len()));
        }
    }
    Ok(())
}
