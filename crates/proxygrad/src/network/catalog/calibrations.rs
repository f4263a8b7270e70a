//! Loading of a model's calibration.

use std::path::Path;
use std::sync::Arc;

use super::discovery::{FileStamp, file_stamp};
use crate::network::Model;
use crate::network::calibration::Calibration;

/// The stamp of the calibration in `folder`, which changes when the model is calibrated again; `None` without one.
pub(super) fn calibration_stamp(folder: Option<&Path>) -> Option<FileStamp> {
    file_stamp(&folder?.join(Calibration::INDEX))
}

/// Adds the calibration in `folder` to the model, if it exists and belongs to these weights. An unusable one is logged
/// and ignored, because the model works without it.
pub(super) fn with_calibration(model: Model, folder: Option<&Path>) -> Model {
    let calibration = folder.filter(|folder| folder.join(Calibration::INDEX).exists()).and_then(|folder| {
        let mut calibration = match Calibration::read(folder) {
            Ok(calibration) => calibration,
            Err(error) => {
                tracing::warn!(model = model.id, %error, "the calibration cannot be used");
                return None;
            }
        };
        if let Err(why) = fits(&calibration, &model) {
            tracing::warn!(
                model = model.id,
                why,
                "the calibration does not match the model and is ignored; calibrate the model again"
            );
            return None;
        }
        // It may use aliases of layers.
        let listed = |name: String| model.network.find(&name).map_or(name, |id| model.network.node(id).name.clone());
        let layers = std::mem::take(&mut calibration.layers);
        calibration.layers = layers.into_iter().map(|(name, record)| (listed(name), record)).collect();
        Some(Arc::new(calibration))
    });
    Model { calibration, ..model }
}

/// Checks that the calibration was measured on this model.
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
