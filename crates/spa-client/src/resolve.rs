//! From a host's name to the addresses to knock at.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::error::Error;

/// Most addresses of one host that are knocked at; further ones are left out.
pub(crate) const MAX_ADDRESSES: usize = 8;
/// How long a look-up may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Which addresses to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    #[default]
    Both,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// The host's addresses in the resolver's order, each once.
pub(crate) async fn resolve(host: &str, port: u16, family: Family) -> Result<Vec<SocketAddr>, Error> {
    let failed = |source| Error::Resolve { address: host.to_owned(), source };
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((host, port)))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the look-up took too long")))
        .map_err(|error| failed(Some(error)))?;
    let addresses = select(found, family);
    if addresses.is_empty() { Err(failed(None)) } else { Ok(addresses) }
}

fn select(found: impl Iterator<Item = SocketAddr>, family: Family) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for mut address in found {
        if address.ip() != address.ip().to_canonical() {
            address.set_ip(address.ip().to_canonical()); // IPv4-mapped is IPv4
        }
        let wanted = match family {
            Family::Both => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        };
        if wanted && !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_are_used_once_and_in_order() {
        let found = addresses(&["[2001:db8::1]:9", "192.0.2.1:9", "[::ffff:192.0.2.1]:9", "192.0.2.1:9"]);
        assert_eq!(select(found.iter().copied(), Family::Both), found[..2]);
        assert_eq!(select(found.iter().copied(), Family::V4), found[1..2]);
        assert_eq!(select(found.into_iter(), Family::V6), addresses(&["[2001:db8::1]:9"]));
        let many = (1..20).map(|last| SocketAddr::from(([192, 0, 2, last], 9)));
        assert_eq!(select(many, Family::Both).len(), MAX_ADDRESSES);
    }
}
