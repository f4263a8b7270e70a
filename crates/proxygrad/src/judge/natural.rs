//! Natural patches of a unit, and of other units of its layer, from the calibration of the model.

use std::io;
use std::sync::Arc;

use image::DynamicImage;

use crate::network::calibration::{Calibration, Patch, TopImage};
use crate::network::{Model, Reduction, Selection, Unit};

/// Most units of a layer whose best patches are compared with those of the unit.
const MAX_OTHERS: usize = 64;
/// Fewest of them for a comparison.
pub(super) const MIN_OTHERS: usize = 8;

/// The calibration of a model, as seen from one unit.
pub(super) struct Natural<'a> {
    model: &'a Model,
    calibration: &'a Arc<Calibration>,
    layer: &'a str,
    pub(super) channel: usize,
    reduction: Reduction,
}

impl<'a> Natural<'a> {
    /// The calibration from this unit; `None` if the unit is not a channel, or its layer is not calibrated.
    pub(super) fn of(model: &'a Model, unit: &'a Unit) -> Option<Self> {
        let Selection::Channel { channel, reduction } = unit.selection else { return None };
        let calibration = model.calibration.as_ref()?;
        let layer = model.network.find(&unit.layer).map(|id| model.network.node(id).name.as_str())?;
        calibration.layers.get(layer)?.units.get(channel)?;
        Some(Self { model, calibration, layer, channel, reduction })
    }

    /// Height and width of its images.
    pub(super) fn size(&self) -> [usize; 2] {
        self.calibration.size
    }

    /// The layer's name.
    pub(super) fn layer(&self) -> &'a str {
        self.layer
    }

    /// The top images of a channel of the layer.
    fn top(&self, channel: usize) -> &'a [TopImage] {
        let record = self.calibration.layers.get(self.layer);
        record.and_then(|record| record.units.get(channel)).map_or(&[], |unit| unit.top.as_slice())
    }

    /// The top images of the unit.
    pub(super) fn own(&self) -> &'a [TopImage] {
        self.top(self.channel)
    }

    /// The channels that the unit may be compared with, spread evenly over the layer.
    pub(super) fn others(&self) -> Vec<usize> {
        let channels = self.calibration.layers.get(self.layer).map_or(0, |record| record.units.len());
        // One more than are needed, because the unit itself may be among them.
        let count = channels.min(MAX_OTHERS + 1);
        (0..count).map(|i| i * channels / count).collect()
    }

    /// The best image of another channel; `None` if the unit's own top images include it.
    pub(super) fn best_of(&self, channel: usize) -> Option<&'a TopImage> {
        let best = self.top(channel).first()?;
        (channel != self.channel && self.own().iter().all(|own| own.image != best.image)).then_some(best)
    }

    /// The part of a natural image that the position of its largest value sees.
    pub(super) fn patch(&self, top: &TopImage) -> io::Result<DynamicImage> {
        let png = self.calibration.image(top.image)?;
        let image = image::load_from_memory_with_format(&png, image::ImageFormat::Png).map_err(io::Error::other)?;
        let patch = self.calibration.patch(&self.model.network, self.layer, top);
        Ok(patch.of(&image))
    }

    /// The part of a stimulus that corresponds to a natural patch: what the unit's centre sees. With the reduction `max`
    /// the largest value may be anywhere, and the part is the whole stimulus.
    pub(super) fn part(&self, stimulus: &DynamicImage) -> DynamicImage {
        match self.reduction {
            Reduction::Max => stimulus.clone(),
            Reduction::Mean | Reduction::Center | Reduction::TopFraction(_) => {
                Patch::centre(&self.model.network, self.layer).of(stimulus)
            }
        }
    }
}
