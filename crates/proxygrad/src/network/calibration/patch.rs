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
        let position = top.position(network, layer);
        let field = network.find(layer).and_then(|id| network.receptive_field(id, position));
        let [height, width] = self.size;
        let [rows, columns] = field.unwrap_or([0..height, 0..width]);
        Patch { rows, columns }
    }
}

/// Crops a PNG to a patch.
///
/// # Errors
/// When `png` cannot be read or the patch cannot be written.
pub fn cut(png: &[u8], patch: &Patch) -> ImageResult<Vec<u8>> {
    let image = image::load_from_memory_with_format(png, ImageFormat::Png)?;
    let side = |range: &Range<usize>| (range.start as u32, range.len() as u32);
    let ((top, height), (left, width)) = (side(&patch.rows), side(&patch.columns));
    let cut: DynamicImage = image.crop_imm(left, top, width, height);
    let mut bytes = std::io::Cursor::new(Vec::new());
    cut.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
