//! `GET /problems` and `GET /problems/{kind}`: what the `type` of a problem document leads to.

use std::fmt::Write;

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::parameters::InPath;
use super::problem::{Answer, Kind, Problem, declare_problems};

/// The schema of a kind's name.
struct Slug;

impl PartialSchema for Slug {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(Kind::ALL.map(Kind::slug))).into()
    }
}

impl ToSchema for Slug {}

declare_problems!(NeverRefused: );
declare_problems!(Refused: NotFound);

/// Kinds of problems
#[utoipa::path(get, path = "/problems", operation_id = "listProblems", tag = "about",
    responses((status = 200, description = "Every kind of problem, for people.", content_type = "text/plain",
               body = String), NeverRefused))]
pub(super) async fn all() -> String {
    Kind::ALL.into_iter().fold(String::new(), |text, kind| text + &page(kind) + "\n")
}

/// A kind of problem
#[utoipa::path(get, path = "/problems/{kind}", operation_id = "getProblem", tag = "about",
    params(("kind" = inline(Slug), Path, description = "Last part of the problem's `type`.")),
    responses((status = 200, description = "What it means and what to do, for people.", content_type = "text/plain",
               body = String), Refused))]
pub(super) async fn one(path: InPath) -> Answer<String> {
    let kind = Kind::find(path.text("kind"));
    kind.map(page).ok_or_else(|| Problem::new(Kind::NotFound, "there is no such kind of problem; see /problems"))
}

fn page(kind: Kind) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}\n{} (HTTP status {})\n\n{}", kind.title(), kind.uri(), kind.status(), kind.meaning());
    text
}
