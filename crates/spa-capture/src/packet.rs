//! Reading the headers of a captured packet: pure, total, and as strict as the filter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{Family, MAX_DATAGRAM, MIN_DATAGRAM};

/// Longest IPv4 header, in bytes: 15 words of 4 (RFC 791, section 3.1).
pub(crate) const IPV4_HEADER_MAX: usize = 60;
const IPV4_HEADER_MIN: usize = 20;
/// The fixed IPv6 header, in bytes (RFC 8200, section 3).
pub(crate) const IPV6_HEADER: usize = 40;
/// The UDP header, in bytes (RFC 768).
pub(crate) const UDP_HEADER: usize = 8;
const UDP: u8 = libc::IPPROTO_UDP as u8;

/// A whole UDP datagram within the length limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Where the header says it came from.
    pub source: SocketAddr,
    /// Where it was sent.
    pub destination: SocketAddr,
    /// What the datagram carries: [`MIN_DATAGRAM`] to [`MAX_DATAGRAM`] bytes.
    pub payload: &'a [u8],
}

/// Why a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It ends before its headers or its stated length do.
    Truncated,
    /// Another version, or an impossible header length.
    Header,
    /// Not UDP; in IPv6 also UDP behind an extension header.
    Protocol,
    /// A fragment of a packet.
    Fragment,
    /// The payload is too short or too long, or the length of the datagram is not that of the packet.
    Length,
}

/// Reads the packet of one family; bytes behind the packet's stated length are padding of the link and ignored.
///
/// # Errors
/// The first rule that the packet breaks. Checksums are not among them: see the crate's documentation.
pub fn parse(family: Family, bytes: &[u8]) -> Result<Packet<'_>, Refusal> {
    match family {
        Family::V4 => parse_ipv4(bytes),
        Family::V6 => parse_ipv6(bytes),
    }
}

/// Reads an IPv4 packet (RFC 791), from its first byte on. Options are stepped over, not read.
///
/// # Errors
/// As [`parse`].
pub fn parse_ipv4(bytes: &[u8]) -> Result<Packet<'_>, Refusal> {
    let header: &[u8; IPV4_HEADER_MIN] = bytes.first_chunk().ok_or(Refusal::Truncated)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < IPV4_HEADER_MIN {
        return Err(Refusal::Header);
    }
    if header[9] != UDP {
        return Err(Refusal::Protocol);
    }
    const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;
    if u16::from_be_bytes([header[6], header[7]]) & MORE_FRAGMENTS_OR_OFFSET != 0 {
        return Err(Refusal::Fragment);
    }
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let room = total.checked_sub(length).ok_or(Refusal::Length)?;
    let udp = bytes.get(length..).ok_or(Refusal::Truncated)?;
    let source = Ipv4Addr::from([header[12], header[13], header[14], header[15]]);
    let destination = Ipv4Addr::from([header[16], header[17], header[18], header[19]]);
    parse_udp(udp, room, source.into(), destination.into())
}

/// Reads an IPv6 packet (RFC 8200), from its first byte on. UDP has to follow the fixed header directly.
///
/// # Errors
/// As [`parse`].
pub fn parse_ipv6(bytes: &[u8]) -> Result<Packet<'_>, Refusal> {
    let (header, udp) = bytes.split_first_chunk::<IPV6_HEADER>().ok_or(Refusal::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Refusal::Header);
    }
    const FRAGMENT_HEADER: u8 = libc::IPPROTO_FRAGMENT as u8;
    match header[6] {
        UDP => {}
        FRAGMENT_HEADER => return Err(Refusal::Fragment),
        _ => return Err(Refusal::Protocol),
    }
    let room = usize::from(u16::from_be_bytes([header[4], header[5]]));
    parse_udp(udp, room, ipv6_address(header, 8), ipv6_address(header, 24))
}

fn ipv6_address(header: &[u8; IPV6_HEADER], at: usize) -> IpAddr {
    Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| header[at + i])).into()
}

/// Reads a UDP datagram (RFC 768) that has to fill `room` bytes of the packet exactly.
fn parse_udp(udp: &[u8], room: usize, source: IpAddr, destination: IpAddr) -> Result<Packet<'_>, Refusal> {
    let header: &[u8; UDP_HEADER] = udp.first_chunk().ok_or(Refusal::Truncated)?;
    let [source_port, destination_port, length] =
        [0, 2, 4].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
    let length = usize::from(length);
    if length != room || !(UDP_HEADER + MIN_DATAGRAM..=UDP_HEADER + MAX_DATAGRAM).contains(&length) {
        return Err(Refusal::Length);
    }
    let payload = udp.get(UDP_HEADER..length).ok_or(Refusal::Truncated)?;
    Ok(Packet {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
        payload,
    })
}
