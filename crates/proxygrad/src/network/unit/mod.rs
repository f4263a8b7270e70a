//! Units: channels, neurons, directions and whole layers that can be maximized, and their text form.

mod document;

use std::fmt;
use std::str::FromStr;

pub use document::{ImageDocument, ReduceDocument, UnitDocument, UnitText};

use super::ImageSource;
use super::graph::{Layer, Network, NodeId};

use super::shape::Shape;
use super::similar_names::similar_names;
use crate::Invalid;

/// A part of a layer that can be maximized.
///
/// # Examples
/// ```
/// use proxygrad::network::{Reduction, Selection, Unit};
///
/// let unit: Unit = "fire5:17@center".parse()?;
/// assert_eq!(unit.layer, "fire5");
/// assert_eq!(unit.selection, Selection::Channel { channel: 17, reduction: Reduction::Center });
/// assert_eq!(unit.to_string(), "fire5:17@center");
///
/// let neuron: Unit = "fire5:17@3,4".parse()?;
/// assert_eq!(neuron.selection, Selection::Neuron { channel: 17, position: [3, 4] });
///
/// let token: Unit = "blocks.3:17@class".parse()?;
/// assert_eq!(token.to_string(), "blocks.3@class:17");
///
/// let error = "fire5".parse::<Unit>().unwrap_err();
/// assert_eq!(error.value, "fire5");
/// # Ok::<(), proxygrad::Invalid>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// Name of the layer.
    pub layer: String,
    /// The values of the layer's output and their reduction to one number.
    pub selection: Selection,
}

/// The values of a layer's output that a unit reads, and their reduction to one number. The output is `[C,H,W]` or
/// `[K]`, whatever order it is stored in; with another number of axes, the first is the channels and the rest are
/// positions; a scalar is one channel. Of tokens it is the patches: a class token is a layer `[C]` of its own, such as
/// `blocks.3@class`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Selection {
    /// One channel, reduced over its positions; in a `[K]` layer one neuron or class logit.
    Channel {
        /// Index from 0.
        channel: usize,
        /// Reduction over positions.
        reduction: Reduction,
    },
    /// The channel of a class by name; [`Model::resolve_class`](super::Model::resolve_class) replaces it by its index.
    Class {
        /// The class name, case-insensitive.
        name: String,
        /// Reduction over positions.
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
        /// Reduction over positions.
        reduction: Reduction,
    },
    /// The mean over positions of `dot max(cos, 0.1)^p`, as for a direction, with a direction per position: the layer's
    /// channels there on an image. After Olah et al., "The Building Blocks of Interpretability", Distill 2018,
    /// and the caricatures of Lucid.
    Caricature {
        /// The image to exaggerate.
        image: ImageSource,
        /// The power `p`, from 0 to 16.
        cosine_power: f32,
    },
    /// `-|a - r|^2 / |r|^2`, with `a` the layer's values on the stimulus and `r` those on an image (divided by 1 where
    /// `r` is zero everywhere): Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them", CVPR
    /// 2015, <https://arxiv.org/abs/1412.0035>, section 2, the negative normalised Euclidean loss.
    Inversion {
        /// The image whose representation is to be inverted.
        image: ImageSource,
    },
    /// The whole layer: the mean of its squared values.
    Energy,
}

/// Reduction of the positions of a channel to one number.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Reduction {
    /// Arithmetic mean.
    #[default]
    Mean,
    /// The value at row `H/2`, column `W/2` of a feature map; the value itself of a vector `[K]`.
    Center,
    /// The largest value.
    Max,
    /// Mean of the largest values, as a fraction in (0, 1] of all.
    TopFraction(f32),
}

const GRAMMAR: &str = "LAYER:CHANNEL, optionally followed by @mean, @center, @max, @topFRACTION, @ROW,COLUMN or a token \
                       such as @class; LAYER:CLASS with the name of a class; or LAYER@energy";

/// Whether this names a token besides the patches: `class` or `tokenI`.
fn is_token(text: &str) -> bool {
    let index = text.strip_prefix("token").unwrap_or_default();
    text == "class" || (!index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()))
}

impl FromStr for Unit {
    type Err = Invalid;

    /// Parses `fire5:17`, `fire5:17@center`, `fire5:17@top0.25`, `fire5:17@3,4`, `logits:954`, `fire5@energy`, and
    /// `blocks.3:17@class` for `blocks.3@class:17`.
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
        let (layer, how) = match how {
            Some(token) if is_token(token) && !layer.contains('@') => (format!("{layer}@{token}"), None),
            _ => (layer.to_owned(), how),
        };
        if layer.is_empty() || layer.starts_with('@') {
            return Err(invalid());
        }
        let index = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse::<usize>().map_err(|_| invalid()),
            false => Err(invalid()),
        };
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
        let selection = match is_class_name(channel) {
            true => Selection::Class { name: channel.to_owned(), reduction },
            false => Selection::Channel { channel: index(channel)?, reduction },
        };
        Ok(Self { layer, selection })
    }
}

/// Whether the text of a channel is a class name: it does not look like a number.
fn is_class_name(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-', '.']);
    !digits.is_empty() && digits.trim() == digits && digits.parse::<f64>().is_err()
}

fn top_fraction(share: f32) -> Result<Reduction, Invalid> {
    if share > 0.0 && share <= 1.0 {
        Ok(Reduction::TopFraction(share))
    } else {
        Err(Invalid::new("fraction", share, "a fraction greater than 0 and at most 1"))
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

/// The text form; a short description if there is none.
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
    /// Whether the text form describes the unit completely.
    pub fn has_text(&self) -> bool {
        match &self.selection {
            Selection::Channel { .. } | Selection::Neuron { .. } | Selection::Energy => true,
            Selection::Class { name, .. } => is_class_name(name) && !name.contains([':', '@']),
            Selection::Direction { .. } | Selection::Caricature { .. } | Selection::Inversion { .. } => false,
        }
    }

    /// The reference image and the name of its field, if any.
    pub fn image(&self) -> Option<(&'static str, &ImageSource)> {
        match &self.selection {
            Selection::Caricature { image, .. } => Some(("caricature", image)),
            Selection::Inversion { image } => Some(("inversion", image)),
            Selection::Channel { .. }
            | Selection::Class { .. }
            | Selection::Neuron { .. }
            | Selection::Direction { .. }
            | Selection::Energy => None,
        }
    }

    /// Mutable access to the reference image.
    pub fn image_mut(&mut self) -> Option<(&'static str, &mut ImageSource)> {
        match &mut self.selection {
            Selection::Caricature { image, .. } => Some(("caricature", image)),
            Selection::Inversion { image } => Some(("inversion", image)),
            Selection::Channel { .. }
            | Selection::Class { .. }
            | Selection::Neuron { .. }
            | Selection::Direction { .. }
            | Selection::Energy => None,
        }
    }

    /// The reduction over positions; `None` if the selection has a fixed one.
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
    /// An [`Invalid`] with the field `channel`, `class`, `position`, `direction` or `reduce`.
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
                return Err(Invalid::new("class", name, "a class index: the name has not been resolved"));
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
    /// An [`Invalid`] `layer` with similar names, or why the node with this name is not available.
    pub fn layer(&self, name: &str) -> Result<NodeId, Invalid> {
        let found = self.find(name).filter(|&id| id != Self::INPUT);
        found.ok_or_else(|| Invalid::new("layer", name, expected_layers(self, name)))
    }
}

/// What was expected instead of an unknown layer name, with suggestions.
fn expected_layers(network: &Network, wanted: &str) -> String {
    let layers: Vec<Layer<'_>> = network.layers().collect();
    let count = layers.len();
    if let Some((layer, _)) = wanted.rsplit_once('@').filter(|(layer, _)| network.find(layer).is_some()) {
        return match network.tokens(layer) {
            [] => format!("{layer}, which has no tokens besides its positions"),
            tokens => format!("{layer} or one of its tokens: @{}", tokens.join(", @")),
        };
    }
    if let Some(unavailable) = network.why_unavailable(wanted) {
        return format!("one of the model's {count} layers; {unavailable}");
    }
    let modules = layers.iter().flat_map(|layer| layer.modules).map(String::as_str);
    let similar = similar_names(layers.iter().map(|layer| layer.name).chain(modules), wanted);
    match (similar.is_empty(), layers.last()) {
        (false, _) => format!("one of the model's {count} layers, such as {}", similar.join(", ")),
        (true, Some(last)) => format!("one of the model's {count} layers, such as {}", last.name),
        (true, None) => "a layer, but this model has none".into(),
    }
}
