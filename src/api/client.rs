//! Who sent a request, and when it came.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::Api;
use crate::config::Config;

/// What the server notes about a request that has just come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// When the head had come.
    pub at: Instant,
    /// Whether there are too many connections to answer more than probes on this one.
    pub reserve: bool,
}

/// A client whose share is bounded: an IPv4 address, or the /64 network of an IPv6 address, which is what one subscriber
/// has.
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
    /// Whose share it takes; `None` for a trusted proxy that does not say for whom it asks.
    pub key: Option<ClientKey>,
    /// When the request came.
    pub since: Instant,
    /// Where it comes from.
    pub site: Site,
}

impl FromRequestParts<Api> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Infallible> {
        let arrival = parts.extensions.get::<Arrival>();
        let address = arrival.and_then(|arrival| address(api.config(), arrival.peer, &parts.headers));
        let since = arrival.map_or_else(Instant::now, |arrival| arrival.at);
        let site = parts.extensions.get().copied().unwrap_or(Site::Own);
        Ok(Self { key: address.map(ClientKey::new), since, site })
    }
}

/// Where a request that is answered comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    /// From a page of this server or of an origin that the settings name, or from no page at all.
    Own,
    /// From a page of another site: it may look, and must not change anything by looking.
    Foreign,
}

/// The address of the client; behind trusted proxies the last one in `X-Forwarded-For` that is none of theirs.
fn address(config: &Config, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
    if !config.trusts(peer) {
        return Some(peer);
    }
    // What a client wrote into the header before its proxy must not hide what the proxy added.
    let lines: Vec<_> =
        headers.get_all("x-forwarded-for").iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    hops.find_map(|hop| match hop_address(hop.trim()) {
        Some(address) if config.trusts(address) => None,
        // What cannot be read ends the way back: everything before it is unknown.
        other => Some(other),
    })
    .flatten()
}

/// An address, with a port or without.
fn hop_address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    text.trim_matches(['[', ']']).parse().or_else(|_| with_port()).ok()
}

/// The values of an `X-Forwarded-…` header, the outermost proxy's first; none where the other end is not trusted.
pub(super) fn forwarded<'a>(
    config: &Config,
    arrival: Option<&Arrival>,
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
        assert_eq!(found, Some("198.51.100.7".parse().unwrap()), "whatever the client wrote before it");
    }
}
