//! `proxygrad healthcheck`: readiness probe for containers and scripts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use proxygrad::network::catalog::install_crypto_provider;

/// Arguments of `proxygrad healthcheck`.
#[derive(Debug, clap::Args)]
pub struct Healthcheck {
    /// Base URL of the server. Default: the address in --listen.
    #[arg(long, env = "PROXYGRAD_HEALTHCHECK_URL", value_name = "URL")]
    url: Option<String>,

    /// Address and port that the server listens on. If it listens on all addresses, loopback is used.
    #[arg(long, env = "PROXYGRAD_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Timeout in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl Healthcheck {
    /// Sends one request; fails if the server is not ready.
    pub fn run(&self) -> anyhow::Result<()> {
        let url = match &self.url {
            Some(url) => format!("{}/readyz", url.trim_end_matches('/')),
            None => format!("http://{}/readyz", local_address(self.listen)?),
        };
        install_crypto_provider();
        let client =
            reqwest::blocking::Client::builder().timeout(Duration::from_secs(self.timeout)).no_proxy().build()?;
        let answer = client.get(&url).send().with_context(|| format!("{url} does not answer"))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        bail!(
            "{url} responded with {status}: {}",
            answer.text().unwrap_or_default().chars().take(1000).collect::<String>()
        )
    }
}

/// Address at which a server with this listen address is reached from the same machine.
fn local_address(listen: SocketAddr) -> anyhow::Result<SocketAddr> {
    if listen.port() == 0 {
        bail!("--listen: the port of {listen} is chosen by the system; use --url");
    }
    let address = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    Ok(SocketAddr::new(address, listen.port()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_reached_by_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:9000", "127.0.0.1:9000"),
            ("[::]:9000", "[::1]:9000"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("192.168.1.7:80", "192.168.1.7:80"),
            ("[fe80::1]:80", "[fe80::1]:80"),
        ] {
            assert_eq!(local_address(listen.parse().unwrap()).unwrap(), expected.parse().unwrap());
        }
        assert!(local_address("0.0.0.0:0".parse().unwrap()).unwrap_err().to_string().contains("--url"));
    }
}
