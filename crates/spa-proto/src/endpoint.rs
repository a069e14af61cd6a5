//! What a grant opens: a transport protocol and a port.

use core::fmt;
use core::str::FromStr;

/// A transport protocol that can be granted, by its IANA protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// TCP, RFC 9293.
    Tcp = 6,
    /// UDP, RFC 768.
    Udp = 17,
}

impl Protocol {
    /// The protocol with this IANA number, if it is one of the two.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// The IANA protocol number: 6 or 17.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The lower-case name that configuration and iptables use: `tcp` or `udp`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A protocol and a port, written `tcp/22`. The port is never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    protocol: Protocol,
    port: u16,
}

impl Endpoint {
    /// `None` for port 0, which names nothing.
    pub const fn new(protocol: Protocol, port: u16) -> Option<Self> {
        if port == 0 { None } else { Some(Self { protocol, port }) }
    }

    /// The transport protocol.
    pub const fn protocol(self) -> Protocol {
        self.protocol
    }

    /// The port, 1 to 65535.
    pub const fn port(self) -> u16 {
        self.port
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)
    }
}

/// The text is not `tcp/PORT` or `udp/PORT` with a decimal port of 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointError;

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected tcp/PORT or udp/PORT with a port from 1 to 65535, as in \"tcp/22\"")
    }
}

impl core::error::Error for EndpointError {}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (protocol, port) = text.split_once('/').ok_or(EndpointError)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(EndpointError),
        };
        if !port.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(EndpointError); // "+22" parses as an integer
        }
        port.parse().ok().and_then(|port| Self::new(protocol, port)).ok_or(EndpointError)
    }
}
