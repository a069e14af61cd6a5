//! Which address a knock asks for: the address mode, and the rule of `auto`.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use spa_proto::Address;

/// Whose access to ask for, as configuration and `--source` have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Bound where the local address on the route to the server is global, else observed. Never falls back by itself.
    #[default]
    Auto,
    /// The address that the packet comes from, as the server sees it.
    Observed,
    /// The local address on the route; the server must see the same one.
    Bound,
    /// Bound, also behind NAT: to the local address where that is global, else to the one that the entry's resolver
    /// names. Never falls back by itself.
    Resolve,
    /// This address, wherever the packet comes from; only where the client's policy on the server allows it.
    Explicit(IpAddr),
}

impl Source {
    /// The address field of a packet that leaves from `local`; `None` where a resolver has to be asked for it.
    pub fn address(self, local: IpAddr) -> Option<Address> {
        let local = local.to_canonical();
        Some(match self {
            Self::Auto | Self::Resolve if is_global(local) => Address::Bound(local),
            Self::Auto | Self::Observed => Address::Observed,
            Self::Bound => Address::Bound(local),
            Self::Resolve => return None,
            Self::Explicit(address) => Address::Explicit(address),
        })
    }

    /// Why [`Self::address`] is what it is, for people.
    pub fn reason(self, local: IpAddr) -> &'static str {
        match self {
            Self::Auto | Self::Resolve if is_global(local) => "its local address is global",
            Self::Auto => "its local address is not global, so the server may see another",
            Self::Resolve => "the resolver named it",
            Self::Observed | Self::Bound | Self::Explicit(_) => "as chosen",
        }
    }
}

/// The text is none of the modes and no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceError;

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected \"auto\", \"observed\", \"bound\", \"resolve\" or an IP address")
    }
}

impl core::error::Error for SourceError {}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "observed" => Ok(Self::Observed),
            "bound" => Ok(Self::Bound),
            "resolve" => Ok(Self::Resolve),
            _ => {
                let address = text.parse::<IpAddr>().map_err(|_| SourceError)?.to_canonical();
                if address.is_unspecified() { Err(SourceError) } else { Ok(Self::Explicit(address)) }
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Observed => f.write_str("observed"),
            Self::Bound => f.write_str("bound"),
            Self::Resolve => f.write_str("resolve"),
            Self::Explicit(address) => address.fmt(f),
        }
    }
}

/// IPv4 networks that are not globally reachable unicast: the IANA special-purpose registry (RFC 6890), with the
/// deprecated 6to4 relays, multicast and class E. Network and prefix length.
const NOT_GLOBAL_V4: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10), // carrier-grade NAT, RFC 6598
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15), // benchmarking, RFC 2544
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// IPv6 networks inside 2000::/3 that are not globally reachable unicast. Network's first 32 bits and prefix length.
const NOT_GLOBAL_V6: [(u32, u32); 4] = [
    (0x2001_0000, 23), // protocol assignments: Teredo, ORCHID, benchmarking
    (0x2001_0db8, 32), // documentation
    (0x2002_0000, 16), // 6to4, as global as the IPv4 address inside it
    (0x3fff_0000, 20), // documentation, RFC 9637
];

/// Whether an address is global unicast, so that a server elsewhere can be expected to see it unchanged. Judges by
/// the address alone: a translated global address looks the same. IPv4-mapped IPv6 is IPv4.
pub fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let inside = |(network, prefix): ([u8; 4], u32)| {
        same_prefix(address.to_bits(), u32::from_be_bytes(network), prefix)
    };
    !NOT_GLOBAL_V4.into_iter().any(inside)
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let high = (address.to_bits() >> 96) as u32; // none of the prefixes is longer than 32
    same_prefix(high, 0x2000_0000, 3)
        && !NOT_GLOBAL_V6.into_iter().any(|(network, prefix)| same_prefix(high, network, prefix))
}

/// Whether the first `prefix` bits (1 to 32) agree.
fn same_prefix(left: u32, right: u32, prefix: u32) -> bool {
    (left ^ right) >> (32 - prefix) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn global_addresses() {
        for text in [
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.0.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "1.1.1.1",
            "2600::1",
            "2001:200::1",
            "2003::1",
            "3ffe::1",
            "2001:db7::1",
            "2001:db9::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_global(ip(text)), "{text}");
        }
    }

    #[test]
    fn addresses_that_are_not_global() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "64:ff9b::808:808",
            "2001::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2002:808:808::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "::ffff:10.0.0.1",
            "100::1",
        ] {
            assert!(!is_global(ip(text)), "{text}");
        }
    }

    /// The page lists the same networks, so that every client binds to the same addresses.
    #[test]
    fn the_protocol_page_says_the_same() {
        let page = include_str!("../../../docs/PROTOCOL.md");
        let (_, rest) = page.split_once("*Global* are").unwrap();
        let (rule, _) = rest.split_once("In a close").unwrap();
        let listed: Vec<String> = rule
            .split_whitespace()
            .filter(|word| word.contains('/'))
            .map(|word| word.trim_end_matches([',', ';', '.']).to_owned())
            .collect();
        let v4 = NOT_GLOBAL_V4.map(|(network, prefix)| format!("{}/{prefix}", Ipv4Addr::from(network)));
        let v6 = NOT_GLOBAL_V6
            .map(|(high, prefix)| format!("{}/{prefix}", Ipv6Addr::from_bits(u128::from(high) << 96)));
        let ours: Vec<String> = v4.into_iter().chain(["2000::/3".to_owned()]).chain(v6).collect();
        assert_eq!(listed, ours);
    }

    #[test]
    fn auto_binds_global_addresses_only() {
        assert_eq!(Source::Auto.address(ip("8.8.4.4")), Some(Address::Bound(ip("8.8.4.4"))));
        assert_eq!(Source::Auto.address(ip("192.168.1.7")), Some(Address::Observed));
        assert_eq!(Source::Bound.address(ip("192.168.1.7")), Some(Address::Bound(ip("192.168.1.7"))));
        assert_eq!(Source::Resolve.address(ip("192.168.1.7")), None);
        assert_eq!(Source::Resolve.address(ip("8.8.4.4")), Some(Address::Bound(ip("8.8.4.4"))));
        assert_eq!(Source::Observed.address(ip("8.8.4.4")), Some(Address::Observed));
        let explicit = Address::Explicit(ip("9.9.9.9"));
        assert_eq!(Source::Explicit(ip("9.9.9.9")).address(ip("8.8.4.4")), Some(explicit));
    }

    #[test]
    fn sources_read_back() {
        for text in ["auto", "observed", "bound", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        for text in ["", "Auto", "0.0.0.0", "192.0.2.0/24", "example.org"] {
            assert_eq!(text.parse::<Source>(), Err(SourceError), "{text}");
        }
    }
}
