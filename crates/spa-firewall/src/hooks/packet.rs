//! A packet, as far as rules can look at it, and the host that it comes to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use spa_proto::{Endpoint, Protocol};

use crate::model::Family;

/// TCP's flags, RFC 9293.
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
/// Of TCP, without options.
const TCP_HEADER: usize = 20;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number, as in `ip link`.
    pub index: u32,
}

/// What a rule can ask of the host.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Its own addresses. A packet whose destination is changed to another is handed on.
    pub addresses: BTreeSet<IpAddr>,
    /// Nanoseconds since 1970.
    pub now: u64,
}

/// Somebody comes to a port.
#[derive(Clone, Debug)]
pub struct Visit {
    /// From this address.
    pub source: IpAddr,
    /// From this port. Clients take any from 32768 to 60999.
    pub source_port: u16,
    /// To this address of the host.
    pub destination: IpAddr,
    /// To this port.
    pub endpoint: Endpoint,
    /// Over this interface.
    pub interface: Interface,
    /// Whether the route back to the source leaves by the same interface, where that is known.
    pub symmetric: Option<bool>,
    /// Whether a program takes it: else the kernel answers TCP with a reset, and UDP with an ICMP error.
    pub listening: bool,
}

/// Where a packet stands in its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    New,
    Established,
    Related,
    Invalid,
    /// An ICMP error, of which the kernel may or may not know what it is about.
    Unknown,
}

/// What conntrack knows.
#[derive(Clone, Debug)]
pub struct Connection {
    pub mark: u32,
    /// The ends as the first packet had them: source, destination, their ports.
    pub original: (IpAddr, IpAddr, u16, u16),
    /// Where the first packet was sent instead.
    pub rewritten: Option<(IpAddr, u16)>,
}

/// One packet on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    pub family: Family,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// TCP and UDP; 0 for others.
    pub source_port: u16,
    pub destination_port: u16,
    /// TCP's.
    pub flags: u8,
    pub input: Option<Interface>,
    pub output: Option<Interface>,
    pub mark: u32,
    pub state: State,
    /// In the direction of the first packet.
    pub original_direction: bool,
    pub symmetric: Option<bool>,
    /// Conntrack has had its turn.
    pub tracked: bool,
    /// A rule took it out of conntrack's sight.
    pub untracked: bool,
}

impl Packet {
    /// The first one of a visit.
    pub fn first(visit: &Visit) -> Self {
        Self {
            family: Family::of(visit.source),
            source: visit.source,
            destination: visit.destination,
            protocol: visit.endpoint.protocol().number(),
            source_port: visit.source_port,
            destination_port: visit.endpoint.port(),
            flags: if visit.endpoint.protocol() == Protocol::Tcp { SYN } else { 0 },
            input: Some(visit.interface.clone()),
            output: None,
            mark: 0,
            state: State::New,
            original_direction: true,
            symmetric: visit.symmetric,
            tracked: false,
            untracked: false,
        }
    }

    /// The answer to this one, before anything looked at it.
    pub fn answer(&self, state: State, flags: u8) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            flags,
            input: None,
            output: self.input.clone(),
            mark: 0,
            state,
            original_direction: !self.original_direction,
            symmetric: None,
            tracked: false,
            untracked: false,
            ..self.clone()
        }
    }

    /// The network header: `None` for a byte that is not known beforehand.
    pub fn network_header(&self) -> Vec<Option<u8>> {
        let known = |bytes: &[u8]| bytes.iter().copied().map(Some).collect::<Vec<_>>();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                // RFC 791: version and length, service, total length, identification, fragment (none), time to live,
                // protocol, checksum.
                let mut header = vec![None; 12];
                header[0] = Some(0x45);
                header[7] = Some(0);
                header[9] = Some(self.protocol);
                header.extend(known(&source.octets()));
                header.extend(known(&destination.octets()));
                header
            }
            (source, destination) => {
                // RFC 8200: version, traffic class and flow label, payload length, next header, hop limit.
                let mut header = vec![None; 8];
                header[6] = Some(self.protocol);
                for address in [source, destination] {
                    let octets = match address {
                        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                        IpAddr::V6(v6) => v6.octets(),
                    };
                    header.extend(known(&octets));
                }
                header
            }
        }
    }

    /// The header after it.
    pub fn transport_header(&self) -> Vec<Option<u8>> {
        let mut header = vec![None; TCP_HEADER];
        if matches!(self.protocol, TCP | UDP) {
            let ports = [self.source_port, self.destination_port].map(u16::to_be_bytes);
            for (at, byte) in ports.iter().flatten().enumerate() {
                header[at] = Some(*byte);
            }
        }
        if self.protocol == TCP {
            header[13] = Some(self.flags);
        }
        header
    }
}
