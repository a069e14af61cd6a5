//! An IPv4 or IPv6 network in CIDR notation.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

/// A network as RFC 4632 writes it, `192.0.2.0/24` or `2001:db8::/32`; a bare address is a network of one.
/// IPv4-mapped IPv6 addresses are IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// Not `ADDRESS/PREFIX`.
    Syntax,
    /// Bits beyond the prefix are set; the network that was probably meant is inside.
    HostBits(Network),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("expected a network, as in \"192.0.2.0/24\" or \"2001:db8::/32\""),
            Self::HostBits(meant) => write!(f, "bits are set beyond the prefix; did you mean \"{meant}\"?"),
        }
    }
}

impl core::error::Error for NetworkError {}

impl Network {
    /// The network of exactly this address.
    pub fn single(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// The network of these two; `prefix` is in bits.
    ///
    /// # Errors
    /// If the prefix is longer than the address, bits beyond it are set, or the address is IPv4-mapped, whose prefix
    /// has no clear meaning.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, NetworkError> {
        let width = if address.is_ipv4() { 32 } else { 128 };
        if prefix > width || address.to_canonical() != address {
            return Err(NetworkError::Syntax);
        }
        let network = Self { address: masked(address, prefix), prefix };
        if network.address == address { Ok(network) } else { Err(NetworkError::HostBits(network)) }
    }

    /// The lowest address of the network.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The prefix length in bits: at most 32 for IPv4 and 128 for IPv6.
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether an address (IPv4-mapped: as IPv4) lies in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }

    /// Whether every address of `other` is in this network too.
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & high_bits(prefix, 32) as u32).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & high_bits(prefix, 128)).into()),
    }
}

/// The `prefix` highest of the `width` lowest bits.
fn high_bits(prefix: u8, width: u8) -> u128 {
    let all = u128::MAX >> (128 - width);
    if prefix == width { all } else { all & !(all >> prefix) }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let Some((address, prefix)) = text.split_once('/') else {
            return text.parse().map(Self::single).map_err(|_| NetworkError::Syntax);
        };
        let address = address.parse().map_err(|_| NetworkError::Syntax)?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        Self::new(address, prefix.parse().ok().filter(|_| digits).ok_or(NetworkError::Syntax)?)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn contains_its_addresses_and_no_others() {
        for (net, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.0/24", "::ffff:192.0.2.1", "::192.0.2.1"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ] {
            assert!(network(net).contains(inside.parse().unwrap()), "{net} {inside}");
            assert!(!network(net).contains(outside.parse().unwrap()), "{net} {outside}");
        }
    }

    #[test]
    fn covers_what_lies_within() {
        for (wide, narrow, covers) in [
            ("192.0.2.0/24", "192.0.2.128/25", true),
            ("192.0.2.0/24", "192.0.2.0/24", true),
            ("192.0.2.128/25", "192.0.2.0/24", false),
            ("192.0.2.0/24", "192.0.3.0/25", false),
            ("0.0.0.0/0", "2001:db8::/32", false),
        ] {
            assert_eq!(network(wide).covers(&network(narrow)), covers, "{wide} {narrow}");
        }
    }

    #[test]
    fn malformed_networks_are_refused() {
        for text in [
            "",
            "/",
            "192.0.2.0/",
            "192.0.2.0/33",
            "192.0.2.0/+8",
            "::/129",
            "192.0.2/24",
            "::ffff:1.2.3.4/96",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Syntax), "{text}");
        }
        let meant = network("192.0.2.0/24");
        assert_eq!("192.0.2.7/24".parse::<Network>(), Err(NetworkError::HostBits(meant)));
    }
}
