//! Addresses that no grant may be for.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address can be no client's: unspecified, "this network", loopback, link-local, multicast, broadcast,
/// reserved (RFC 6890), or an IPv4-compatible IPv6 address (RFC 4291 section 2.5.5.1). IPv4-mapped counts as IPv4.
///
/// Link-local addresses of both families are here because a grant names no interface, and the same address may be
/// somebody else's on another link. Private and documentation ranges are not: the former are real clients, the
/// latter are what tests and examples use.
pub fn is_martian(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_martian_v4(v4),
        IpAddr::V6(v6) => is_martian_v6(v6),
    }
}

fn is_martian_v4(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first == 0 || first == 127 || first >= 224 || address.is_link_local()
}

fn is_martian_v6(address: Ipv6Addr) -> bool {
    // The first 96 bits zero: "::", "::1" and the deprecated IPv4-compatible addresses.
    address.to_bits() >> 32 == 0 || address.is_multicast() || address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn martians_and_others() {
        for martian in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::192.0.2.1",
            "::ffff:127.0.0.1",
            "fe80::1",
            "febf::1",
            "ff02::1",
        ] {
            assert!(is_martian(martian.parse().unwrap()), "{martian}");
        }
        for other in [
            "10.0.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "2001:db8::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_martian(other.parse().unwrap()), "{other}");
        }
    }
}
