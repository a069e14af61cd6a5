//! The words that reach a firewall rule: client names, interfaces, networks. Each is checked once, here, so that a
//! rule can be written from them without quoting anything.

use core::fmt;
use core::str::FromStr;
use std::net::IpAddr;

use crate::model::Family;

/// The longest client name, in bytes.
pub const MAX_CLIENT_NAME: usize = 32;
/// The longest interface name, in bytes: IFNAMSIZ less the closing NUL, `linux/if.h`.
pub const MAX_INTERFACE_NAME: usize = 15;

/// A client's name: `[a-z0-9][a-z0-9._-]{0,31}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientName(String);

impl ClientName {
    /// Checks `text`.
    ///
    /// # Errors
    /// If it is not `[a-z0-9][a-z0-9._-]{0,31}`.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = text.len() <= MAX_CLIENT_NAME
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|byte| plain(byte) || b"._-".contains(&byte));
        if good { Ok(Self(text.to_owned())) } else { Err(NameError::Client) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ClientName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

/// A network interface by its name. Narrower than what the kernel allows: ASCII letters, digits, `.`, `_`, `-`, `@`,
/// not starting with `-`. A `+` would be a wildcard to iptables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Checks `text`. The interface need not exist.
    ///
    /// # Errors
    /// If it is empty, longer than 15 bytes, or has other characters than those above.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let good = (1..=MAX_INTERFACE_NAME).contains(&text.len())
            && !text.starts_with('-')
            && !matches!(text, "." | "..")
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte));
        if good { Ok(Self(text.to_owned())) } else { Err(NameError::Interface) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address prefix with all host bits zero, never `/0`, never an IPv4-mapped IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Checks the pair; `prefix` is in bits, 1 to 32 or 128.
    ///
    /// # Errors
    /// If the prefix is out of range, host bits are set (the error has the network that was probably meant), or the
    /// address is IPv4-mapped.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, NameError> {
        if address.to_canonical() != address {
            return Err(NameError::Mapped(address.to_canonical()));
        }
        if prefix == 0 {
            return Err(NameError::Everything);
        }
        if prefix > Family::of(address).bits() {
            return Err(NameError::Prefix(Family::of(address).bits()));
        }
        let masked = Self { address: masked(address, prefix), prefix };
        if masked.address == address { Ok(masked) } else { Err(NameError::HostBits(masked)) }
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The length of the prefix in bits, 1 to 32 or 128.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The family it belongs to.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// Whether every address of `other` is also in `self`.
    pub fn covers(&self, other: &Self) -> bool {
        self.family() == other.family()
            && self.prefix <= other.prefix
            && masked(other.address, self.prefix) == self.address
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = NameError;

    /// Reads `192.0.2.0/24`, `2001:db8::/32` or a bare address.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NameError::Network)?;
        let bits = Family::of(address).bits();
        let prefix = match prefix {
            None => bits,
            Some(digits) if (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| NameError::Prefix(bits))?
            }
            Some(_) => return Err(NameError::Prefix(bits)),
        };
        Self::new(address, prefix)
    }
}

/// What is never filtered: an interface (both families) or a network (its own family).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Except {
    /// Packets that come in on this interface.
    Interface(InterfaceName),
    /// Packets from this network.
    Network(Network),
}

impl FromStr for Except {
    type Err = NameError;

    /// Whatever looks like an address (`/`, `:`, or only digits and dots) must be one; the rest is an interface.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let numeric = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if numeric || text.contains(['/', ':']) {
            text.parse().map(Self::Network)
        } else {
            InterfaceName::new(text).map(Self::Interface)
        }
    }
}

impl fmt::Display for Except {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => name.fmt(f),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Not a client name.
    Client,
    /// Not an interface name.
    Interface,
    /// Not an address or network.
    Network,
    /// The prefix is not a number of 1 to this many bits.
    Prefix(u8),
    /// `/0` would except everyone.
    Everything,
    /// Bits after the prefix are set; this network was probably meant.
    HostBits(Network),
    /// An IPv4-mapped IPv6 address; this is the IPv4 address.
    Mapped(IpAddr),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str(
                "expected a client name: 1 to 32 of a-z, 0-9, \".\", \"_\", \"-\", starting with a letter or digit",
            ),
            Self::Interface => f.write_str(
                "expected an interface name: 1 to 15 letters, digits, \".\", \"_\", \"-\" or \"@\", as in \"wg0\" \
                 (no wildcard)",
            ),
            Self::Network => {
                f.write_str("expected an address or a network, as in \"192.0.2.0/24\" or \"2001:db8::/32\"")
            }
            Self::Prefix(bits) => write!(f, "expected a prefix length of 1 to {bits} after the \"/\""),
            Self::Everything => {
                f.write_str("a prefix length of 0 would except everyone; use \"protect = false\" instead")
            }
            Self::HostBits(network) => {
                write!(f, "bits after the prefix are set; write \"{network}\" if the whole network is meant")
            }
            Self::Mapped(address) => write!(f, "an IPv4-mapped address never matches; write \"{address}\""),
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions() {
        for (text, shown) in [
            ("wg0", "wg0"),
            ("eth0.100", "eth0.100"),
            ("veth@if2", "veth@if2"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::7", "2001:db8::7/128"),
            ("fe80::/10", "fe80::/10"),
            ("128.0.0.0/1", "128.0.0.0/1"),
        ] {
            assert_eq!(text.parse::<Except>().map(|except| except.to_string()).as_deref(), Ok(shown));
        }
    }

    #[test]
    fn what_is_no_exception() {
        let host_bits = |text: &str| NameError::HostBits(text.parse().expect("a network"));
        for (text, error) in [
            ("", NameError::Interface),
            ("wg+", NameError::Interface),
            ("+", NameError::Interface),
            ("!wg0", NameError::Interface),
            ("-j", NameError::Interface),
            ("eth 0", NameError::Interface),
            ("eth0\n-A", NameError::Interface),
            ("a\"b", NameError::Interface),
            ("é", NameError::Interface),
            ("sixteen-letters-", NameError::Interface),
            ("eth0:1", NameError::Network),
            ("192.0.2", NameError::Network),
            ("1", NameError::Network),
            ("wg0/24", NameError::Network),
            ("192.0.2.0/", NameError::Prefix(32)),
            ("192.0.2.0/33", NameError::Prefix(32)),
            ("192.0.2.0/+24", NameError::Prefix(32)),
            ("192.0.2.0/255.255.255.0", NameError::Prefix(32)),
            ("2001:db8::/129", NameError::Prefix(128)),
            ("2001:db8::/999", NameError::Prefix(128)),
            ("0.0.0.0/0", NameError::Everything),
            ("::/0", NameError::Everything),
            ("192.0.2.1/24", host_bits("192.0.2.0/24")),
            ("2001:db8::1/32", host_bits("2001:db8::/32")),
            ("::ffff:192.0.2.1", NameError::Mapped([192, 0, 2, 1].into())),
        ] {
            assert_eq!(text.parse::<Except>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn client_names() {
        for good in ["a", "0", "alice", "a.b_c-d", &"x".repeat(MAX_CLIENT_NAME)] {
            assert!(ClientName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "_a", "Alice", "a b", "a\"", "a\n", "ä", &"x".repeat(MAX_CLIENT_NAME + 1)]
        {
            assert_eq!(ClientName::new(bad), Err(NameError::Client), "{bad:?}");
        }
    }

    #[test]
    fn covering() {
        let network = |text: &str| text.parse::<Network>().expect("a network");
        assert!(network("192.0.2.0/24").covers(&network("192.0.2.128/25")));
        assert!(network("192.0.2.0/24").covers(&network("192.0.2.0/24")));
        assert!(!network("192.0.2.128/25").covers(&network("192.0.2.0/24")));
        assert!(!network("192.0.2.0/24").covers(&network("192.0.3.0/25")));
        assert!(!network("192.0.2.0/24").covers(&network("2001:db8::/32")));
    }
}
