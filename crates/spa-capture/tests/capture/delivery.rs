//! What is meant for the port arrives, once, whatever happens to firewall and interfaces.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::UdpSocket;

use spa_capture::{BATCH, Family, Method, local_addresses};
use spa_tests::{in_namespace, sh};

use crate::net::{
    LAST, Wire, capture, carrier, for_each_method, in_peer, network, receive, receive_last, wait_for, wire,
};
use crate::packets::{PORT, payload};

for_each_method!(
    seen_though_the_firewall_drops_it,
    once_on_lo_and_from_the_host_to_itself,
    once_through_a_bridge,
    survives_its_interface,
    a_burst_comes_in_batches,
    what_the_buffer_cannot_hold_is_counted,
);

const FAMILIES: [(Family, &str, &str); 2] =
    [(Family::V4, "10.0.0.1", "10.0.0.2"), (Family::V6, "fd00::1", "fd00::2")];

fn udp_socket(address: &str) -> UdpSocket {
    UdpSocket::bind((address, 0)).unwrap()
}

fn seen_though_the_firewall_drops_it(method: Method) {
    network();
    // Neighbour discovery would be dropped too.
    sh("ip -n peer neigh add fd00::1 lladdr 02:00:00:00:00:01 dev cli0");
    for tool in ["iptables", "ip6tables"] {
        sh(&format!("{tool} -P INPUT DROP && {tool} -t raw -A PREROUTING -j DROP"));
    }
    for (family, server, client) in FAMILIES {
        let mut capture = capture(method, family);
        let bystander = udp_socket(server);
        bystander.set_nonblocking(true).unwrap();
        let sender = in_peer(|| udp_socket(client));
        sender.send_to(&payload(1, 300), bystander.local_addr().unwrap()).unwrap();
        sender.connect((server, PORT)).unwrap();
        sender.send(&payload(LAST, 300)).unwrap();
        let seen = receive(&mut capture, |seen| !seen.marks.is_empty());
        assert_eq!((seen.marks, seen.sources), (vec![LAST], vec![client.to_owned()]));
        assert_eq!(bystander.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock, "it does drop");
        sender.set_nonblocking(true).unwrap();
        assert_eq!(sender.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock, "no ICMP error");
    }
}

fn once_on_lo_and_from_the_host_to_itself(method: Method) {
    network();
    for (family, loopback, own) in [(Family::V4, "127.0.0.1", "10.0.0.1"), (Family::V6, "::1", "fd00::1")] {
        let mut capture = capture(method, family);
        for (address, mark) in [(loopback, 1), (own, 2), (loopback, LAST)] {
            udp_socket(address).send_to(&payload(mark, 256), (address, PORT)).unwrap();
        }
        assert_eq!(receive_last(&mut capture), [1, 2, LAST]);
    }
}

fn once_through_a_bridge(method: Method) {
    network();
    sh("ip link add br0 address 02:00:00:00:00:01 type bridge && ip link set br0 up
        ip link set srv0 master br0 && ip addr flush dev srv0 && ip addr add 10.0.0.1/24 dev br0");
    wait_for("bridge link show dev srv0", "state forwarding");
    wait_for("ip link show br0", "LOWER_UP");
    let wire = Wire::new();
    for (family, ..) in FAMILIES {
        let mut capture = capture(method, family);
        wire.right(family, 1);
        wire.right(family, LAST);
        assert_eq!(receive_last(&mut capture), [1, LAST]);
    }
}

fn survives_its_interface(method: Method) {
    network();
    for (family, ..) in FAMILIES {
        let mut capture = capture(method, family);
        let wire_before = Wire::new();
        sh("ip link set srv0 down && ip link set srv0 up");
        carrier();
        wire_before.right(family, LAST);
        assert_eq!(receive_last(&mut capture), [LAST]);
        sh("ip link del srv0");
        wire();
        Wire::new().right(family, LAST);
        assert_eq!(receive_last(&mut capture), [LAST]);
    }
}

fn a_burst_comes_in_batches(method: Method) {
    network();
    let mut capture = capture(method, Family::V4);
    let wire = Wire::new();
    (0..2 * BATCH).for_each(|_| wire.right(Family::V4, 1));
    let sizes = [(); 3].map(|()| {
        let received = capture.receive(&mut |_| {}).unwrap();
        (received.accepted, received.more())
    });
    assert_eq!(sizes, [(BATCH, true), (BATCH, true), (0, false)]);
}

fn what_the_buffer_cannot_hold_is_counted(method: Method) {
    network();
    let mut capture = capture(method, Family::V4);
    let wire = Wire::new();
    const SENT: u64 = 30_000;
    (0..SENT - 1).for_each(|_| wire.right(Family::V4, 1));
    let lost = capture.drops().unwrap();
    assert!(lost > 0);
    let held = SENT - 1 - lost;
    let seen = receive(&mut capture, |seen| seen.marks.len() as u64 == held);
    assert_eq!(seen.refused, 0);
    assert_eq!(capture.drops().unwrap(), lost, "the count is not lost by reading it");
    wire.right(Family::V4, LAST);
    assert_eq!(receive_last(&mut capture), [LAST]);
}

#[test]
fn own_addresses_are_listed() {
    in_namespace(|| {
        network();
        let listed: BTreeSet<String> = local_addresses().unwrap().iter().map(ToString::to_string).collect();
        for address in ["127.0.0.1", "::1", "10.0.0.1", "fd00::1"] {
            assert!(listed.contains(address), "{address} in {listed:?}");
        }
        assert!(!listed.contains("10.0.0.2"));
    });
}
