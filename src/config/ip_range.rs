//! IP ranges of the setting `trusted_proxy`.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A network (`10.0.0.0/8`), an address (`10.1.2.3`), or `none`, which contains no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange(Option<IpNet>);

impl IpRange {
    /// Whether the range contains an address. An IPv4-mapped IPv6 address (`::ffff:10.1.2.3`) counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.is_some_and(|network| network.contains(&address.to_canonical()))
    }
}

impl FromStr for IpRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "none" {
            return Ok(Self(None));
        }
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let expected = "expected an address such as 10.1.2.3, a network such as 10.0.0.0/8 or fd00::/8, or none";
        network.map(|network| Self(Some(network))).map_err(|_| expected.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_network_holds_its_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.9.8.7", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.1.2.3", "::ffff:10.1.2.3", "::1"),
            ("::1", "::1", "127.0.0.1"),
            ("fd00::/8", "fd12::1", "fe80::1"),
        ] {
            let network: IpRange = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network:?} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network:?} {outside}");
        }
        assert!(!"none".parse::<IpRange>().unwrap().contains("127.0.0.1".parse().unwrap()));
        for bad in ["", "localhost", "10.0.0.0/33", "10.0.0", "*"] {
            assert!(bad.parse::<IpRange>().is_err(), "{bad}");
        }
    }
}
