//! JSON documents of units.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::openapi::schema::{ObjectBuilder, Type};
#[cfg(feature = "openapi")]
use utoipa::openapi::{RefOr, Schema};
#[cfg(feature = "openapi")]
use utoipa::{PartialSchema, ToSchema};

use super::{Reduction, Selection, Unit, top_fraction};
use crate::Invalid;
use crate::network::ImageSource;

/// A unit as a JSON object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UnitDocument {
    /// Name of the layer; `LAYER@class` or `LAYER@tokenI` for a token of a layer besides its patches.
    pub layer: String,
    /// Channel of a `[C,H,W]` layer, or neuron (class logit) of a `[K]` layer, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<usize>,
    /// Name of the class whose logit it is, instead of `channel`; case-insensitive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(examples("banana")))]
    pub class: Option<String>,
    /// Row and column of one neuron of the channel; not together with `reduce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 2, max_items = 2))]
    pub position: Option<[usize; 2]>,
    /// One weight per channel, instead of `channel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Vec<f32>>,
    /// Instead of `channel`: exaggerates the layer's activations on an image. At every position the value is `dot *
    /// max(cos, 0.1)^cosine_power` of the layer's channels on the stimulus and on the image; the score is the mean over
    /// positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caricature: Option<ImageDocument>,
    /// Instead of `channel`: inverts the layer's activations on an image. The score is the negative squared distance
    /// between the layer's values on the stimulus and on the image, divided by the squared norm of the latter; 0 is
    /// best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inversion: Option<ImageDocument>,
    /// With `direction` (default 0) or `caricature` (default 1): the weight of the angle. With `dot` the inner product
    /// of the direction and the layer's channels at a position, and `cos` the cosine between them, the value there is
    /// `dot * max(cos, 0.1)^cosine_power`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 16))]
    pub cosine_power: Option<f32>,
    /// Reduction over positions; default `mean`. `energy` is the mean square of the whole layer and excludes `channel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<ReduceDocument>,
    /// Fraction of the largest positions for `top-fraction`, in (0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0, maximum = 1))]
    pub fraction: Option<f32>,
}

/// The reference image of a caricature or inversion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageDocument {
    /// The image.
    pub image: ImageSource,
}

/// Reduction over positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
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

/// The schema of a unit written as text.
#[derive(Debug, Clone, Copy)]
pub struct UnitText;

#[cfg(feature = "openapi")]
impl PartialSchema for UnitText {
    fn schema() -> RefOr<Schema> {
        let grammar = super::GRAMMAR;
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(format!("A unit as text: {grammar}.")))
            .pattern(Some(
                "^.+(:[^@]+(@(mean|center|max|top[0-9]*\\.?[0-9]+|[0-9]+,[0-9]+|class|token[0-9]+))?|@energy)$",
            ))
            .examples(["logits:8", "logits:Sneaker", "layer1/Relu_1:3@center", "blocks.3:17@class"])
            .into()
    }
}

#[cfg(feature = "openapi")]
impl ToSchema for UnitText {}

/// Largest power of the cosine.
const MAX_POWER: f32 = 16.0;

impl UnitDocument {
    fn empty(layer: String) -> Self {
        Self {
            layer,
            channel: None,
            class: None,
            position: None,
            direction: None,
            caricature: None,
            inversion: None,
            cosine_power: None,
            reduce: None,
            fraction: None,
        }
    }

    /// The given fields among those that select a part of the layer.
    fn selectors(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("channel", self.channel.is_some()),
            ("class", self.class.is_some()),
            ("direction", self.direction.is_some()),
            ("caricature", self.caricature.is_some()),
            ("inversion", self.inversion.is_some()),
        ];
        given.into_iter().filter_map(|(name, given)| given.then_some(name))
    }

    /// Reduction over positions; `None` for `energy`.
    fn reduction(&self) -> Result<Option<Reduction>, Invalid> {
        Ok(Some(match (self.reduce, self.fraction) {
            (None | Some(ReduceDocument::Mean), None) => Reduction::Mean,
            (Some(ReduceDocument::Center), None) => Reduction::Center,
            (Some(ReduceDocument::Max), None) => Reduction::Max,
            (Some(ReduceDocument::TopFraction), Some(share)) => top_fraction(share)?,
            (Some(ReduceDocument::TopFraction), None) => {
                return Err(Invalid::missing("fraction", "0.25"));
            }
            (Some(ReduceDocument::Energy), None) => return Ok(None),
            (_, Some(share)) => {
                return Err(Invalid::unsupported("fraction", share, "reduce top-fraction"));
            }
        }))
    }

    fn power(&self, default: f32) -> Result<f32, Invalid> {
        let power = self.cosine_power.unwrap_or(default);
        match (0.0..=MAX_POWER).contains(&power) {
            true => Ok(power),
            false => Err(Invalid::new("cosine_power", power, format!("a number from 0 to {MAX_POWER}"))),
        }
    }
}

impl TryFrom<UnitDocument> for Unit {
    type Error = Invalid;

    fn try_from(document: UnitDocument) -> Result<Self, Invalid> {
        let selectors: Vec<&str> = document.selectors().collect();
        if let [first, second, ..] = selectors[..] {
            let found = match document.channel {
                Some(channel) => channel.to_string(),
                None => format!("a {first} and a {second}"),
            };
            return Err(Invalid::new(first, found, format!("either {first} or {second}, not both")));
        }
        let reduction = document.reduction()?;
        let selector = selectors.first().copied();
        if let Some(power) = document.cosine_power.filter(|_| !matches!(selector, Some("direction" | "caricature"))) {
            return Err(Invalid::unsupported("cosine_power", power, "a direction or a caricature"));
        }
        if let Some(position) = document.position {
            let refused = |expected: &str| Err(Invalid::new("position", format!("{position:?}"), expected));
            match selector {
                Some("channel") if document.reduce.is_some() => {
                    return refused("either position or reduce, not both");
                }
                Some("channel") => {}
                _ if reduction.is_none() => {
                    return Err(Invalid::new("reduce", "energy", "no channel, position or direction with it"));
                }
                _ => return refused("a channel with it"),
            }
        }
        let Some(reduction) = reduction else {
            return match selector {
                None => Ok(Self { layer: document.layer, selection: Selection::Energy }),
                Some(_) => Err(Invalid::new("reduce", "energy", "no channel, position or direction with it")),
            };
        };
        if let Some(name @ ("caricature" | "inversion")) = selector
            && document.reduce.is_some()
        {
            let found = serde_json::to_string(&document.reduce).unwrap_or_default();
            let expected = format!("no reduce: a {name} reads every position");
            return Err(Invalid::new("reduce", found.trim_matches('"'), expected));
        }
        let (direction_power, caricature_power) = (document.power(0.0)?, document.power(1.0)?);
        let UnitDocument { layer, channel, class, position, direction, caricature, inversion, .. } = document;
        let selection = if let Some(channel) = channel {
            match position {
                Some(position) => Selection::Neuron { channel, position },
                None => Selection::Channel { channel, reduction },
            }
        } else if let Some(name) = class {
            Selection::Class { name, reduction }
        } else if let Some(weights) = direction {
            if let Some(i) = weights.iter().position(|w| !w.is_finite()) {
                return Err(Invalid::new(format!("direction[{i}]"), weights[i], "a finite number"));
            }
            Selection::Direction { weights, cosine_power: direction_power, reduction }
        } else if let Some(ImageDocument { image }) = caricature {
            Selection::Caricature { image, cosine_power: caricature_power }
        } else if let Some(ImageDocument { image }) = inversion {
            Selection::Inversion { image }
        } else {
            let example = "17; or a class, a direction, a caricature, an inversion or reduce: energy instead";
            return Err(Invalid::missing("channel", example));
        };
        Ok(Self { layer, selection })
    }
}

impl From<&Unit> for UnitDocument {
    fn from(unit: &Unit) -> Self {
        let mut document = Self::empty(unit.layer.clone());
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
            Selection::Class { name, reduction } => {
                reduced(*reduction);
                document.class = Some(name.clone());
            }
            Selection::Neuron { channel, position } => {
                document.channel = Some(*channel);
                document.position = Some(*position);
            }
            Selection::Direction { weights, cosine_power, reduction } => {
                reduced(*reduction);
                document.direction = Some(weights.clone());
                document.cosine_power = Some(*cosine_power).filter(|&power| power != 0.0);
            }
            Selection::Caricature { image, cosine_power } => {
                document.caricature = Some(ImageDocument { image: image.clone() });
                document.cosine_power = Some(*cosine_power);
            }
            Selection::Inversion { image } => document.inversion = Some(ImageDocument { image: image.clone() }),
            Selection::Energy => document.reduce = Some(ReduceDocument::Energy),
        }
        document
    }
}
