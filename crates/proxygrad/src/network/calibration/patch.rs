//! Patches: the part of a natural image that a unit looked at.

use std::ops::Range;

use image::{DynamicImage, ImageFormat, ImageResult};

use super::{Calibration, Exciting};
use crate::network::Network;

/// A part of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Rows, from the top.
    pub rows: Range<usize>,
    /// Columns, from the left.
    pub columns: Range<usize>,
}

impl Exciting {
    /// Row and column of the position in a layer; nothing when the layer has none.
    pub fn position(&self, network: &Network, layer: &str) -> Option<[usize; 2]> {
        let [_, height, width] = network.node(network.find(layer)?).shape.feature_map()?;
        (height * width > self.place).then(|| [self.place / width, self.place % width])
    }
}

impl Calibration {
    /// The part of an exciting image that the unit of `layer` looked at: the receptive field of its position, cut at the
    /// image's border; the whole image where the layer is no feature map.
    pub fn patch(&self, network: &Network, layer: &str, exciting: &Exciting) -> Patch {
        let position = exciting.position(network, layer);
        let field = network.find(layer).and_then(|id| network.receptive_field(id, position));
        let [height, width] = self.size;
        let [rows, columns] = field.unwrap_or([0..height, 0..width]);
        Patch { rows, columns }
    }
}

/// Cuts a patch out of a PNG, as a PNG.
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
