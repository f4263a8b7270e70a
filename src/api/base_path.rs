//! The base path of the service as the client sees it: a proxy may publish the service below `/xai`.

use std::convert::Infallible;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{Extensions, HeaderMap, Request};

use super::Api;
use super::client::{RequestArrival, forwarded};
use crate::config::{BasePath, Config};

/// Path under which the client reaches the service: `X-Forwarded-Prefix` of a trusted proxy, or the setting
/// `base_path`. Prefix of all links in responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PublicBasePath(BasePath);

impl PublicBasePath {
    /// The base path for the response to a request.
    pub fn of(config: &Config, headers: &HeaderMap, extensions: &Extensions) -> Self {
        // Each proxy removes its own prefix; an inner proxy's prefix follows the outer ones.
        let prefixes = forwarded(config, extensions.get::<RequestArrival>(), headers, "x-forwarded-prefix");
        let prefix: Option<String> =
            prefixes.map(|path| Some(path.parse::<BasePath>().ok()?.as_str().to_owned())).collect();
        let prefix = prefix.filter(|path| !path.is_empty()).and_then(|path| path.parse().ok());
        Self(prefix.unwrap_or_else(|| config.base_path.clone()))
    }

    /// A path of this service, as the client has to request it.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.0.as_str())
    }

    /// The prefix without a trailing slash; may be empty.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for PublicBasePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl FromRequestParts<Api> for PublicBasePath {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Infallible> {
        Ok(Self::of(api.config(), &parts.headers, &parts.extensions))
    }
}

/// Removes the base path from a request: some proxies do this themselves, others do not.
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
        // A prefix of a longer path segment.
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
    fn the_base_path_is_removed_only_as_whole_segments() {
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
        let base = |peer: &str, prefix: &str| {
            let mut extensions = Extensions::new();
            let at = std::time::Instant::now();
            extensions.insert(RequestArrival { peer: peer.parse().unwrap(), at, reserve: false });
            let headers = HeaderMap::from_iter([("x-forwarded-prefix".parse().unwrap(), prefix.parse().unwrap())]);
            PublicBasePath::of(&config, &headers, &extensions).path("/docs")
        };
        assert_eq!(base("127.0.0.1", "/xai"), "/xai/docs");
        assert_eq!(base("127.0.0.1", "/xai/, /inner"), "/xai/inner/docs");
        assert_eq!(base("192.0.2.1", "/xai"), "/set/docs");
        for bad in ["//evil.example", "https://evil.example", "/a\"b", "", "/", "/xai, //evil"] {
            assert_eq!(base("127.0.0.1", bad), "/set/docs", "{bad}");
        }
    }
}
