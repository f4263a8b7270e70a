//! Units: what can be maximized in a layer, as text and as a document.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::graph::{Network, NodeId};
use super::shape::Shape;
use crate::Invalid;

/// Something in a layer that can be maximized.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// Name of the layer.
    pub layer: String,
    /// Which values of the layer's output, and how they become one number.
    pub selection: Selection,
}

/// Which values of a layer's output `[C,H,W]` or `[K]`, and how they become one number.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// One channel, reduced over its positions; in a `[K]` layer one neuron or class logit.
    Channel {
        /// Index from 0.
        channel: usize,
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
    /// A weighted sum of all channels, reduced over positions.
    Direction {
        /// One weight per channel.
        weights: Vec<f32>,
        /// How positions become one number.
        reduction: Reduction,
    },
    /// The whole layer: the mean of its squared values.
    Energy,
}

/// How the positions of a channel become one number.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Reduction {
    /// Arithmetic mean.
    #[default]
    Mean,
    /// The value at row `H/2`, column `W/2`.
    Center,
    /// The largest value.
    Max,
    /// Mean of the largest share of values; the share lies in (0, 1].
    TopFraction(f32),
}

/// A unit as a document: what the string form says, with names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitDocument {
    /// Name of the layer.
    pub layer: String,
    /// Channel of a `[C,H,W]` layer, or neuron (class logit) of a `[K]` layer; from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<usize>,
    /// Row and column of one neuron of the channel; excludes `reduce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 2, max_items = 2)]
    pub position: Option<[usize; 2]>,
    /// One weight per channel, instead of `channel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Vec<f32>>,
    /// How positions become one number; `mean` unless given. `energy` means the whole layer's mean square and stands
    /// without `channel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<ReduceDocument>,
    /// Share of the largest positions for `top-fraction`, in (0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub fraction: Option<f32>,
}

/// How positions become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReduceDocument {
    /// Arithmetic mean.
    Mean,
    /// The value at row `H/2`, column `W/2`.
    Center,
    /// The largest value.
    Max,
    /// Mean of the largest `fraction` of values.
    TopFraction,
    /// Mean square of the whole layer.
    Energy,
}

const GRAMMAR: &str = "LAYER:CHANNEL, optionally followed by @mean, @center, @max, @topFRACTION or @ROW,COLUMN; \
                       or LAYER@energy";

/// The schema of a unit written as text.
#[derive(Debug, Clone, Copy)]
pub struct UnitText;

impl PartialSchema for UnitText {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(format!("A unit as text: {GRAMMAR}.")))
            .pattern(Some("^.+(:[0-9]+(@(mean|center|max|top[0-9]*\\.?[0-9]+|[0-9]+,[0-9]+))?|@energy)$"))
            .examples(["logits:8", "layer1/Relu_1:3@center"])
            .into()
    }
}

impl ToSchema for UnitText {}

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
        let index = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse::<usize>().map_err(|_| invalid()),
            false => Err(invalid()),
        };
        let channel = index(channel)?;
        if layer.is_empty() {
            return Err(invalid());
        }
        let reduction = match how {
            None | Some("mean") => Reduction::Mean,
            Some("center") => Reduction::Center,
            Some("max") => Reduction::Max,
            Some(how) => match (how.strip_prefix("top"), how.split_once(',')) {
                (Some(share), _) => top_fraction(share.parse().map_err(|_| invalid())?)?,
                (None, Some((y, x))) => {
                    let selection = Selection::Neuron { channel, position: [index(y)?, index(x)?] };
                    return Ok(Self { layer: layer.into(), selection });
                }
                (None, None) => return Err(invalid()),
            },
        };
        Ok(Self { layer: layer.into(), selection: Selection::Channel { channel, reduction } })
    }
}

fn top_fraction(share: f32) -> Result<Reduction, Invalid> {
    if share > 0.0 && share <= 1.0 {
        Ok(Reduction::TopFraction(share))
    } else {
        Err(Invalid::new("fraction", share, "a share greater than 0 and at most 1"))
    }
}

impl TryFrom<UnitDocument> for Unit {
    type Error = Invalid;

    fn try_from(document: UnitDocument) -> Result<Self, Invalid> {
        let UnitDocument { layer, channel, position, direction, reduce, fraction } = document;
        let reduction = match (reduce, fraction) {
            (None | Some(ReduceDocument::Mean), None) => Reduction::Mean,
            (Some(ReduceDocument::Center), None) => Reduction::Center,
            (Some(ReduceDocument::Max), None) => Reduction::Max,
            (Some(ReduceDocument::TopFraction), Some(share)) => top_fraction(share)?,
            (Some(ReduceDocument::TopFraction), None) => {
                return Err(Invalid::new("fraction", "nothing", "a share in (0, 1] beside reduce: top-fraction"));
            }
            (Some(ReduceDocument::Energy), None) => {
                return match (channel, position, direction) {
                    (None, None, None) => Ok(Self { layer, selection: Selection::Energy }),
                    _ => Err(Invalid::new("reduce", "energy", "no channel, position or direction beside it")),
                };
            }
            (_, Some(share)) => {
                return Err(Invalid::new("fraction", share, "nothing, unless reduce is top-fraction"));
            }
        };
        let selection = match (channel, position, direction) {
            (Some(channel), None, None) => Selection::Channel { channel, reduction },
            (Some(channel), Some(position), None) if reduce.is_none() => Selection::Neuron { channel, position },
            (Some(_), Some(position), None) => {
                return Err(Invalid::new("position", format!("{position:?}"), "either position or reduce, not both"));
            }
            (None, None, Some(weights)) => {
                if let Some(i) = weights.iter().position(|w| !w.is_finite()) {
                    return Err(Invalid::new(format!("direction[{i}]"), weights[i], "a finite number"));
                }
                Selection::Direction { weights, reduction }
            }
            (None, Some(position), _) => {
                return Err(Invalid::new("position", format!("{position:?}"), "a channel beside it"));
            }
            (Some(channel), _, Some(_)) => {
                return Err(Invalid::new("channel", channel, "either channel or direction, not both"));
            }
            (None, None, None) => {
                return Err(Invalid::new("channel", "nothing", "a channel, a direction, or reduce: energy"));
            }
        };
        Ok(Self { layer, selection })
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

/// The string form; a direction, which has none, is shown by its number of weights.
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = &self.layer;
        match &self.selection {
            Selection::Channel { channel, reduction } => write!(f, "{layer}:{channel}{reduction}"),
            Selection::Neuron { channel, position: [y, x] } => write!(f, "{layer}:{channel}@{y},{x}"),
            Selection::Direction { weights, reduction } => write!(f, "{layer}:<{} weights>{reduction}", weights.len()),
            Selection::Energy => write!(f, "{layer}@energy"),
        }
    }
}

impl Unit {
    /// Finds the unit's layer and checks that the selection exists there, at the layer's shape `shape_of(layer)`.
    ///
    /// # Errors
    /// Names the field (`layer`, `channel`, `position`, `direction`) and the layers or indices that exist.
    pub fn locate(&self, network: &Network, shape_of: impl Fn(NodeId) -> Shape) -> Result<NodeId, Invalid> {
        let found = network.find(&self.layer).filter(|&id| id != Network::INPUT);
        let id = found.ok_or_else(|| Invalid::new("layer", &self.layer, expected_layers(network, &self.layer)))?;
        let shape = shape_of(id);
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
            Selection::Direction { .. } | Selection::Energy => {}
        }
        Ok(id)
    }
}

/// A phrase that helps to find the layer that was meant.
fn expected_layers(network: &Network, wanted: &str) -> String {
    let wanted = wanted.to_lowercase();
    let names: Vec<&str> = network.layers().map(|layer| layer.name).collect();
    let close: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| {
            let name = name.to_lowercase();
            !wanted.is_empty() && (name.contains(&wanted) || wanted.contains(&name))
        })
        .take(5)
        .collect();
    match (close.is_empty(), names.last()) {
        (false, _) => format!("one of the model's {} layers, such as {}", names.len(), close.join(", ")),
        (true, Some(last)) => format!("one of the model's {} layers, such as {last}", names.len()),
        (true, None) => "a layer, but this model has none".into(),
    }
}

impl From<&Unit> for UnitDocument {
    fn from(unit: &Unit) -> Self {
        let mut document = Self {
            layer: unit.layer.clone(),
            channel: None,
            position: None,
            direction: None,
            reduce: None,
            fraction: None,
        };
        let mut reduced = |reduction: Reduction| {
            (document.reduce, document.fraction) = match reduction {
                Reduction::Mean => (None, None),
                Reduction::Center => (Some(ReduceDocument::Center), None),
                Reduction::Max => (Some(ReduceDocument::Max), None),
                Reduction::TopFraction(share) => (Some(ReduceDocument::TopFraction), Some(share)),
            };
        };
        match &unit.selection {
            Selection::Channel { channel, reduction } => {
                reduced(*reduction);
                document.channel = Some(*channel);
            }
            Selection::Neuron { channel, position } => {
                document.channel = Some(*channel);
                document.position = Some(*position);
            }
            Selection::Direction { weights, reduction } => {
                reduced(*reduction);
                document.direction = Some(weights.clone());
            }
            Selection::Energy => document.reduce = Some(ReduceDocument::Energy),
        }
        document
    }
}
