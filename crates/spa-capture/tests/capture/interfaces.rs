//! Captures limited to interfaces by name, while interfaces come and go.

use spa_capture::{Capture, Family, Interfaces, Method};
use spa_tests::sh;

use crate::net::{
    LAST, SERVER, Wire, capture_on, carrier, ethertype, for_each_method, in_peer, network, receive,
    receive_last, wait_for, wire,
};
use crate::packets::{payload, plain};

for_each_method!(
    only_the_named_counts,
    the_index_is_reported,
    a_name_may_come_later_and_again,
    a_rename_counts_from_the_next_resolve,
    an_index_given_to_another_counts_until_the_next_resolve,
);

fn only(method: Method, name: &str) -> (Interfaces, Capture) {
    let interfaces = Interfaces::named([name]).unwrap();
    let capture = capture_on(&interfaces, method, Family::V4);
    (interfaces, capture)
}

/// Receives one datagram from an interface that does not count; returns whether it was the sign to resolve again.
fn refused(capture: &mut Capture) -> bool {
    let seen = receive(capture, |seen| seen.elsewhere > 0);
    assert_eq!((seen.marks.len(), seen.elsewhere, seen.refused), (0, 1, 0));
    seen.stale > 0
}

fn only_the_named_counts(method: Method) {
    network();
    sh("ip link add srv1 address 02:00:00:00:00:01 type veth peer name cli1 netns peer
        ip link set srv1 up && ip -n peer link set cli1 up");
    wait_for("ip -n peer link show cli1", "LOWER_UP");
    let (_, mut capture) = only(method, "srv0");
    let other = in_peer(|| Wire::at("cli1"));
    for first in [true, false] {
        other.frame(SERVER, ethertype(Family::V4), &plain(Family::V4, &payload(1, 300)));
        assert_eq!(refused(&mut capture), first, "one sign for each interface");
    }
    Wire::new().right(Family::V4, LAST);
    assert_eq!(receive_last(&mut capture), [LAST]);
}

fn the_index_is_reported(method: Method) {
    network();
    let (interfaces, mut capture) = only(method, "srv0");
    Wire::new().right(Family::V4, LAST);
    let seen = receive(&mut capture, |seen| !seen.marks.is_empty());
    assert_eq!(Some(seen.interfaces), interfaces.resolve().unwrap());
}

fn a_name_may_come_later_and_again(method: Method) {
    network();
    sh("ip link del srv0");
    let (interfaces, mut capture) = only(method, "srv0");
    assert_eq!(interfaces.resolve().unwrap(), Some(vec![]));
    for _ in 0..2 {
        wire();
        Wire::new().right(Family::V4, 1);
        assert!(refused(&mut capture), "the sign to resolve again");
        capture.set_interfaces(interfaces.resolve().unwrap());
        Wire::new().right(Family::V4, LAST);
        assert_eq!(receive_last(&mut capture), [LAST]);
        sh("ip link del srv0");
    }
}

fn a_rename_counts_from_the_next_resolve(method: Method) {
    network();
    let (interfaces, mut capture) = only(method, "srv0");
    sh("ip link set srv0 down && ip link set srv0 name old0 && ip link set old0 up");
    carrier();
    Wire::new().right(Family::V4, LAST);
    assert_eq!(receive_last(&mut capture), [LAST], "the index stays what it was");
    capture.set_interfaces(interfaces.resolve().unwrap());
    Wire::new().right(Family::V4, 1);
    assert!(refused(&mut capture));
}

fn an_index_given_to_another_counts_until_the_next_resolve(method: Method) {
    network();
    let (interfaces, mut capture) = only(method, "srv0");
    let index = interfaces.resolve().unwrap().unwrap()[0];
    sh("ip link del srv0");
    sh(&format!(
        "ip link add new0 index {index} address 02:00:00:00:00:01 type veth peer name cli0 netns peer
         ip link set new0 up && ip -n peer link set cli0 up"
    ));
    carrier();
    Wire::new().right(Family::V4, LAST);
    assert_eq!(receive_last(&mut capture), [LAST]);
    capture.set_interfaces(interfaces.resolve().unwrap());
    Wire::new().right(Family::V4, 1);
    assert!(refused(&mut capture));
}

#[test]
fn all_is_no_list() {
    assert_eq!(Interfaces::all().resolve().unwrap(), None);
}
