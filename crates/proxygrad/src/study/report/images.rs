//! Images of a study's runs at the size of the report, and the part of them that a unit sees.

use std::collections::HashMap;
use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, replace, resize};
use image::{DynamicImage, ImageFormat, RgbImage};

use crate::study::folder::{Folder, image_path};
use crate::study::plan::types::{Plan, PlannedPart};
use crate::study::row::Row;

/// Longer side of an image in the page, in pixels; the folder has full-size images.
const PAGE_SIDE: u32 = 88;
/// The same in the gallery.
const GALLERY_SIDE: u32 = 128;
/// Pixels between the images of a strip.
const GAP: u32 = 2;
/// Quality of the gallery's JPEGs, of 100.
const QUALITY: u8 = 80;

/// The images of a study.
pub(super) struct Images<'a> {
    folder: &'a Folder,
    /// By model and layer, the part of an image that its units see, if that is not all of it.
    parts: HashMap<(&'a str, &'a str), &'a PlannedPart>,
}

impl<'a> Images<'a> {
    pub(super) fn new(folder: &'a Folder, plan: &'a Plan) -> Self {
        let layers = plan.models.iter().flat_map(|model| model.layers.iter().map(move |layer| (&*model.id, layer)));
        let parts = layers.filter_map(|(model, layer)| Some(((model, &*layer.name), layer.part.as_ref()?))).collect();
        Self { folder, parts }
    }

    /// The image of a run as a PNG for the page; `None` if it is not kept.
    pub(super) fn thumbnail(&self, run: &Row) -> Option<Vec<u8>> {
        png(&self.scaled(run, PAGE_SIDE)?)
    }

    /// The images of these runs side by side as a PNG for the page, white where there is none. `None` when there is none
    /// at all.
    pub(super) fn strip<'r>(&self, runs: impl Iterator<Item = &'r Row>) -> Option<Vec<u8>> {
        png(&self.side_by_side(runs, PAGE_SIDE)?.into())
    }

    /// The same as a JPEG for the gallery.
    pub(super) fn gallery_strip<'r>(&self, runs: impl Iterator<Item = &'r Row>) -> Option<Vec<u8>> {
        let strip = self.side_by_side(runs, GALLERY_SIDE)?;
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(&strip).ok()?;
        Some(jpeg)
    }

    fn side_by_side<'r>(&self, runs: impl Iterator<Item = &'r Row>, side: u32) -> Option<RgbImage> {
        let images: Vec<Option<RgbImage>> = runs.map(|run| Some(self.scaled(run, side)?.to_rgb8())).collect();
        let height = images.iter().flatten().map(RgbImage::height).max()?;
        let width = images.iter().flatten().map(RgbImage::width).max()?;
        let mut strip = RgbImage::from_pixel((width + GAP) * images.len() as u32 - GAP, height, image::Rgb([255; 3]));
        for (column, image) in images.iter().enumerate() {
            if let Some(image) = image {
                replace(&mut strip, image, i64::from(width + GAP) * column as i64, 0);
            }
        }
        Some(strip)
    }

    /// The image of a run, or the part of it that the unit sees, scaled down to a longer side of at most `side`. Parts
    /// are also scaled up to it.
    fn scaled(&self, run: &Row, side: u32) -> Option<DynamicImage> {
        let bytes = std::fs::read(self.folder.file(&image_path(&run.key))).ok()?;
        let image = image::load_from_memory_with_format(&bytes, ImageFormat::Png).ok()?;
        let part = self.parts.get(&(&*run.key.model, &*run.key.layer)).and_then(|part| part.of(&image));
        let (image, is_part) = match part {
            Some(part) => (part, true),
            None => (image, false),
        };
        let longest = image.width().max(image.height()).max(1);
        if longest == side || (longest < side && !is_part) {
            return Some(image);
        }
        let scaled = |length: u32| (length * side).div_ceil(longest);
        let (width, height) = (scaled(image.width()), scaled(image.height()));
        let filter = if longest > side { FilterType::Triangle } else { FilterType::CatmullRom };
        Some(match image {
            DynamicImage::ImageLuma8(grey) => resize(&grey, width, height, filter).into(),
            image => resize(&image.to_rgb8(), width, height, filter).into(),
        })
    }
}

fn png(image: &DynamicImage) -> Option<Vec<u8>> {
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).ok()?;
    Some(png.into_inner())
}
