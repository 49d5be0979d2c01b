//! The address under which the other nodes reach this one.
//!
//! Invariant: what is written into partition rows can be called from elsewhere: never an unspecified address
//! such as `0.0.0.0`. Deliberately absent: host names. Whether other nodes can resolve this machine's name is
//! not known here; an operator who knows a name sets `advertised_addr`.

use std::net::{IpAddr, SocketAddr};

use holdfast_platform::Config;
use tokio::net::UdpSocket;

use crate::failure::Failure;

/// The configured address, else the socket's own, else, if that one is any address of this machine, the one
/// that this machine has on its way to the brokers: where they are, the other nodes are as well.
pub async fn advertised(config: &Config, brokers: &str, bound: SocketAddr) -> Result<String, Failure> {
    if let Some(address) = &config.advertised_addr {
        let unspecified = address.parse().is_ok_and(|address: SocketAddr| address.ip().is_unspecified());
        return if unspecified { Err(useless(address)) } else { Ok(address.clone()) };
    }
    if !bound.ip().is_unspecified() {
        return Ok(bound.to_string());
    }
    if config.tls.is_some() {
        return Err(unset(bound, "a certificate is of a name, which has to be configured"));
    }
    let first = brokers.split(',').next().unwrap_or_default().trim();
    let own = match on_the_way_to(first).await {
        Ok(own) if !own.is_unspecified() => own,
        Ok(_) => return Err(unset(bound, "this machine has no address on its way to the brokers")),
        Err(error) => return Err(unset(bound, &format!("there is no way to the broker {first} ({error})"))),
    };
    let address = SocketAddr::new(own, bound.port()).to_string();
    tracing::info!(address, "advertised; set advertised_addr if the other nodes can't reach that");
    Ok(address)
}

/// The address from which this machine would send to `host`. Nothing is sent.
async fn on_the_way_to(host: &str) -> std::io::Result<IpAddr> {
    let mut failure = std::io::ErrorKind::AddrNotAvailable.into();
    for to in tokio::net::lookup_host(host).await? {
        let any = if to.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0_u16; 8], 0)) };
        let socket = UdpSocket::bind(any).await?;
        match socket.connect(to).await {
            Ok(()) => return Ok(socket.local_addr()?.ip()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn useless(address: &str) -> Failure {
    Failure::usage(anyhow::anyhow!(
        "`advertised_addr` is {address}, which no other node can call; set it to the host and port under which they reach this one"
    ))
}

fn unset(bound: SocketAddr, why: &str) -> Failure {
    Failure::usage(anyhow::anyhow!(
        "`advertised_addr` is not set, and other nodes can't call {bound} (grpc.listen): {why}; set HOLDFAST_ADVERTISED_ADDR to the \
         host and port under which they reach this one"
    ))
}

#[cfg(test)]
mod tests {
    use holdfast_platform::config::Sources;

    use super::*;

    async fn of(flags: &[(&str, &str)], brokers: &str, bound: &str) -> Result<String, Failure> {
        let flags = flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let config = Config::load(&Sources { flags, ..Sources::default() }).unwrap();
        advertised(&config, brokers, bound.parse().unwrap()).await
    }

    #[tokio::test]
    async fn what_is_advertised_can_be_called() {
        let configured = [("advertised_addr", "node-1.example:19090")];
        assert_eq!(of(&configured, "", "0.0.0.0:9090").await.unwrap(), "node-1.example:19090");
        assert_eq!(of(&[], "", "127.0.0.1:7").await.unwrap(), "127.0.0.1:7");
        for any in ["0.0.0.0:9090", "[::]:9090"] {
            assert_eq!(
                of(&[], "127.0.0.1:9092,other:1", any).await.unwrap(),
                "127.0.0.1:9090",
                "as the brokers see it"
            );
        }
    }

    #[tokio::test]
    async fn uncallable_address_is_a_usage_error_that_names_the_key() {
        for (flags, brokers) in
            [(&[("advertised_addr", "0.0.0.0:9090")][..], "127.0.0.1:1"), (&[], "no port"), (&[], "")]
        {
            let failure = of(flags, brokers, "0.0.0.0:9090").await.unwrap_err();
            assert_eq!(failure.code(), 2, "{failure}");
            assert!(failure.to_string().contains("advertised_addr"), "{failure}");
        }
    }
}
