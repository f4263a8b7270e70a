//! The objectives of a request for a model: units that exist there, classes by their index, images by their digest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::objective::Objective;
use super::picture::{Picture, Pictures};
use super::request::Request;
use super::start::Start;
use crate::Invalid;
use crate::image_file::{Head, MOST_PIXELS};
use crate::network::{ImageSource, Model, NodeId, Shape};

/// Most pixels of all image files of a request: unpacking takes time.
const MOST_PIXELS_TOGETHER: u64 = 2 * MOST_PIXELS;

/// Images of a request, each read once.
pub(super) struct Gallery {
    pub(super) pictures: Pictures,
    /// Digests of files, and what became of them.
    read: HashMap<[u8; 32], ImageSource>,
    /// `[C,H,W]` of a stimulus.
    shape: [usize; 3],
}

impl Gallery {
    pub(super) fn new(shape: [usize; 3]) -> Self {
        Self { pictures: Pictures::default(), read: HashMap::new(), shape }
    }

    /// Reads the image that a source holds, and tells it by its digest.
    pub(super) fn read(&mut self, source: &mut ImageSource) -> Result<(), Invalid> {
        let file = match source {
            ImageSource::File(file) => file,
            ImageSource::Part(name) => {
                return Err(Invalid::new("", format!("part:{name}"), "an image: there is no part of this name"));
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
        let picture = Picture::read(file, self.shape)?;
        *source = ImageSource::Known(picture.known());
        self.pictures.add(picture);
        self.read.insert(digest, source.clone());
        Ok(())
    }
}

/// The shape of a layer at this input size; the error names the field `layer`, or `size` when the network cannot have it.
pub(super) fn layer_at(model: &Model, layer: &str, input: &Shape) -> Result<(NodeId, Shape), SizeOrLayer> {
    let network = &model.network;
    let target = network.layer(layer).map_err(SizeOrLayer::Layer)?;
    let shapes = network.shapes_at(input, &network.below(&[target])).map_err(|why| {
        let (own, found) = (network.input_shape(), format!("[{}, {}]", input[1], input[2]));
        SizeOrLayer::Size(Invalid::new("size", found, format!("[{}, {}]: {why}", own[1], own[2])))
    })?;
    Ok((target, shapes[&target].clone()))
}

/// What stands in the way of a layer.
pub(super) enum SizeOrLayer {
    /// The size of the whole request.
    Size(Invalid),
    /// The layer itself.
    Layer(Invalid),
}

impl SizeOrLayer {
    /// The error of the request in whose `field` the layer stands.
    pub(super) fn within(self, field: &str) -> Invalid {
        match self {
            Self::Size(error) => error,
            Self::Layer(error) => error.within(field),
        }
    }
}

impl Request {
    /// Checks objectives of this request against the model, and replaces names of classes and images in them.
    pub(super) fn locate(
        &self,
        model: &Model,
        objectives: &mut [Objective],
        input: &Shape,
        gallery: &mut Gallery,
    ) -> Result<(), Invalid> {
        for (i, objective) in objectives.iter_mut().enumerate() {
            let several = objective.terms.len() > 1;
            for (j, term) in objective.terms.iter_mut().enumerate() {
                let field = self.field_of_term(i, several.then_some(j));
                let (layer, shape) = layer_at(model, &term.unit.layer, input).map_err(|e| e.within(&field))?;
                // A layer has several names; from here on it is known by the listed one.
                term.unit.layer.clone_from(&model.network.node(layer).name);
                let named = model.named(&term.unit).map_err(|e| e.within(&field))?;
                named.check(&shape).map_err(|e| e.within(&field))?;
                term.unit = named;
                if let Some((kind, image)) = term.unit.image_mut() {
                    gallery.read(image).map_err(|e| e.within(&format!("{field}.{kind}.image")))?;
                }
            }
        }
        Ok(())
    }

    /// Path of an objective, or of one of its several terms.
    fn field_of_term(&self, objective: usize, term: Option<usize>) -> String {
        let field = match self.objective {
            Some(_) => "objective".to_owned(),
            None => format!("objectives[{objective}]"),
        };
        match term {
            None => field,
            Some(term) => format!("{field}.sum[{term}]"),
        }
    }

    /// Memory that it takes, at most, to unpack the images that the request brings, one after the other, in bytes; nothing
    /// where it brings none. Only the heads of the files are read.
    ///
    /// # Errors
    /// When a file is no image, or images are too large, each or all together: names the field of the first.
    pub fn image_memory(&self, model: &Model) -> Result<Option<u64>, Invalid> {
        let own = model.network.input_shape();
        let size = self.size.unwrap_or([own[1], own[2]]);
        let (mut seen, mut pixels, mut memory) = (HashSet::new(), 0u64, None);
        for (field, source) in self.images() {
            let ImageSource::File(file) = source else { continue };
            if !seen.insert(&**file) {
                continue;
            }
            let head = Head::read(file).map_err(|error| error.within(&field))?;
            pixels += head.pixels();
            if pixels > MOST_PIXELS_TOGETHER {
                let found = format!("{}x{} pixels", head.width, head.height);
                let expected =
                    format!("at most {MOST_PIXELS_TOGETHER} pixels in all images of a request: here it is {pixels}");
                return Err(Invalid::new(field, found, expected));
            }
            memory = memory.max(Some(head.memory(size)));
        }
        Ok(memory)
    }

    /// The images that the request brings, with the fields that hold them.
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

    /// Lays image files in the places where the request names them as `part:NAME`.
    ///
    /// # Errors
    /// When the request names a part that is not there, or does not name one that is.
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
