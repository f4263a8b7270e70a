//! Documents that are a string or an object.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// Deserializes `T` from a string (through [`FromStr`]) or from an object (through `Full`).
///
/// Unlike an untagged enum, it keeps the error of the form that was used.
pub(crate) fn string_or_object<'de, D, T, Full>(deserializer: D, expected: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display> + TryFrom<Full, Error: fmt::Display>,
    Full: Deserialize<'de>,
{
    struct Either<T, Full>(&'static str, PhantomData<(T, Full)>);

    impl<'de, T, Full> Visitor<'de> for Either<T, Full>
    where
        T: FromStr<Err: fmt::Display> + TryFrom<Full, Error: fmt::Display>,
        Full: Deserialize<'de>,
    {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
            let full = Full::deserialize(MapAccessDeserializer::new(map))?;
            T::try_from(full).map_err(serde::de::Error::custom)
        }
    }

    deserializer.deserialize_any(Either(expected, PhantomData))
}

/// The schema of a document that is either a word or an object.
macro_rules! string_or_object_schema {
    ($document:ident, $word:ident, $object:ident, $description:literal $(,)?) => {
        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $document {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::OneOfBuilder::new()
                    .item(utoipa::openapi::Ref::from_schema_name(<$word as utoipa::ToSchema>::name()))
                    .item(<$object as utoipa::PartialSchema>::schema())
                    .description(Some($description))
                    .into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $document {
            fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
                schemas.push((<$word as utoipa::ToSchema>::name().into(), <$word as utoipa::PartialSchema>::schema()));
            }
        }
    };
}
pub(super) use string_or_object_schema;
