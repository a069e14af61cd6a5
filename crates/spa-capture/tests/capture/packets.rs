//! Packets to send: right ones, for the tests to spoil.

use spa_capture::Family;

pub const PORT: u16 = 62201;
pub const SOURCE_PORT: u16 = 40000;
pub const UDP: u8 = 17;

/// A payload that tells itself apart from others by its mark.
pub fn payload(mark: u8, length: usize) -> Vec<u8> {
    vec![mark; length]
}

/// A UDP datagram to [`PORT`], without checksum.
pub fn udp(payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let fields = [SOURCE_PORT, PORT, length, 0].map(u16::to_be_bytes);
    [fields.as_flattened(), payload].concat()
}

/// An IPv4 packet from 10.0.0.2 to 10.0.0.1 with this many words of options (no-operation).
pub fn ipv4(options: u8, protocol: u8, inner: &[u8]) -> Vec<u8> {
    let header = 20 + 4 * usize::from(options);
    let mut packet = vec![0x45 + options, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0];
    packet.extend([10, 0, 0, 2, 10, 0, 0, 1]);
    packet.resize(header, 1);
    packet[2..4].copy_from_slice(&((header + inner.len()) as u16).to_be_bytes());
    // A bridge with br_netfilter drops a wrong header checksum (RFC 1071) before our tap.
    let words = packet.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(inner);
    packet
}

/// An IPv6 packet from fd00::2 to fd00::1.
pub fn ipv6(next_header: u8, inner: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((inner.len() as u16).to_be_bytes());
    packet.extend([next_header, 64]);
    for last in [2, 1] {
        packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend(inner);
    packet
}

/// The plain packet of a family that carries this payload.
pub fn plain(family: Family, payload: &[u8]) -> Vec<u8> {
    match family {
        Family::V4 => ipv4(0, UDP, &udp(payload)),
        Family::V6 => ipv6(UDP, &udp(payload)),
    }
}
