//! Request body of a submission: JSON, or a form with the JSON and the images it refers to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::FromRequest;
use futures_util::stream;
use multer::Multipart;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{KnownFormat, Ref, RefOr, Schema, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use crate::api::body::{Body, MediaType};
use crate::api::problem::{Kind, Problem};
use crate::api::{Api, json_error};
use proxygrad::Invalid;
use proxygrad::maximize::Request;

/// A request with its images attached.
pub(super) struct Submission(pub Request);

/// Name of the part with the JSON.
const REQUEST: &str = "request";
/// Maximum number of parts of a form.
const MAX_PARTS: usize = 256;

impl FromRequest<Api> for Submission {
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, api: &Api) -> Result<Self, Problem> {
        let Body { media_type, bytes } = Body::from_request(request, api).await?;
        let invalid = |error| Problem::invalid(Kind::InvalidRequest, error);
        let (json, images) = match media_type {
            MediaType::Json => (bytes, BTreeMap::new()),
            MediaType::Form { boundary } => {
                let mut parts = parts(bytes, boundary).await?;
                let expected = "a form part with the request as JSON";
                let json = parts.remove(REQUEST);
                (json.ok_or_else(|| invalid(Invalid::new(REQUEST, "nothing", expected)))?, parts)
            }
        };
        let mut request: Request = json_error::parse(&json)?;
        let images = images.into_iter().map(|(name, file)| (name, Arc::from(&file[..]))).collect();
        request.attach(&images).map_err(invalid)?;
        Ok(Self(request))
    }
}

/// The parts of a form by name (RFC 7578).
async fn parts(bytes: Bytes, boundary: String) -> Result<BTreeMap<String, Bytes>, Problem> {
    let malformed = |error: multer::Error| Problem::new(Kind::MalformedForm, error.to_string());
    let mut form = Multipart::new(stream::iter([Ok::<_, Infallible>(bytes)]), boundary);
    let mut parts = BTreeMap::new();
    while let Some(field) = form.next_field().await.map_err(malformed)? {
        let Some(name) = field.name().map(str::to_owned) else {
            return Err(Problem::new(Kind::MalformedForm, "a part of the form has no name"));
        };
        let bytes = field.bytes().await.map_err(malformed)?;
        if parts.len() == MAX_PARTS {
            return Err(Problem::new(Kind::MalformedForm, format!("the form has more than {MAX_PARTS} parts")));
        }
        if parts.insert(name.clone(), bytes).is_some() {
            let error = Invalid::new(name, "a second part", "one part of each name");
            return Err(Problem::invalid(Kind::InvalidRequest, error));
        }
    }
    Ok(parts)
}

/// Schema of the form.
pub(super) struct Form;

impl PartialSchema for Form {
    fn schema() -> RefOr<Schema> {
        let image = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
            .description(Some("A PNG or JPEG that the request refers to as `part:NAME`."));
        ObjectBuilder::new()
            .property(REQUEST, Ref::from_schema_name(Request::name()))
            .required(REQUEST)
            .additional_properties(Some(image))
            .description(Some("The request as JSON, and the images it refers to as `part:NAME`."))
            .into()
    }
}

impl ToSchema for Form {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    async fn read(body: &str) -> Result<Vec<(String, Bytes)>, Problem> {
        Ok(parts(Bytes::from(body.replace('\n', "\r\n")), "b".into()).await?.into_iter().collect())
    }

    #[tokio::test]
    async fn a_form_is_split_into_its_parts() {
        let form = "--b\nContent-Disposition: form-data; name=\"request\"\n\n{}\n\
                    --b\nContent-Disposition: form-data; name=\"photo\"; filename=\"x.png\"\n\
                    Content-Type: image/png\n\n\u{1}--\n--b--\n";
        let parts = read(form).await.unwrap();
        assert_eq!(parts, [("photo".into(), Bytes::from("\u{1}--")), ("request".into(), Bytes::from("{}"))]);
    }

    #[tokio::test]
    async fn malformed_forms_are_rejected() {
        let unnamed = "--b\nContent-Disposition: form-data\n\nx\n--b--\n";
        let cut = "--b\nContent-Disposition: form-data; name=\"a\"\n\nx\n";
        for body in ["", "{}", "--b", "--c\n\n--c--\n", unnamed, cut] {
            assert_eq!(read(body).await.unwrap_err().kind(), Kind::MalformedForm, "{body}");
        }
        let part = "--b\nContent-Disposition: form-data; name=\"a\"\n\nx\n";
        assert_eq!(read(&format!("{part}{part}--b--\n")).await.unwrap_err().errors()[0].field, "a");
        let many: String = (0..257).map(|n| part.replace("\"a\"", &format!("\"{n}\""))).collect();
        assert_eq!(read(&format!("{many}--b--\n")).await.unwrap_err().kind(), Kind::MalformedForm);
    }
}
