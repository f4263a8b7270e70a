//! Units: what can be maximized in a layer, as text and as a document.

mod document;

use std::fmt;
use std::str::FromStr;

pub use document::{ImageDocument, ReduceDocument, UnitDocument, UnitText};

use super::ImageSource;
use super::graph::{Layer, Network, NodeId};

use super::shape::Shape;
use super::similar_names::similar_names;
use crate::Invalid;

/// Something in a layer that can be maximized.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// Name of the layer.
    pub layer: String,
    /// Which values of the layer's output, and how they become one number.
    pub selection: Selection,
}

/// Which values of a layer's output, and how they become one number. The output is `[C,H,W]` or `[K]`; of another number of
/// axes the first counts as the channels and the rest as positions, and one number per image is one channel.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Selection {
    /// One channel, reduced over its positions; in a `[K]` layer one neuron or class logit.
    Channel {
        /// Index from 0.
        channel: usize,
        /// How its positions become one number.
        reduction: Reduction,
    },
    /// The channel of a class by its name; [`Model::named`](super::Model::named) replaces it by its index.
    Class {
        /// The class; upper and lower case count alike.
        name: String,
        /// How its positions become one number.
        reduction: Reduction,
    },
    /// One neuron of a feature map.
    Neuron {
        /// Index from 0.
        channel: usize,
        /// Row and column, from 0.
        position: [usize; 2],
    },
    /// All channels along a direction `d`, reduced over positions. With `a` the channels at a position,
    /// `dot = <d, a>` and `cos = dot / (|d| |a|)`, the value there is `dot max(cos, 0.1)^p`; at `p = 0` it is the
    /// weighted sum. As in Lucid (`objectives.direction`) and Carter et al., "Activation Atlas", Distill 2019.
    Direction {
        /// One weight per channel.
        weights: Vec<f32>,
        /// The power `p`, from 0 to 16.
        cosine_power: f32,
        /// How positions become one number.
        reduction: Reduction,
    },
    /// The mean over positions of `dot max(cos, 0.1)^p`, as for a direction, where every position has its own: the
    /// layer's channels there on an image. After Olah et al., "The Building Blocks of Interpretability", Distill 2018,
    /// and the caricatures of Lucid.
    Caricature {
        /// The image whose likeness is exaggerated.
        image: ImageSource,
        /// The power `p`, from 0 to 16.
        cosine_power: f32,
    },
    /// `-|a - r|^2 / |r|^2`, with `a` the layer's values on the stimulus and `r` those on an image (divided by 1 where `r`
    /// is zero everywhere): Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them", CVPR 2015,
    /// <https://arxiv.org/abs/1412.0035>, section 2, the normalised Euclidean loss with its sign turned.
    Inversion {
        /// The image whose representation is inverted.
        image: ImageSource,
    },
    /// The whole layer: the mean of its squared values.
    Energy,
}

/// How the positions of a channel become one number.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Reduction {
    /// Arithmetic mean.
    #[default]
    Mean,
    /// The value at row `H/2`, column `W/2` of a feature map; of a vector `[K]` the value itself.
    Center,
    /// The largest value.
    Max,
    /// Mean of the largest share of values; the share lies in (0, 1].
    TopFraction(f32),
}

const GRAMMAR: &str = "LAYER:CHANNEL, optionally followed by @mean, @center, @max, @topFRACTION or @ROW,COLUMN; \
                       LAYER:CLASS with the name of a class; or LAYER@energy";

impl FromStr for Unit {
    type Err = Invalid;

    /// Reads `fire5:17`, `fire5:17@center`, `fire5:17@top0.25`, `fire5:17@3,4`, `logits:954`, `fire5@energy`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("", text, GRAMMAR);
        if let Some(layer) = text.strip_suffix("@energy").filter(|layer| !layer.is_empty()) {
            return Ok(Self { layer: layer.into(), selection: Selection::Energy });
        }
        let (layer, rest) = text.rsplit_once(':').ok_or_else(invalid)?;
        let (channel, how) = match rest.split_once('@') {
            Some((channel, how)) => (channel, Some(how)),
            None => (rest, None),
        };
        if layer.is_empty() {
            return Err(invalid());
        }
        let index = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse::<usize>().map_err(|_| invalid()),
            false => Err(invalid()),
        };
        let layer = layer.to_owned();
        let reduction = match how {
            None | Some("mean") => Reduction::Mean,
            Some("center") => Reduction::Center,
            Some("max") => Reduction::Max,
            Some(how) => match (how.strip_prefix("top"), how.split_once(',')) {
                (Some(share), _) => top_fraction(share.parse().map_err(|_| invalid())?)?,
                (None, Some((y, x))) => {
                    let selection = Selection::Neuron { channel: index(channel)?, position: [index(y)?, index(x)?] };
                    return Ok(Self { layer, selection });
                }
                (None, None) => return Err(invalid()),
            },
        };
        let selection = match is_name(channel) {
            true => Selection::Class { name: channel.to_owned(), reduction },
            false => Selection::Channel { channel: index(channel)?, reduction },
        };
        Ok(Self { layer, selection })
    }
}

/// Whether text in the place of a channel names a class: it does not look like a number.
fn is_name(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-', '.']);
    !digits.is_empty() && digits.trim() == digits && digits.parse::<f64>().is_err()
}

fn top_fraction(share: f32) -> Result<Reduction, Invalid> {
    if share > 0.0 && share <= 1.0 {
        Ok(Reduction::TopFraction(share))
    } else {
        Err(Invalid::new("fraction", share, "a share greater than 0 and at most 1"))
    }
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mean => Ok(()),
            Self::Center => write!(f, "@center"),
            Self::Max => write!(f, "@max"),
            Self::TopFraction(share) => write!(f, "@top{share}"),
        }
    }
}

/// The string form; what has none is told in short.
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = &self.layer;
        match &self.selection {
            Selection::Channel { channel, reduction } => write!(f, "{layer}:{channel}{reduction}"),
            Selection::Neuron { channel, position: [y, x] } => write!(f, "{layer}:{channel}@{y},{x}"),
            Selection::Class { name, reduction } => write!(f, "{layer}:{name}{reduction}"),
            Selection::Direction { weights, cosine_power, reduction } => {
                write!(f, "{layer}:<{} weights>{reduction}", weights.len())?;
                if *cosine_power == 0.0 { Ok(()) } else { write!(f, " cos^{cosine_power}") }
            }
            Selection::Caricature { image, cosine_power } => {
                write!(f, "{layer}@caricature of {image} cos^{cosine_power}")
            }
            Selection::Inversion { image } => write!(f, "{layer}@inversion of {image}"),
            Selection::Energy => write!(f, "{layer}@energy"),
        }
    }
}

impl Unit {
    /// Whether its string form says everything about it.
    pub fn has_text(&self) -> bool {
        match &self.selection {
            Selection::Channel { .. } | Selection::Neuron { .. } | Selection::Energy => true,
            Selection::Class { name, .. } => is_name(name) && !name.contains([':', '@']),
            Selection::Direction { .. } | Selection::Caricature { .. } | Selection::Inversion { .. } => false,
        }
    }

    /// The image that it compares with, if any, and the name of the field that holds it.
    pub fn image(&self) -> Option<(&'static str, &ImageSource)> {
        match &self.selection {
            Selection::Caricature { image, .. } => Some(("caricature", image)),
            Selection::Inversion { image } => Some(("inversion", image)),
            _ => None,
        }
    }

    /// The same, to be replaced.
    pub fn image_mut(&mut self) -> Option<(&'static str, &mut ImageSource)> {
        match &mut self.selection {
            Selection::Caricature { image, .. } => Some(("caricature", image)),
            Selection::Inversion { image } => Some(("inversion", image)),
            _ => None,
        }
    }

    /// How positions become one number, where that can be chosen.
    pub fn reduction(&self) -> Option<Reduction> {
        match &self.selection {
            Selection::Channel { reduction, .. }
            | Selection::Class { reduction, .. }
            | Selection::Direction { reduction, .. } => Some(*reduction),
            Selection::Neuron { .. }
            | Selection::Caricature { .. }
            | Selection::Inversion { .. }
            | Selection::Energy => None,
        }
    }

    /// Checks that the selection exists in its layer, which has this shape.
    ///
    /// # Errors
    /// Names the field (`channel`, `class`, `position`, `direction`, `reduce`) and the indices that exist.
    pub fn check(&self, shape: &Shape) -> Result<(), Invalid> {
        let channels = shape.channels();
        let in_range = |field: &str, index: usize, length: usize, what: &str| match index < length {
            true => Ok(()),
            false => Err(Invalid::new(field, index, format!("a {what} from 0 to {}", length - 1))),
        };
        match &self.selection {
            Selection::Channel { channel, .. } => in_range("channel", *channel, channels, "channel")?,
            Selection::Neuron { channel, position: [y, x] } => {
                in_range("channel", *channel, channels, "channel")?;
                let [_, height, width] = shape.feature_map().ok_or_else(|| {
                    Invalid::new("position", format!("[{y}, {x}]"), format!("no position: {} is {shape}", self.layer))
                })?;
                in_range("position[0]", *y, height, "row")?;
                in_range("position[1]", *x, width, "column")?;
            }
            Selection::Direction { weights, .. } if weights.len() != channels => {
                return Err(Invalid::new(
                    "direction",
                    format!("{} weights", weights.len()),
                    format!("{channels} weights, one per channel of {}", self.layer),
                ));
            }
            Selection::Class { name, .. } => {
                return Err(Invalid::new("class", name, "the index of a class: its name is not resolved"));
            }
            Selection::Direction { .. }
            | Selection::Caricature { .. }
            | Selection::Inversion { .. }
            | Selection::Energy => {}
        }
        if self.reduction() == Some(Reduction::Center) && !shape.has_center() {
            let expected = format!("no center: {} is {shape}, which has no rows and columns", self.layer);
            return Err(Invalid::new("reduce", "center", expected));
        }
        Ok(())
    }
}

impl Network {
    /// The layer with this name.
    ///
    /// # Errors
    /// Names the field `layer`, and why the file's node of that name has no layer, or layers whose names are near.
    pub fn layer(&self, name: &str) -> Result<NodeId, Invalid> {
        let found = self.find(name).filter(|&id| id != Self::INPUT && !self.channels_last().contains(&id));
        found.ok_or_else(|| Invalid::new("layer", name, expected_layers(self, name)))
    }
}

/// A phrase that helps to find the layer that was meant.
fn expected_layers(network: &Network, wanted: &str) -> String {
    let layers: Vec<Layer<'_>> = network.layers().collect();
    let count = layers.len();
    if let Some(unavailable) = network.why_unavailable(wanted) {
        return format!("one of the model's {count} layers; {unavailable}");
    }
    let modules = layers.iter().flat_map(|layer| layer.modules).map(String::as_str);
    let close = similar_names(layers.iter().map(|layer| layer.name).chain(modules), wanted);
    match (close.is_empty(), layers.last()) {
        (false, _) => format!("one of the model's {count} layers, such as {}", close.join(", ")),
        (true, Some(last)) => format!("one of the model's {count} layers, such as {}", last.name),
        (true, None) => "a layer, but this model has none".into(),
    }
}
