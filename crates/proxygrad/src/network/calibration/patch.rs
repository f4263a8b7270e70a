//! Patches: the receptive field of a unit on a natural image.

use std::ops::Range;

use image::{DynamicImage, ImageFormat, ImageResult};

use super::{Calibration, TopImage};
use crate::network::Network;

/// A rectangle of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Rows, from the top.
    pub rows: Range<usize>,
    /// Columns, from the left.
    pub columns: Range<usize>,
}

impl TopImage {
    /// Row and column of the position in a layer; `None` if the layer has no rows and columns.
    pub fn position(&self, network: &Network, layer: &str) -> Option<[usize; 2]> {
        let [_, height, width] = network.node(network.find(layer)?).shape.feature_map()?;
        (height * width > self.position_index).then(|| [self.position_index / width, self.position_index % width])
    }
}

impl Calibration {
    /// The patch of a top image: the receptive field of its position in `layer`, clipped to the image; the whole image
    /// if the layer is not a feature map.
    pub fn patch(&self, network: &Network, layer: &str, top: &TopImage) -> Patch {
        Patch::seen(network, layer, top.position(network, layer))
    }
}

impl Patch {
    /// The part of an image of the network's input size that a position (row and column) of `layer` sees: its receptive
    /// field, clipped to the image; the whole image without a position, or if the layer is not a feature map.
    pub fn seen(network: &Network, layer: &str, position: Option<[usize; 2]>) -> Self {
        let field = network.find(layer).and_then(|id| network.receptive_field(id, position));
        let [height, width] = [1, 2].map(|axis| network.input_shape()[axis]);
        let [rows, columns] = field.unwrap_or([0..height, 0..width]);
        Self { rows, columns }
    }

    /// The part that the centre of `layer` sees: row `H/2`, column `W/2`.
    pub fn centre(network: &Network, layer: &str) -> Self {
        let map = network.find(layer).and_then(|id| network.node(id).shape.feature_map());
        Self::seen(network, layer, map.map(|[_, height, width]| [height / 2, width / 2]))
    }

    /// The part of an image.
    pub fn of(&self, image: &DynamicImage) -> DynamicImage {
        let side = |range: &Range<usize>| (range.start as u32, range.len() as u32);
        let ((top, height), (left, width)) = (side(&self.rows), side(&self.columns));
        image.crop_imm(left, top, width, height)
    }
}

/// Crops a PNG to a patch.
///
/// # Errors
/// When `png` cannot be read or the patch cannot be written.
pub fn cut(png: &[u8], patch: &Patch) -> ImageResult<Vec<u8>> {
    let image = image::load_from_memory_with_format(png, ImageFormat::Png)?;
    let mut bytes = std::io::Cursor::new(Vec::new());
    patch.of(&image).write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
