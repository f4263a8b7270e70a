//! `proxygrad openapi`: prints the OpenAPI document.

use std::io::Write;

/// Prints the OpenAPI document of a server with default limits.
pub fn print() -> anyhow::Result<()> {
    let document = proxygrad_server::api::openapi_document()?;
    Ok(std::io::stdout().write_all(document.as_bytes())?)
}
