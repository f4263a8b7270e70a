//! The client of a request: its address behind trusted proxies, its site, and the time of arrival.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::Api;
use crate::config::Config;

/// Connection details of a request, attached as an extension when its head has arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestArrival {
    /// Remote address of the connection.
    pub peer: IpAddr,
    /// When the head arrived.
    pub at: Instant,
    /// Whether this is a reserve connection, on which only probes and metrics are answered.
    pub reserve: bool,
}

/// Key for per-client limits: an IPv4 address, or the /64 network of an IPv6 address, the usual size of a subscriber's
/// network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ClientKey(IpAddr);

impl ClientKey {
    pub fn new(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            address => address,
        })
    }
}

/// The client of a request, for handlers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    /// Key for per-client limits; `None` for a trusted proxy that does not name the client.
    pub key: Option<ClientKey>,
    /// When the request arrived.
    pub received_at: Instant,
    /// Whether a page of another site sent it.
    pub site: RequestSite,
}

impl FromRequestParts<Api> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Infallible> {
        let arrival = parts.extensions.get::<RequestArrival>();
        let address = arrival.and_then(|arrival| address(api.config(), arrival.peer, &parts.headers));
        let received_at = arrival.map_or_else(Instant::now, |arrival| arrival.at);
        let site = parts.extensions.get().copied().unwrap_or(RequestSite::Trusted);
        Ok(Self { key: address.map(ClientKey::new), received_at, site })
    }
}

/// Site that an admitted request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestSite {
    /// A page of this server or of a configured origin, or a client that is not a browser.
    Trusted,
    /// A page of another site: the request must have no side effects.
    CrossSite,
}

/// The client's address: through trusted proxies, the last address in `X-Forwarded-For` that is not a trusted proxy's.
fn address(config: &Config, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
    if !config.trusts(peer) {
        return Some(peer);
    }
    // A header forged by the client must not hide what the proxy appended.
    let lines: Vec<_> =
        headers.get_all("x-forwarded-for").iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    hops.find_map(|hop| match hop_address(hop.trim()) {
        Some(address) if config.trusts(address) => None,
        // An unreadable hop ends the search: everything before it is unverified.
        other => Some(other),
    })
    .flatten()
}

/// An address with an optional port.
fn hop_address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    text.trim_matches(['[', ']']).parse().or_else(|_| with_port()).ok()
}

/// The values of an `X-Forwarded-…` header, the outermost proxy's first; empty if the peer is not a trusted proxy.
pub(super) fn forwarded<'a>(
    config: &Config,
    arrival: Option<&RequestArrival>,
    headers: &'a HeaderMap,
    name: &str,
) -> impl Iterator<Item = &'a str> {
    let trusted = arrival.is_some_and(|arrival| config.trusts(arrival.peer));
    let lines = headers.get_all(name).into_iter().filter(move |_| trusted);
    lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn clients_of_one_ipv6_network_share_one_key() {
        let key = |text: &str| ClientKey::new(text.parse().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.2"), key("10.0.0.1"));
    }

    #[test]
    fn a_client_is_believed_only_as_far_as_its_proxies() {
        let config = Config { trusted_proxy: vec!["10.0.0.0/8".parse().unwrap()], ..Config::defaults() };
        let client = |peer: &str, lines: &[&str]| {
            let line = |line: &&str| ("x-forwarded-for".parse().unwrap(), line.parse().unwrap());
            address(&config, peer.parse().unwrap(), &lines.iter().map(line).collect()).map(|found| found.to_string())
        };
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]).unwrap(), "192.0.2.1", "not a proxy");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]).unwrap(), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.0.0.2"]).unwrap(), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "[2001:db8::1]"]).unwrap(), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7:4711"]).unwrap(), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:80"]).unwrap(), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &[]), None);
        assert_eq!(client("10.0.0.1", &["1.1.1.1, unknown"]), None);
        assert_eq!(client("10.0.0.1", &["10.0.0.3"]), None);
        let hidden = HeaderMap::from_iter([(
            "x-forwarded-for".parse().unwrap(),
            axum::http::HeaderValue::from_bytes("\u{e9}, 198.51.100.7".as_bytes()).unwrap(),
        )]);
        let found = address(&config, "10.0.0.1".parse().unwrap(), &hidden);
        assert_eq!(found, Some("198.51.100.7".parse().unwrap()), "regardless of what the client wrote before it");
    }
}
