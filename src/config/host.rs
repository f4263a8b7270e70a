//! Host names and patterns of the setting `allowed_host` and the `Host` header.

use std::net::IpAddr;
use std::str::FromStr;

/// Host and port of a URL (RFC 3986, section 3.2), the host in lower case and without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port, if given.
    pub port: Option<u16>,
}

impl Authority {
    /// The host as an IP address, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for Authority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a host, such as xai.example.org, [::1] or localhost:8080");
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inside, port) = rest.split_once(']').ok_or_else(wrong)?;
                let address: std::net::Ipv6Addr = inside.parse().map_err(|_| wrong())?;
                let port = if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) };
                (address.to_string(), port)
            }
            None => {
                let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
                let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
                let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
                let whole = !host.is_empty() && host.split('.').all(|label| !label.is_empty());
                if !whole || !host.bytes().all(named) {
                    return Err(wrong());
                }
                (host, port)
            }
        };
        // An empty port means the scheme's default.
        let port = match port.filter(|port| !port.is_empty()) {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().map_err(|_| wrong())?),
            Some(_) => return Err(wrong()),
            None => None,
        };
        Ok(Self { host, port })
    }
}

/// Pattern of accepted hosts: a host with an optional port, `*.example.org` for all subdomains, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// Every host with this suffix, which starts with a dot.
    Subdomains(String),
    /// One host; on one port, if given.
    One(Authority),
}

impl HostPattern {
    /// Whether the pattern matches a host.
    pub fn matches(&self, found: &Authority) -> bool {
        match self {
            Self::Any => true,
            Self::Subdomains(suffix) => found.host.ends_with(suffix.as_str()) && found.host.len() > suffix.len(),
            Self::One(one) => one.host == found.host && (one.port.is_none() || one.port == found.port),
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let expected = || "expected a host such as xai.example.org or localhost:8080, *.example.org, or *".to_owned();
        match text.strip_prefix('*') {
            Some("") => Ok(Self::Any),
            Some(suffix) => {
                let name: Authority = suffix.strip_prefix('.').ok_or_else(expected)?.parse().map_err(|_| expected())?;
                match name.port.is_none() && name.address().is_none() {
                    true => Ok(Self::Subdomains(format!(".{}", name.host))),
                    false => Err(expected()),
                }
            }
            None => text.parse().map(Self::One).map_err(|_| expected()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn an_authority_is_a_host_with_an_optional_port() {
        for (text, host, port) in [
            ("localhost", "localhost", None),
            ("LOCALHOST.:80", "localhost", Some(80)),
            ("127.0.0.1:8080", "127.0.0.1", Some(8080)),
            ("[::1]", "::1", None),
            ("[0:0:0:0:0:0:0:1]:9", "::1", Some(9)),
            ("my_service:", "my_service", None),
        ] {
            assert_eq!(text.parse(), Ok(Authority { host: host.into(), port }), "{text}");
        }
        for bad in
            ["", ".", "a..b", ":80", "a:b", "a:+80", "a:99999", "::1", "[::1", "[::1]80", "[a]", "a/b", "u@a", "a b"]
        {
            assert!(bad.parse::<Authority>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pattern_is_one_host_or_all_subdomains() {
        let matches = |pattern: &str, host: &str| {
            pattern.parse::<HostPattern>().unwrap().matches(&host.parse::<Authority>().unwrap())
        };
        assert!(matches("xai.example.org", "XAI.example.org:443"));
        assert!(matches("xai.example.org:443", "xai.example.org:443"));
        assert!(!matches("xai.example.org:443", "xai.example.org:80"));
        assert!(!matches("xai.example.org", "evil-xai.example.org"));
        assert!(matches("*.example.org", "a.b.example.org"));
        assert!(!matches("*.example.org", "example.org") && !matches("*.example.org", "evilexample.org"));
        assert!(matches("*", "anything"));
        for bad in ["", "*example.org", "*.", "http://a", "*.example.org:80", "a/b"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad:?}");
        }
    }
}
