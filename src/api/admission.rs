//! Admission of requests: checks of the host (DNS rebinding) and of the origin (cross-site requests), and a refusal
//! while there are too many connections.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::client::{RequestArrival, RequestSite, forwarded};
use super::problem::{ApiResult, Kind, Problem};
use super::request_log::PROBES;
use crate::config::{Authority, Config};

/// `Retry-After` of a refusal for too many connections or event streams, in seconds.
pub(super) const OVERLOAD_RETRY_AFTER: u32 = 1;

/// Middleware that refuses a request with a problem, or passes it on with its [`RequestSite`].
pub(super) async fn admit(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    match check(api.config(), &request) {
        Ok(site) => {
            request.extensions_mut().insert(site);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn check<B>(config: &Config, request: &Request<B>) -> ApiResult<RequestSite> {
    let arrival = request.extensions().get::<RequestArrival>();
    let path = request.uri().path();
    if arrival.is_some_and(|arrival| arrival.reserve) && !PROBES.contains(&path) {
        let detail = format!("there are more than {} connections; try again later", config.max_connections);
        return Err(Problem::new(Kind::Overloaded, detail).retry_after(OVERLOAD_RETRY_AFTER));
    }
    // Orchestrators probe under any host name, and the answers reveal little.
    let host = if matches!(path, "/livez" | "/readyz") {
        host(request).ok().flatten()
    } else {
        let host = host(request)?;
        host.as_ref().map_or(Ok(()), |host| check_host(config, host))?;
        host
    };
    let forwarded_host = forwarded(config, arrival, request.headers(), "x-forwarded-host").next();
    match check_site(config, request.headers(), &[host, forwarded_host.and_then(|host| host.parse().ok())]) {
        Ok(()) => Ok(RequestSite::Trusted),
        Err(_) if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) => {
            Ok(RequestSite::CrossSite)
        }
        Err(problem) => Err(problem),
    }
}

/// The requested host, from the request target (HTTP/2, or absolute form) or the `Host` header.
fn host<B>(request: &Request<B>) -> ApiResult<Option<Authority>> {
    let wrong = |found: &str, expected: String| {
        Err(Problem::invalid(Kind::InvalidParameter, proxygrad::Invalid::new("Host", found, expected)))
    };
    let mut lines = request.headers().get_all(header::HOST).iter();
    let line = lines.next();
    if lines.next().is_some() && request.version() <= Version::HTTP_11 {
        return wrong("two hosts", "a single Host header".into());
    }
    let text = match (request.uri().authority(), line) {
        (Some(authority), _) => authority.as_str(),
        // HTTP/1.0 clients only: every browser sends a host.
        (None, None) => return Ok(None),
        (None, Some(line)) => match line.to_str() {
            Ok(text) => text.trim(),
            Err(_) => return wrong(&String::from_utf8_lossy(line.as_bytes()), "a host with an optional port".into()),
        },
    };
    match text.parse() {
        Ok(host) => Ok(Some(host)),
        Err(_) => wrong(text, "a host with an optional port, such as localhost:8080".into()),
    }
}

/// Protects against DNS rebinding: a page whose domain name resolves to this server must not send requests to it.
/// Literal IP addresses cannot be rebound.
fn check_host(config: &Config, found: &Authority) -> ApiResult<()> {
    let public = !config.listen.ip().is_loopback();
    let known = match found.address() {
        Some(address) => public || address.to_canonical().is_loopback(),
        None => {
            let local = found.host == "localhost" || found.host.ends_with(".localhost");
            // A name without a dot is local to this network (a container, a service), so no outsider can own it.
            local || (public && !found.host.contains('.'))
        }
    };
    if known || config.allowed_host.iter().any(|pattern| pattern.matches(found)) {
        return Ok(());
    }
    let host = &found.host;
    Err(Problem::new(
        Kind::UnknownHost,
        format!(
            "this server does not accept requests for the host {host}; to allow it, start the server with \
             --allowed-host {host} (PROXYGRAD_ALLOWED_HOST, or allowed_host in the configuration file)"
        ),
    ))
}

/// Accepts requests from this server's own pages, from pages of the configured origins, and from clients that are not
/// browsers (Fetch Metadata, and `Origin` of the Fetch standard, section 3.1).
fn check_site(config: &Config, headers: &HeaderMap, hosts: &[Option<Authority>]) -> ApiResult<()> {
    let values = |name| headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let origins: Vec<_> = values("origin").collect();
    let allowed = |origin: &str| config.cors_origin.iter().any(|known| known.matches(origin));
    if !origins.is_empty() && origins.iter().all(|origin| allowed(origin)) {
        return Ok(());
    }
    let mut sites = values("sec-fetch-site").peekable();
    let own = match sites.peek().is_some() {
        // More reliable than comparing hosts, which a proxy may have changed.
        true => sites.all(|site| matches!(&*site, "same-origin" | "none")),
        false => origins.iter().all(|origin| hosts.iter().flatten().any(|host| is_same_origin(origin, host))),
    };
    if own {
        return Ok(());
    }
    let from = origins.first().map_or_else(|| "another site".to_owned(), |origin| origin.chars().take(200).collect());
    Err(Problem::new(
        Kind::CrossSiteRequest,
        format!(
            "a page of {from} is not allowed to send this request; to allow it, start the server with --cors-origin \
             and that origin (PROXYGRAD_CORS_ORIGIN, or cors_origin in the configuration file)"
        ),
    ))
}

/// Whether pages of this host have this origin.
fn is_same_origin(origin: &str, host: &Authority) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let port = |authority: &Authority| authority.port.unwrap_or(default_port);
    rest.parse().is_ok_and(|origin: Authority| origin.host == host.host && port(&origin) == port(host))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::net::SocketAddr;
    use std::time::Instant;

    use super::*;

    fn config() -> Config {
        Config::defaults()
    }

    fn request(method: Method, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri("/v1/jobs");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        let peer = "127.0.0.1".parse().unwrap();
        request.extensions_mut().insert(RequestArrival { peer, at: Instant::now(), reserve: false });
        request
    }

    fn kind(config: &Config, method: Method, headers: &[(&str, &str)]) -> Option<Kind> {
        check(config, &request(method, headers)).err().map(|problem| problem.kind())
    }

    #[test]
    fn a_server_on_loopback_accepts_loopback_and_configured_names() {
        let ask = |config: &Config, host: &str| kind(config, Method::GET, &[("host", host)]);
        for good in
            ["localhost", "LocalHost:8080", "127.0.0.1:9", "127.8.9.1", "[::1]:8080", "app.localhost", "localhost."]
        {
            assert_eq!(ask(&config(), good), None, "{good}");
        }
        let foreign =
            ["evil.example", "evil.example:8080", "192.168.1.5", "localhost.evil.example", "notlocalhost", "evil"];
        for bad in foreign {
            assert_eq!(ask(&config(), bad), Some(Kind::UnknownHost), "{bad}");
        }
        for bad in ["", "a b", "evil.example/", "u@localhost", "localhost:x"] {
            assert_eq!(ask(&config(), bad), Some(Kind::InvalidParameter), "{bad}");
        }
        assert_eq!(kind(&config(), Method::GET, &[]), None, "HTTP/1.0 has no Host header");
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(kind(&config(), Method::GET, &two), Some(Kind::InvalidParameter));

        let named = Config { allowed_host: vec!["xai.example.org".parse().unwrap()], ..config() };
        assert_eq!(ask(&named, "xai.example.org:443"), None);
        assert_eq!(ask(&named, "evil.example"), Some(Kind::UnknownHost));
        let problem = check(&config(), &request(Method::GET, &[("host", "evil.example")])).unwrap_err();
        assert!(problem.detail().contains("--allowed-host evil.example"), "{}", problem.detail());
    }

    #[test]
    fn a_public_server_also_accepts_addresses_and_names_of_its_network() {
        let listen: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        let public = Config { listen, ..config() };
        for good in ["10.42.0.7:8080", "[fd00::7]", "proxygrad:8080", "localhost"] {
            assert_eq!(kind(&public, Method::GET, &[("host", good)]), None, "{good}");
        }
        for bad in ["evil.example", "10.42.0.7.evil.example", "10.42.0.7.nip.io"] {
            assert_eq!(kind(&public, Method::GET, &[("host", bad)]), Some(Kind::UnknownHost), "{bad}");
        }
    }

    #[test]
    fn pages_of_other_sites_cannot_send_requests_with_side_effects() {
        let post = |headers: &[(&str, &str)]| {
            kind(&config(), Method::POST, &[&[("host", "127.0.0.1:8080")], headers].concat())
        };
        for good in [
            &[][..],
            &[("origin", "http://127.0.0.1:8080")],
            &[("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")],
            // Through a proxy that replaces the host.
            &[("origin", "https://xai.example.org"), ("sec-fetch-site", "same-origin")],
            &[("origin", "https://xai.example.org"), ("x-forwarded-host", "xai.example.org")],
            &[("origin", "https://xai.example.org:443"), ("x-forwarded-host", "xai.example.org")],
            &[("sec-fetch-site", "none")],
        ] {
            assert_eq!(post(good), None, "{good:?}");
        }
        for bad in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "http://127.0.0.1:3000")],
            &[("origin", "http://localhost:8080")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "http://127.0.0.1:8080"), ("origin", "https://evil.example")],
            &[("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:3000")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "")],
        ] {
            assert_eq!(post(bad), Some(Kind::CrossSiteRequest), "{bad:?}");
            for method in [Method::DELETE, Method::PUT, Method::PATCH] {
                let headers = [&[("host", "127.0.0.1:8080")], bad].concat();
                assert_eq!(kind(&config(), method, &headers), Some(Kind::CrossSiteRequest), "{bad:?}");
            }
        }
        let image = [("host", "127.0.0.1"), ("sec-fetch-site", "cross-site")];
        let site = check(&config(), &request(Method::GET, &image)).unwrap();
        assert_eq!(site, RequestSite::CrossSite, "reading changes nothing");
        assert_eq!(check(&config(), &request(Method::GET, &[("host", "127.0.0.1")])).unwrap(), RequestSite::Trusted);
    }

    #[test]
    fn pages_of_configured_origins_can() {
        let dash = Config { cors_origin: vec!["https://dash.example".parse().unwrap()], ..config() };
        let post = |origin: &str| {
            let headers = [("host", "127.0.0.1"), ("origin", origin), ("sec-fetch-site", "cross-site")];
            kind(&dash, Method::POST, &headers)
        };
        assert_eq!(post("https://dash.example"), None);
        for bad in ["https://evil.example", "http://dash.example", "https://dash.example.evil.example", "null"] {
            assert_eq!(post(bad), Some(Kind::CrossSiteRequest), "{bad}");
        }
    }

    #[test]
    fn a_forwarded_host_is_accepted_from_trusted_proxies_only() {
        let no_proxy = Config { trusted_proxy: vec!["none".parse().unwrap()], ..config() };
        let headers = [("host", "127.0.0.1"), ("origin", "https://evil.example"), ("x-forwarded-host", "evil.example")];
        assert_eq!(kind(&no_proxy, Method::POST, &headers), Some(Kind::CrossSiteRequest));
    }
}
