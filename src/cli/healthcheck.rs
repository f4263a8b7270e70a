//! `proxygrad healthcheck`: for containers and scripts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};

/// What to ask.
#[derive(Debug, clap::Args)]
pub struct Healthcheck {
    /// Address of the server; where it listens on this machine unless given.
    #[arg(long, env = "PROXYGRAD_HEALTHCHECK_URL", value_name = "URL")]
    url: Option<String>,

    /// Address and port that the server listens on, as it was told; every address of the machine is asked as this one.
    #[arg(long, env = "PROXYGRAD_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl Healthcheck {
    /// Asks once; an error when the server is not ready.
    pub fn run(&self) -> anyhow::Result<()> {
        let url = match &self.url {
            Some(url) => format!("{}/readyz", url.trim_end_matches('/')),
            None => format!("http://{}/readyz", reached(self.listen)?),
        };
        let client =
            reqwest::blocking::Client::builder().timeout(Duration::from_secs(self.timeout)).no_proxy().build()?;
        let answer = client.get(&url).send().with_context(|| format!("{url} does not answer"))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        bail!("{url} answers {status}: {}", answer.text().unwrap_or_default().chars().take(1000).collect::<String>())
    }
}

/// Where a server is reached from its own machine that listens on this address.
fn reached(listen: SocketAddr) -> anyhow::Result<SocketAddr> {
    if listen.port() == 0 {
        bail!("--listen: {listen} leaves the port to the system; say where the server is with --url");
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
    fn a_server_on_every_address_is_asked_on_this_machine() {
        for (listen, expected) in [
            ("0.0.0.0:9000", "127.0.0.1:9000"),
            ("[::]:9000", "[::1]:9000"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("192.168.1.7:80", "192.168.1.7:80"),
            ("[fe80::1]:80", "[fe80::1]:80"),
        ] {
            assert_eq!(reached(listen.parse().unwrap()).unwrap(), expected.parse().unwrap());
        }
        assert!(reached("0.0.0.0:0".parse().unwrap()).unwrap_err().to_string().contains("--url"));
    }
}
