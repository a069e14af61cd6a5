//! What is not a plain datagram to the port never gets to user space.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use spa_capture::{Family, MAX_DATAGRAM, MIN_DATAGRAM, Method};
use spa_tests::sh;

use crate::net::{
    LAST, SERVER, Wire, capture, ethertype, for_each_method, in_peer, network, receive_last, set,
};
use crate::packets::{PORT, UDP, ipv4, ipv6, payload, plain, udp};

for_each_method!(
    wrong_packets_stay_outside,
    frames_for_others_stay_outside,
    a_priority_tag_does_not_matter,
    options_and_padding_do_not_matter,
    super_packets_stay_outside,
    no_moment_without_a_filter,
    a_flood_of_wrong_length_costs_user_space_nothing,
);

const TCP: u8 = 6;

/// A right packet with some bytes written over.
fn spoilt(family: Family, changes: &[(usize, u8)]) -> Vec<u8> {
    let mut packet = plain(family, &payload(1, 300));
    changes.iter().for_each(|&(at, value)| packet[at] = value);
    packet
}

fn wrong_ipv4() -> Vec<(&'static str, Vec<u8>)> {
    let right = plain(Family::V4, &payload(1, 300));
    let spoilt = |changes: &[(usize, u8)]| spoilt(Family::V4, changes);
    vec![
        ("too short", plain(Family::V4, &payload(1, MIN_DATAGRAM - 1))),
        ("too long", plain(Family::V4, &payload(1, MAX_DATAGRAM + 1))),
        ("empty", plain(Family::V4, &[])),
        ("wrong port", spoilt(&[(23, PORT as u8 ^ 1)])),
        ("TCP", ipv4(0, TCP, &udp(&payload(1, 300)))),
        ("first fragment", spoilt(&[(6, 0x20)])),
        ("middle fragment", spoilt(&[(6, 0x20), (7, 8)])),
        ("last fragment", spoilt(&[(6, 0), (7, 8)])),
        ("cut off", right[..right.len() - 1].to_vec()),
        ("cut off in its header", right[..24].to_vec()),
        ("no header length", spoilt(&[(0, 0x44)])),
        ("version 6 inside", spoilt(&[(0, 0x65)])),
        ("datagram shorter than the packet", spoilt(&[(25, (308 - 256 - 1) as u8)])),
        ("datagram longer than the packet", spoilt(&[(25, (308 - 256 + 1) as u8)])),
        ("packet shorter than the datagram", spoilt(&[(2, 0), (3, 60)])),
    ]
}

fn wrong_ipv6() -> Vec<(&'static str, Vec<u8>)> {
    let datagram = udp(&payload(1, 300));
    let right = plain(Family::V6, &payload(1, 300));
    let behind = |header: u8, extension: [u8; 8]| ipv6(header, &[&extension[..], &datagram].concat());
    vec![
        ("too short", plain(Family::V6, &payload(1, MIN_DATAGRAM - 1))),
        ("too long", plain(Family::V6, &payload(1, MAX_DATAGRAM + 1))),
        ("wrong port", spoilt(Family::V6, &[(43, PORT as u8 ^ 1)])),
        ("TCP", ipv6(TCP, &datagram)),
        ("hop-by-hop options", behind(0, [UDP, 0, 1, 4, 0, 0, 0, 0])),
        ("routing header", behind(43, [UDP, 0, 4, 0, 0, 0, 0, 0])),
        ("atomic fragment", behind(44, [UDP, 0, 0, 0, 0, 0, 0, 1])),
        ("first fragment", behind(44, [UDP, 0, 0, 1, 0, 0, 0, 1])),
        ("destination options", behind(60, [UDP, 0, 1, 4, 0, 0, 0, 0])),
        ("cut off", right[..right.len() - 1].to_vec()),
        ("version 4 inside", spoilt(Family::V6, &[(0, 0x45)])),
        ("datagram shorter than the packet", spoilt(Family::V6, &[(45, (308 - 256 - 1) as u8)])),
        ("no payload length", spoilt(Family::V6, &[(4, 0), (5, 0)])),
    ]
}

/// One at a time, so that a failure has a name.
fn wrong_packets_stay_outside(method: Method) {
    network();
    let wire = Wire::new();
    for (family, wrong) in [(Family::V4, wrong_ipv4()), (Family::V6, wrong_ipv6())] {
        let mut capture = capture(method, family);
        for (name, packet) in wrong {
            wire.packet(family, &packet);
            wire.right(family, LAST);
            assert_eq!(receive_last(&mut capture), [LAST], "{family}: {name}");
        }
    }
}

fn frames_for_others_stay_outside(method: Method) {
    network();
    sh("ip link set srv0 promisc on"); // as if someone ran tcpdump
    let wire = Wire::new();
    for family in [Family::V4, Family::V6] {
        let mut capture = capture(method, family);
        let packet = plain(family, &payload(1, 300));
        let kind = ethertype(family);
        for to in [[2, 0, 0, 0, 0, 9], [0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
            wire.frame(to, kind, &packet);
        }
        let tag = [0x81, 0x00, 0x00, 0x05];
        wire.frame(SERVER, &[&tag, kind].concat(), &packet);
        let double = [0x88, 0xa8, 0x00, 0x05, 0x81, 0x00, 0x00, 0x06];
        wire.frame(SERVER, &[&double, kind].concat(), &packet);
        wire.right(family, LAST);
        assert_eq!(receive_last(&mut capture), [LAST]);
    }
}

/// A priority tag (VLAN 0) names no VLAN; the host's own stack takes such a frame as well.
fn a_priority_tag_does_not_matter(method: Method) {
    network();
    let mut capture = capture(method, Family::V4);
    let packet = plain(Family::V4, &payload(LAST, 300));
    Wire::new().frame(SERVER, &[0x81, 0x00, 0xa0, 0x00, 0x08, 0x00], &packet);
    assert_eq!(receive_last(&mut capture), [LAST]);
}

/// Padding behind the packet and IPv4 options are no fault.
fn options_and_padding_do_not_matter(method: Method) {
    network();
    let wire = Wire::new();
    let mut capture = capture(method, Family::V4);
    wire.packet(Family::V4, &ipv4(10, UDP, &udp(&payload(1, MAX_DATAGRAM))));
    wire.packet(Family::V4, &[plain(Family::V4, &payload(2, 256)), vec![9; 600]].concat());
    wire.right(Family::V4, LAST);
    assert_eq!(receive_last(&mut capture), [1, 2, LAST]);
}

/// veth hands a super-packet over unsplit; the ten datagrams in it are of a right length.
fn super_packets_stay_outside(method: Method) {
    network();
    let mut capture = capture(method, Family::V4);
    let sender = in_peer(|| UdpSocket::bind("10.0.0.2:0").unwrap());
    set(sender.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, &300_i32).unwrap();
    sender.send_to(&payload(1, 3000), ("10.0.0.1", PORT)).unwrap();
    sender.send_to(&payload(LAST, 300), ("10.0.0.1", PORT)).unwrap();
    assert_eq!(receive_last(&mut capture), [LAST]);
}

/// Ends a flood when it goes out of scope, also when its test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Sends wrong packets of both families without a pause while `body` runs. Returns how many went out.
fn under_flood(body: impl FnOnce(&AtomicUsize)) -> usize {
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let wire = Wire::new();
    let wrong = [Family::V4, Family::V6].map(|family| (family, plain(family, &payload(1, MIN_DATAGRAM - 1))));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                wrong.iter().for_each(|(family, packet)| wire.packet(*family, packet));
                sent.fetch_add(1, Relaxed);
            }
        });
        let _stop = Stop(&stop);
        body(&sent);
    });
    2 * sent.into_inner()
}

fn no_moment_without_a_filter(method: Method) {
    network();
    under_flood(|sent| {
        for family in [Family::V4, Family::V6].into_iter().cycle().take(100) {
            let before = sent.load(Relaxed);
            let mut capture = capture(method, family);
            while sent.load(Relaxed) < before + 2 {
                std::thread::yield_now();
            }
            let received = capture.receive(&mut |_| {}).unwrap();
            assert_eq!((received.accepted, received.refused), (0, 0));
        }
    });
}

fn a_flood_of_wrong_length_costs_user_space_nothing(method: Method) {
    network();
    let mut captures = [Family::V4, Family::V6].map(|family| capture(method, family));
    let sent = under_flood(|sent| {
        while sent.load(Relaxed) < 20_000 {
            std::thread::yield_now();
        }
    });
    assert!(sent >= 40_000);
    for (capture, family) in captures.iter_mut().zip([Family::V4, Family::V6]) {
        assert_eq!(capture.drops().unwrap(), 0);
        Wire::new().right(family, LAST);
        assert_eq!(receive_last(capture), [LAST]);
    }
}
