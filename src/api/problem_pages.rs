//! `GET /problems` and `GET /problems/{kind}`: documentation pages that the `type` of a problem document links to.

use std::fmt::Write;

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::parameters::PathParams;
use super::problem::{ApiResult, Kind, Problem, declare_problems};

/// Schema of the last part of a problem `type`.
struct Slug;

impl PartialSchema for Slug {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(Kind::ALL.map(Kind::slug))).into()
    }
}

impl ToSchema for Slug {}

declare_problems!(NoProblems: );
declare_problems!(Problems: NotFound);

/// List problem types
#[utoipa::path(get, path = "/problems", operation_id = "listProblems", tag = "about",
    responses((status = 200, description = "Human-readable descriptions of all problem types.", content_type = "text/plain",
               body = String), NoProblems))]
pub(super) async fn list() -> String {
    Kind::ALL.into_iter().fold(String::new(), |text, kind| text + &page(kind) + "\n")
}

/// Get a problem type
#[utoipa::path(get, path = "/problems/{kind}", operation_id = "getProblem", tag = "about",
    params(("kind" = inline(Slug), Path, description = "Last part of the problem's `type`.")),
    responses((status = 200, description = "Human-readable description: what the problem means and how to solve it.", content_type = "text/plain",
               body = String), Problems))]
pub(super) async fn get(path: PathParams) -> ApiResult<String> {
    let kind = Kind::find(path.text("kind"));
    kind.map(page).ok_or_else(|| Problem::new(Kind::NotFound, "no such problem type; see /problems"))
}

fn page(kind: Kind) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ =
        writeln!(text, "{}\n{} (HTTP status {})\n\n{}", kind.title(), kind.uri(), kind.status(), kind.description());
    text
}
