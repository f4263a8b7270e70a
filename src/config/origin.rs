//! Origins of the setting `cors_origin`.

use std::str::FromStr;

use super::host::Authority;

/// An origin (RFC 6454, section 6.2) such as `https://dash.example` or `http://localhost:3000`, or `*` for every
/// origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Every origin.
    Any,
    /// One origin as browsers serialize it: in lower case, without the default port.
    One(String),
}

impl Origin {
    /// Whether the value of an `Origin` header matches.
    pub fn matches(&self, found: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(origin) => origin == found,
        }
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "*" {
            return Ok(Self::Any);
        }
        let wrong = || "expected an origin such as https://dash.example or http://localhost:3000, or *".to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return Err(wrong()),
        };
        let authority: Authority = rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| wrong())?;
        let host = if authority.host.contains(':') { format!("[{}]", authority.host) } else { authority.host };
        let port =
            authority.port.filter(|&port| port != default_port).map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self::One(format!("{scheme}://{host}{port}")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn an_origin_is_normalized_as_browsers_serialize_it() {
        for (text, origin) in [
            ("https://dash.example", "https://dash.example"),
            ("HTTPS://Dash.Example:443/", "https://dash.example"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            let parsed: Origin = text.parse().unwrap();
            assert!(parsed.matches(origin) && !parsed.matches("https://evil.example"), "{text}: {parsed:?}");
        }
        assert!("*".parse::<Origin>().unwrap().matches("null"));
        for bad in ["", "dash.example", "https://", "https://a/b", "ftp://a", "null", "https://*.a", "https://a:x"] {
            assert!(bad.parse::<Origin>().is_err(), "{bad:?}");
        }
    }
}
