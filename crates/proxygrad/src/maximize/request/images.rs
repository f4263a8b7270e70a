//! Images of a request: attached files, memory limits and decoding.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Request;
use crate::Invalid;
use crate::image_file::{ImageHeader, MAX_PIXELS};
use crate::maximize::reference_image::{ReferenceImage, ReferenceImages};
use crate::maximize::start::Start;
use crate::network::{ImageSource, Model};

/// Largest number of pixels of all image files of a request, since decoding takes time.
const MOST_PIXELS_TOGETHER: u64 = 2 * MAX_PIXELS;

/// Decoded images of a request, each decoded once.
pub(super) struct Gallery {
    pub(super) reference_images: ReferenceImages,
    /// Decoded images by the digest of their file.
    read: HashMap<[u8; 32], ImageSource>,
    /// `[C,H,W]` of a stimulus.
    shape: [usize; 3],
}

impl Gallery {
    pub(super) fn new(shape: [usize; 3]) -> Self {
        Self { reference_images: ReferenceImages::default(), read: HashMap::new(), shape }
    }

    /// Decodes the image of a source and replaces the source by its digest.
    pub(super) fn read(&mut self, source: &mut ImageSource) -> Result<(), Invalid> {
        let file = match source {
            ImageSource::File(file) => file,
            ImageSource::Part(name) => {
                return Err(Invalid::new(
                    "",
                    format!("part:{name}"),
                    "the name of a part of the body; there is no part of this name",
                ));
            }
            ImageSource::Known(image) => {
                return Err(Invalid::new("", &image.sha256, "the image itself, in base64 or as a part of the body"));
            }
        };
        let digest: [u8; 32] = Sha256::digest(&**file).into();
        if let Some(known) = self.read.get(&digest) {
            *source = known.clone();
            return Ok(());
        }
        let reference_image = ReferenceImage::read(file, self.shape)?;
        *source = ImageSource::Known(reference_image.known());
        self.reference_images.add(reference_image);
        self.read.insert(digest, source.clone());
        Ok(())
    }
}

impl Request {
    /// Upper bound of the memory for decoding the request's images, one after the other, in bytes; `None` without
    /// images. Only the headers of the files are read.
    ///
    /// # Errors
    /// When a file is not an image, or images are too large, each or all together: names the field of the first.
    pub fn image_memory(&self, model: &Model) -> Result<Option<u64>, Invalid> {
        let own = model.network.input_shape();
        let size = self.size.unwrap_or([own[1], own[2]]);
        let (mut seen, mut pixels, mut memory) = (HashSet::new(), 0u64, None);
        for (field, source) in self.images() {
            let ImageSource::File(file) = source else { continue };
            if !seen.insert(&**file) {
                continue;
            }
            let header = ImageHeader::read(file).map_err(|error| error.within(&field))?;
            pixels += header.pixels();
            if pixels > MOST_PIXELS_TOGETHER {
                let found = format!("{}x{} pixels", header.width, header.height);
                let expected =
                    format!("at most {MOST_PIXELS_TOGETHER} pixels in all images of a request: here it is {pixels}");
                return Err(Invalid::new(field, found, expected));
            }
            memory = memory.max(Some(header.memory(size)));
        }
        Ok(memory)
    }

    /// The images in the request, with the fields that hold them.
    fn images(&self) -> impl Iterator<Item = (String, &ImageSource)> {
        let objectives = self.objective.iter().chain(self.objectives.iter().flatten()).enumerate();
        let terms = objectives.flat_map(|(i, objective)| {
            let several = objective.terms.len() > 1;
            objective.terms.iter().enumerate().map(move |(j, term)| (i, several.then_some(j), term))
        });
        let of_objectives = terms.filter_map(|(i, j, term)| {
            let (kind, image) = term.unit.image()?;
            Some((format!("{}.{kind}.image", self.field_of_term(i, j)), image))
        });
        let of_start = match &self.start {
            Some(Start::Image { image, .. }) => Some(("start.image".to_owned(), image)),
            _ => None,
        };
        of_objectives.chain(of_start)
    }

    /// Attaches image files where the request refers to them as `part:NAME`.
    ///
    /// # Errors
    /// When the request refers to a part that is missing, or does not refer to one of the parts.
    pub fn attach(&mut self, parts: &BTreeMap<String, Arc<[u8]>>) -> Result<(), Invalid> {
        let mut unused: BTreeMap<&String, &Arc<[u8]>> = parts.iter().collect();
        let mut attach = |field: String, source: &mut ImageSource| {
            let ImageSource::Part(name) = &source else { return Ok(()) };
            let Some(file) = parts.get(name) else {
                let known: Vec<&str> = parts.keys().map(String::as_str).collect();
                let expected = match known.is_empty() {
                    true => "the name of a part: the request came without any".to_owned(),
                    false => format!("the name of a part: {}", known.join(", ")),
                };
                return Err(Invalid::new(field, format!("part:{name}"), expected));
            };
            unused.remove(name);
            *source = ImageSource::File(Arc::clone(file));
            Ok(())
        };
        let fields = self.clone();
        let objectives = self.objective.iter_mut().chain(self.objectives.iter_mut().flatten());
        for (i, objective) in objectives.enumerate() {
            let several = objective.terms.len() > 1;
            for (j, term) in objective.terms.iter_mut().enumerate() {
                if let Some((kind, image)) = term.unit.image_mut() {
                    let field = fields.field_of_term(i, several.then_some(j));
                    attach(format!("{field}.{kind}.image"), image)?;
                }
            }
        }
        if let Some(Start::Image { image, .. }) = &mut self.start {
            attach("start.image".into(), image)?;
        }
        match unused.into_iter().next() {
            None => Ok(()),
            Some((name, file)) => {
                let expected = format!("a part that the request names as part:{name}");
                Err(Invalid::new(name, format!("{} bytes", file.len()), expected))
            }
        }
    }
}
