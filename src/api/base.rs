//! The path before the service's own paths, as the client sees it.

use std::convert::Infallible;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{Extensions, HeaderMap, Request};

use super::Api;
use super::client::{Arrival, forwarded};
use crate::config::{BasePath, Config};

/// The path under which the client reaches the service: what a trusted proxy says in `X-Forwarded-Prefix`, or the setting
/// `base_path`. Links begin with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Base(BasePath);

impl Base {
    /// The base path of a request.
    pub fn of(config: &Config, headers: &HeaderMap, extensions: &Extensions) -> Self {
        // Each proxy on the way removes its own prefix: the inner ones follow the outer ones.
        let said = forwarded(config, extensions.get::<Arrival>(), headers, "x-forwarded-prefix");
        let said: Option<String> = said.map(|path| Some(path.parse::<BasePath>().ok()?.as_str().to_owned())).collect();
        let said = said.filter(|path| !path.is_empty()).and_then(|path| path.parse().ok());
        Self(said.unwrap_or_else(|| config.base_path.clone()))
    }

    /// A path of this service, as the client has to ask for it.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.0.as_str())
    }

    /// What stands before every path; empty where nothing does.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl FromRequestParts<Api> for Base {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Infallible> {
        Ok(Self::of(api.config(), &parts.headers, &parts.extensions))
    }
}

/// The request without the base path: some proxies remove it, others do not.
pub(super) fn strip<B>(base: &BasePath, mut request: Request<B>) -> Request<B> {
    if let Some(uri) = stripped(base.as_str(), request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

fn stripped(base: &str, uri: &Uri) -> Option<Uri> {
    if base.is_empty() {
        return None;
    }
    let whole = uri.path_and_query()?.as_str();
    let rest = whole.strip_prefix(base)?;
    let rest = match rest.bytes().next() {
        Some(b'/') => rest.to_owned(),
        None | Some(b'?') => format!("/{rest}"),
        // Only the beginning of a longer name.
        Some(_) => return None,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(rest).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn the_base_path_is_removed_where_it_stands_whole() {
        for (uri, path) in [
            ("/xai/v1/jobs?limit=1", Some("/v1/jobs?limit=1")),
            ("/xai", Some("/")),
            ("/xai?a=b", Some("/?a=b")),
            ("http://h:1/xai/docs/", Some("http://h:1/docs/")),
            ("/xaiver/v1", None),
            ("/v1/jobs", None),
            ("/v1/xai/", None),
        ] {
            let found = stripped("/xai", &uri.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), path, "{uri}");
        }
        assert_eq!(stripped("", &"/v1".parse().unwrap()), None);
    }

    #[test]
    fn a_prefix_is_believed_from_trusted_proxies_only_and_only_as_a_path() {
        let config = Config { base_path: "/set".parse().unwrap(), ..Config::defaults() };
        let base = |peer: &str, said: &str| {
            let mut extensions = Extensions::new();
            let at = std::time::Instant::now();
            extensions.insert(Arrival { peer: peer.parse().unwrap(), at, reserve: false });
            let headers = HeaderMap::from_iter([("x-forwarded-prefix".parse().unwrap(), said.parse().unwrap())]);
            Base::of(&config, &headers, &extensions).path("/docs")
        };
        assert_eq!(base("127.0.0.1", "/xai"), "/xai/docs");
        assert_eq!(base("127.0.0.1", "/xai/, /inner"), "/xai/inner/docs");
        assert_eq!(base("192.0.2.1", "/xai"), "/set/docs");
        for bad in ["//evil.example", "https://evil.example", "/a\"b", "", "/", "/xai, //evil"] {
            assert_eq!(base("127.0.0.1", bad), "/set/docs", "{bad}");
        }
    }
}
