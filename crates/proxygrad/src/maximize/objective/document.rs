//! Objectives: weighted sums of units.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
#[cfg(feature = "openapi")]
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type};
#[cfg(feature = "openapi")]
use utoipa::openapi::{RefOr, Schema};
#[cfg(feature = "openapi")]
use utoipa::{PartialSchema, ToSchema};

use crate::Invalid;
use crate::maximize::string_or_object::string_or_object;
use crate::network::{ImageDocument, ReduceDocument, Unit, UnitDocument};

/// Objective of one stimulus: a weighted sum of units.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// At least one term.
    pub terms: Vec<Term>,
}

/// One unit and its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// The unit.
    pub unit: Unit,
    /// Its weight; negative to minimize the unit.
    pub weight: f32,
}

/// An objective as written in a request: a unit as text (`"fire5:17@center"`), a unit as an object, or
/// `{"sum": [...]}` of weighted units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(untagged)]
pub enum ObjectiveDocument {
    /// `LAYER:CHANNEL` or `LAYER:CLASS`, optionally followed by `@mean`, `@center`, `@max`, `@topFRACTION`, (after a
    /// channel) `@ROW,COLUMN` or a token such as `@class`; or `LAYER@energy`.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::network::UnitText))]
    Text(String),
    /// A weighted sum of units.
    Sum(SumDocument),
    /// One unit.
    #[cfg_attr(feature = "openapi", schema(value_type = WeightedUnitDocument))]
    Unit(UnitDocument),
}

/// A weighted sum of units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SumDocument {
    /// The terms.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 64))]
    pub sum: Vec<TermDocument>,
}

/// One term of a sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(untagged)]
pub enum TermDocument {
    /// A unit as text, with weight 1.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::network::UnitText))]
    Text(String),
    /// A unit with its weight.
    Weighted(WeightedUnitDocument),
}

/// A unit with its weight in a sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightedUnitDocument {
    /// The unit.
    #[serde(flatten)]
    pub unit: UnitDocument,
    /// Its weight; 1 unless given, negative to minimize the unit.
    #[serde(default = "one")]
    pub weight: f32,
}

fn one() -> f32 {
    1.0
}

#[cfg(feature = "openapi")]
impl PartialSchema for WeightedUnitDocument {
    /// The unit's fields and the weight in one closed object.
    fn schema() -> RefOr<Schema> {
        let weight = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::Number, Type::Null]))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Float)))
            .description(Some("Its weight; 1 unless given, negative to minimize the unit."));
        match UnitDocument::schema() {
            RefOr::T(Schema::Object(mut unit)) => {
                unit.properties.insert("weight".into(), weight.into());
                unit.description = Some("A unit with its weight.".into());
                unit.into()
            }
            other => other,
        }
    }
}

#[cfg(feature = "openapi")]
impl ToSchema for WeightedUnitDocument {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        UnitDocument::schemas(schemas);
    }
}

/// Largest number of terms of an objective.
const MOST_TERMS: usize = 64;

/// Every field of an objective's or a term's object, so that an error can name the one that is wrong.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyObject {
    sum: Option<Vec<Term>>,
    layer: Option<String>,
    channel: Option<usize>,
    class: Option<String>,
    position: Option<[usize; 2]>,
    direction: Option<Vec<f32>>,
    caricature: Option<ImageDocument>,
    inversion: Option<ImageDocument>,
    cosine_power: Option<f32>,
    reduce: Option<ReduceDocument>,
    fraction: Option<f32>,
    weight: Option<f32>,
}

impl AnyObject {
    /// Name of the first field of a unit that was given.
    fn first_field(&self) -> Option<&'static str> {
        let given = [
            ("layer", self.layer.is_some()),
            ("channel", self.channel.is_some()),
            ("class", self.class.is_some()),
            ("position", self.position.is_some()),
            ("direction", self.direction.is_some()),
            ("caricature", self.caricature.is_some()),
            ("inversion", self.inversion.is_some()),
            ("cosine_power", self.cosine_power.is_some()),
            ("reduce", self.reduce.is_some()),
            ("fraction", self.fraction.is_some()),
            ("weight", self.weight.is_some()),
        ];
        given.into_iter().find_map(|(name, given)| given.then_some(name))
    }
}

impl TryFrom<AnyObject> for Term {
    type Error = Invalid;

    fn try_from(object: AnyObject) -> Result<Self, Invalid> {
        if object.sum.is_some() {
            return Err(Invalid::new("sum", "a sum inside a sum", "units only"));
        }
        let layer = object.layer.ok_or_else(|| Invalid::new("layer", "nothing", "the name of a layer"))?;
        let weight = object.weight.unwrap_or(1.0);
        if !weight.is_finite() {
            return Err(Invalid::new("weight", weight, "a finite number"));
        }
        let unit = UnitDocument {
            layer,
            channel: object.channel,
            class: object.class,
            position: object.position,
            direction: object.direction,
            caricature: object.caricature,
            inversion: object.inversion,
            cosine_power: object.cosine_power,
            reduce: object.reduce,
            fraction: object.fraction,
        };
        Ok(Self { unit: unit.try_into()?, weight })
    }
}

impl TryFrom<AnyObject> for Objective {
    type Error = Invalid;

    fn try_from(mut object: AnyObject) -> Result<Self, Invalid> {
        let Some(terms) = object.sum.take() else {
            return Ok(Self { terms: vec![object.try_into()?] });
        };
        if let Some(field) = object.first_field() {
            return Err(Invalid::new(field, format!("a {field} beside a sum"), "either sum or one unit, not both"));
        }
        if terms.is_empty() || terms.len() > MOST_TERMS {
            return Err(Invalid::new("sum", format!("{} terms", terms.len()), format!("1 to {MOST_TERMS} terms")));
        }
        Ok(Self { terms })
    }
}

impl FromStr for Term {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Ok(Self { unit: text.parse()?, weight: 1.0 })
    }
}

impl TryFrom<&str> for Objective {
    type Error = Invalid;

    fn try_from(text: &str) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl FromStr for Objective {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Ok(Self { terms: vec![text.parse()?] })
    }
}

impl<'de> Deserialize<'de> for Term {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string_or_object::<D, Self, AnyObject>(deserializer, "a unit, as text or as an object")
    }
}

impl<'de> Deserialize<'de> for Objective {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string_or_object::<D, Self, AnyObject>(deserializer, "a unit as text, a unit as an object, or {\"sum\": [...]}")
    }
}

impl Serialize for Objective {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

impl Objective {
    /// The objective as written in a request, in its shortest form.
    pub fn document(&self) -> ObjectiveDocument {
        let weighted = |term: &Term| match term.weight == 1.0 && term.unit.has_text() {
            true => TermDocument::Text(term.unit.to_string()),
            false => TermDocument::Weighted(WeightedUnitDocument { unit: (&term.unit).into(), weight: term.weight }),
        };
        match self.terms.as_slice() {
            [term] if term.weight == 1.0 => match term.unit.has_text() {
                true => ObjectiveDocument::Text(term.unit.to_string()),
                false => ObjectiveDocument::Unit((&term.unit).into()),
            },
            terms => ObjectiveDocument::Sum(SumDocument { sum: terms.iter().map(weighted).collect() }),
        }
    }
}

/// `logits:281 - logits:285`
impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Term { unit, weight }) in self.terms.iter().enumerate() {
            match (i, weight.is_sign_negative()) {
                (0, false) => {}
                (0, true) => write!(f, "-")?,
                (_, false) => write!(f, " + ")?,
                (_, true) => write!(f, " - ")?,
            }
            if weight.abs() != 1.0 {
                write!(f, "{} * ", weight.abs())?;
            }
            write!(f, "{unit}")?;
        }
        Ok(())
    }
}
