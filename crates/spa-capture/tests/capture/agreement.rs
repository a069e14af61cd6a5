//! The filter and the parser give one verdict: the real kernel runs the filter over random and spoiled packets.
//!
//! The program is attached to a Unix datagram socket, whose packets have type HOST too (0): so no privilege is needed.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use proptest::prelude::*;
use spa_capture::filter::{SNAP, program};
use spa_capture::packet::{Refusal, parse, parse_ipv4, parse_ipv6};
use spa_capture::{Family, MAX_DATAGRAM, MIN_DATAGRAM};

use crate::net::attach;
use crate::packets::{PORT, UDP, ipv4, ipv6, payload, plain, udp};

/// A socket pair of which the second end has the filter.
struct Kernel(UnixDatagram, UnixDatagram);

impl Kernel {
    fn new(family: Family) -> Self {
        let (near, far) = UnixDatagram::pair().unwrap();
        attach(far.as_fd(), &program(family, PORT)).unwrap();
        far.set_nonblocking(true).unwrap();
        Self(near, far)
    }

    /// What is left of the packet behind the filter, if it passes.
    fn pass(&self, packet: &[u8]) -> Option<Vec<u8>> {
        self.0.send(packet).unwrap();
        let mut bytes = vec![0; 70_000];
        match self.1.recv(&mut bytes) {
            Ok(length) => Some(bytes[..length].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Checks that kernel and parser agree, and returns their verdict.
fn verdict(kernel: &Kernel, family: Family, packet: &[u8]) -> bool {
    let parsed = parse(family, packet).ok().filter(|parsed| parsed.destination.port() == PORT);
    let passed = kernel.pass(packet);
    assert_eq!(passed.is_some(), parsed.is_some(), "{family} {packet:02x?}");
    if let (Some(passed), Some(parsed)) = (passed, parsed) {
        assert_eq!(passed, packet[..packet.len().min(SNAP)]);
        assert_eq!(parse(family, &passed), Ok(parsed), "cutting the packet changes nothing");
    }
    parsed.is_some()
}

fn families() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

/// Packets that are right or nearly so.
fn packets(family: Family) -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![3 => MIN_DATAGRAM..=MAX_DATAGRAM, 1 => 0..700usize];
    let spoil = proptest::collection::vec((0..70usize, any::<u8>()), 0..3);
    let cut = prop_oneof![4 => Just(0), 1 => -300..300isize];
    (length, 0..=10u8, spoil, cut).prop_map(move |(length, options, spoil, cut)| {
        let datagram = udp(&payload(7, length));
        let mut packet = match family {
            Family::V4 => ipv4(options, UDP, &datagram),
            Family::V6 => ipv6(UDP, &datagram),
        };
        for (at, value) in spoil {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        packet.resize(packet.len().saturating_add_signed(cut), 0);
        packet
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn near_packets_get_one_verdict((family, packet) in families().prop_flat_map(|f| (Just(f), packets(f)))) {
        verdict(&Kernel::new(family), family, &packet);
    }

    #[test]
    fn random_bytes_get_one_verdict(family in families(), bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
        verdict(&Kernel::new(family), family, &bytes);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
        let _ = (parse_ipv4(&bytes), parse_ipv6(&bytes));
    }
}

/// Every bit of the headers, flipped alone: few may be flipped, and those are known.
#[test]
fn one_flipped_bit_gets_one_verdict() {
    for family in [Family::V4, Family::V6] {
        let kernel = Kernel::new(family);
        let right = plain(family, &payload(7, 300));
        assert!(verdict(&kernel, family, &right));
        let header = right.len() - 300;
        let mut free = Vec::new();
        for bit in 0..header * 8 {
            let mut packet = right.clone();
            packet[bit / 8] ^= 1 << (bit % 8);
            if verdict(&kernel, family, &packet) && free.last() != Some(&(bit / 8)) {
                free.push(bit / 8);
            }
        }
        let expected: Vec<usize> = match family {
            // Service, identification, two flag bits, lifetime, checksum, addresses; source port, UDP checksum.
            Family::V4 => [1, 4, 5, 6, 8].into_iter().chain(10..22).chain([26, 27]).collect(),
            // Class, flow label, hop limit, addresses; source port, UDP checksum.
            Family::V6 => [0, 1, 2, 3].into_iter().chain(7..42).chain([46, 47]).collect(),
        };
        assert_eq!(free, expected, "{family}");
    }
}

#[test]
fn every_length_gets_one_verdict() {
    for family in [Family::V4, Family::V6] {
        let kernel = Kernel::new(family);
        for length in 0..1400 {
            let passes = verdict(&kernel, family, &plain(family, &payload(7, length)));
            assert_eq!(passes, (MIN_DATAGRAM..=MAX_DATAGRAM).contains(&length), "{family} {length}");
        }
    }
}

#[test]
fn refusals_name_the_rule() {
    let right = plain(Family::V4, &payload(7, 300));
    let with = |at: usize, value: u8| {
        let mut packet = right.clone();
        packet[at] = value;
        packet
    };
    let cases: [(&[u8], Refusal); 9] = [
        (&[], Refusal::Truncated),
        (&right[..327], Refusal::Truncated),
        (&with(0, 0x65), Refusal::Header),
        (&with(0, 0x44), Refusal::Header),
        (&with(9, 6), Refusal::Protocol),
        (&with(6, 0x20), Refusal::Fragment),
        (&with(7, 1), Refusal::Fragment),
        (&with(25, 0), Refusal::Length),
        (&with(3, 0), Refusal::Length),
    ];
    for (packet, refusal) in cases {
        assert_eq!(parse_ipv4(packet), Err(refusal), "{packet:02x?}");
    }
    for (next, refusal) in [(0, Refusal::Protocol), (43, Refusal::Protocol), (44, Refusal::Fragment)] {
        assert_eq!(parse_ipv6(&ipv6(next, &udp(&payload(7, 300)))), Err(refusal));
    }
}

#[test]
fn headers_are_read() {
    for (family, source, destination) in
        [(Family::V4, "10.0.0.2:40000", "10.0.0.1:62201"), (Family::V6, "[fd00::2]:40000", "[fd00::1]:62201")]
    {
        let carried = payload(7, 256);
        let bytes = plain(family, &carried);
        let packet = parse(family, &bytes).unwrap();
        assert_eq!(packet.source, source.parse().unwrap());
        assert_eq!(packet.destination, destination.parse().unwrap());
        assert_eq!(packet.payload, carried);
    }
}
