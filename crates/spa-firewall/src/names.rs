//! What is never filtered, and interface names. Each is checked once, here, so that a rule can be written from them
//! without quoting anything.

use core::fmt;
use core::str::FromStr;

use spa_proto::{Network, NetworkError};

/// The longest interface name, in bytes: IFNAMSIZ less the closing NUL, `linux/if.h`.
pub const MAX_INTERFACE_NAME: usize = 15;

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
            match text.parse::<Network>() {
                Ok(network) if network.prefix() == 0 => Err(NameError::Everything),
                Ok(network) => Ok(Self::Network(network)),
                Err(error) => Err(NameError::Network(error)),
            }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Not an interface name.
    Interface,
    /// Not an address or network.
    Network(NetworkError),
    /// `/0` would except everyone.
    Everything,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface => f.write_str(
                "expected an interface name: 1 to 15 letters, digits, \".\", \"_\", \"-\" or \"@\", as in \"wg0\" \
                 (no wildcard)",
            ),
            Self::Network(error) => error.fmt(f),
            Self::Everything => {
                f.write_str("a prefix length of 0 would except everyone; use \"protect = false\" instead")
            }
        }
    }
}

impl std::error::Error for NameError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Network(error) => Some(error),
            Self::Interface | Self::Everything => None,
        }
    }
}

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
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ] {
            assert_eq!(text.parse::<Except>().map(|except| except.to_string()).as_deref(), Ok(shown));
        }
    }

    #[test]
    fn what_is_no_exception() {
        let syntax = NameError::Network(NetworkError::Syntax);
        let host_bits =
            |text: &str| NameError::Network(NetworkError::HostBits(text.parse().expect("a network")));
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
            ("eth0:1", syntax),
            ("192.0.2", syntax),
            ("1", syntax),
            ("wg0/24", syntax),
            ("192.0.2.0/", syntax),
            ("192.0.2.0/33", syntax),
            ("192.0.2.0/+24", syntax),
            ("192.0.2.0/255.255.255.0", syntax),
            ("2001:db8::/129", syntax),
            ("2001:db8::/999", syntax),
            ("0.0.0.0/0", NameError::Everything),
            ("::/0", NameError::Everything),
            ("192.0.2.1/24", host_bits("192.0.2.0/24")),
            ("2001:db8::1/32", host_bits("2001:db8::/32")),
            ("::ffff:192.0.2.0/120", syntax),
        ] {
            assert_eq!(text.parse::<Except>(), Err(error), "{text:?}");
        }
    }
}
