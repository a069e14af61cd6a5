//! What `cut` does to live connections over a veth pair, with each driver and in both families.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::*;
use spa_firewall::{Cut, Enforcer, Opening, cut};

const SSH: &str = "tcp/22";
const VPN: &str = "udp/5000";
/// Server, the peer whose grant is revoked, another whose is not.
const PAIRS: [(&str, &str, &str); 2] = [(SERVER_V4, PEER_V4, OTHER_V4), (SERVER_V6, PEER_V6, OTHER_V6)];
/// How often a talkative server says something.
const BEAT: Duration = Duration::from_millis(5);

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

fn own() -> Vec<IpAddr> {
    [SERVER_V4, SERVER_V6].map(|text| text.parse().expect("an address")).to_vec()
}

fn openings(source: &str, endpoint: &str) -> BTreeSet<Opening> {
    BTreeSet::from([key("alice", source, endpoint).opening()])
}

fn cut_all(source: &str, endpoint: &str) -> Cut {
    let cut = cut(&openings(source, endpoint), &own());
    assert!(cut.refused.is_empty(), "{cut:?}");
    cut
}

/// Opens for both peers.
fn open(enforcer: &mut Enforcer, endpoint: &str, peer: &str, other: &str) {
    let grants = [(key("alice", peer, endpoint), lasting(600)), (key("bob", other, endpoint), lasting(600))];
    enforcer.enforce(&wanted(protection(&[endpoint]), &grants)).expect("it is granted");
}

/// Leaves the other's grant alone.
fn revoke(enforcer: &mut Enforcer, endpoint: &str, other: &str) {
    let grants = [(key("bob", other, endpoint), lasting(600))];
    enforcer.enforce(&wanted(protection(&[endpoint]), &grants)).expect("it is revoked");
}

/// Counts what comes from the peer and gets past every rule.
fn lay_counter() {
    spa_tests::sh(
        "nft 'table inet watch {
            counter past { }
            chain input {
                type filter hook input priority 100;
                meta l4proto { tcp, udp } ip saddr 10.9.0.2 counter name past
                meta l4proto { tcp, udp } ip6 saddr fd09::2 counter name past
            }
         }'",
    );
}

fn past() -> u64 {
    let listed = spa_tests::sh("nft list counter inet watch past");
    let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|number| number.parse().ok()).expect("a number of packets")
}

/// A server that talks and echoes on every connection; it reports how each ended.
fn talk(port: u16) -> Receiver<ErrorKind> {
    let listener = TcpListener::bind(("::", port)).expect("the port is free");
    let (ended, ends) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let ended = ended.clone();
            std::thread::spawn(move || {
                loop {
                    if let Err(error) = stream.write_all(b".") {
                        return ended.send(error.kind());
                    }
                    std::thread::sleep(BEAT);
                }
            });
        }
    });
    ends
}

/// Whether the server is heard.
fn hears(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(SOON)).expect("a time-out");
    stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0)
}

#[test]
fn a_talking_server_is_cut_off_from_one_peer() {
    spa_tests::in_namespace(|| {
        lay_cable();
        let ends = talk(22);
        each_driver("a_talking_server_is_cut_off_from_one_peer", |_, enforcer| {
            for (server, peer, other) in PAIRS {
                open(enforcer, SSH, peer, other);
                let mut sessions = [(); 2].map(|()| connect(peer, at(server, 22), SOON).expect("open"));
                let mut others = connect(other, at(server, 22), SOON).expect("open for the other");
                revoke(enforcer, SSH, other);
                assert!(sessions.iter_mut().all(hears), "they outlive the rule");
                let done = cut_all(peer, SSH);
                assert_eq!((done.connections, done.sockets), (2, 2), "{done:?}");
                for session in &mut sessions {
                    session.set_read_timeout(Some(SOON)).expect("a time-out");
                    let end = loop {
                        match session.read(&mut [0; 4096]) {
                            Ok(length) => assert!(length > 0, "no orderly end"),
                            Err(error) => break error.kind(),
                        }
                    };
                    assert_eq!(end, ErrorKind::ConnectionReset, "the peer is told");
                    let end = ends.recv_timeout(Duration::from_secs(5)).expect("the service is told");
                    assert_eq!(end, ErrorKind::ConnectionAborted);
                }
                assert!(hears(&mut others), "the other's goes on");
                assert!(!is_open(peer, at(server, 22)));
                let again = cut_all(peer, SSH);
                assert_eq!((again.connections, again.sockets), (0, 0), "{again:?}");
                drop(others);
                ends.recv_timeout(Duration::from_secs(5)).expect("the other's is closed");
                enforcer.remove_all().expect("it is removed");
            }
        });
    });
}

/// The peer does not even hear of the end and goes on sending: nothing of it comes in.
#[test]
fn a_deaf_peer_gets_nothing_in() {
    spa_tests::in_namespace(|| {
        lay_cable();
        lay_counter();
        let _ends = talk(22);
        spa_tests::sh(
            "nsenter --net=/run/netns/peer nft 'table inet deaf {
                chain input { type filter hook input priority 0; tcp flags & rst != 0 drop; }
             }'",
        );
        each_driver("a_deaf_peer_gets_nothing_in", |_, enforcer| {
            for (server, peer, other) in PAIRS {
                open(enforcer, SSH, peer, other);
                let mut session = connect(peer, at(server, 22), SOON).expect("open");
                let mut others = connect(other, at(server, 22), SOON).expect("open for the other");
                revoke(enforcer, SSH, other);
                let before = past();
                session.write_all(b"still here").expect("sent");
                eventually("it outlives the rule", || past() > before);
                cut_all(peer, SSH);
                let before = past();
                for _ in 0..20 {
                    let _ = session.write_all(b"and now?"); // its buffer takes it
                    assert!(hears(&mut others), "time passes, and packets");
                }
                assert_eq!(past(), before, "nothing of the old flow comes in");
                eventually("then the server is silent for it", || !hears(&mut session));
                enforcer.remove_all().expect("it is removed");
            }
        });
    });
}

/// Sends to whoever sent last from each address, on one socket for all, and never stops.
fn broadcast(port: u16) {
    let socket = UdpSocket::bind(("::", port)).expect("the port is free");
    socket.set_read_timeout(Some(BEAT)).expect("a time-out");
    std::thread::spawn(move || {
        let mut peers = BTreeMap::new();
        loop {
            if let Ok((_, peer)) = socket.recv_from(&mut [0; 64]) {
                peers.insert(peer.ip(), peer);
            }
            for peer in peers.values() {
                let _ = socket.send_to(b".", peer); // a peer that is gone says so
            }
        }
    });
}

/// A UDP socket of the peer with this source.
fn udp(source: &'static str, to: SocketAddr) -> UdpSocket {
    as_peer(move || {
        let socket = UdpSocket::bind(at(source, 0)).expect("a socket");
        socket.set_read_timeout(Some(SOON)).expect("a time-out");
        socket.connect(to).expect("a route");
        socket
    })
}

#[test]
fn a_udp_flow_stops() {
    spa_tests::in_namespace(|| {
        lay_cable();
        lay_counter();
        broadcast(5000);
        each_driver("a_udp_flow_stops", |_, enforcer| {
            for (server, peer, other) in PAIRS {
                open(enforcer, VPN, peer, other);
                let flows = [udp(peer, at(server, 5000)), udp(other, at(server, 5000))];
                for flow in &flows {
                    flow.send(b"hello").expect("sent");
                    // The server's neighbour solicitation may have to be repeated, after a second: the peer's second IPv6
                    // address is that new.
                    flow.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
                    flow.recv(&mut [0; 8]).expect("the first packet is answered, so the flow is established");
                    flow.set_read_timeout(Some(SOON)).expect("a time-out");
                }
                revoke(enforcer, VPN, other);
                let goes_on = || {
                    let before = past();
                    flows[0].send(b"more").expect("sent");
                    eventually("the flow goes on", || past() > before);
                };
                goes_on();
                let elsewhere = cut(&openings(peer, VPN), &[]);
                assert_eq!(elsewhere.connections, 0, "what is only routed is left alone");
                goes_on();
                let done = cut_all(peer, VPN);
                // More than one where conntrack still holds the flow of the driver before.
                assert!(done.connections >= 1 && done.sockets == 0, "{done:?}");
                let before = past();
                for _ in 0..20 {
                    flows[0].send(b"and now?").expect("sent");
                    flows[0].recv(&mut [0; 8]).expect("the server goes on sending");
                    flows[1].recv(&mut [0; 8]).expect("to the other too");
                }
                assert_eq!(past(), before, "nothing of the old flow comes in");
                enforcer.remove_all().expect("it is removed");
            }
        });
    });
}

#[test]
fn a_connected_udp_socket_is_ended() {
    spa_tests::in_namespace(|| {
        lay_cable();
        for (server, peer, _) in PAIRS {
            let ours = UdpSocket::bind(at(server, 5000)).expect("the port is free");
            let theirs = udp(peer, at(server, 5000));
            ours.connect(theirs.local_addr().expect("its address")).expect("connected");
            ours.set_read_timeout(Some(SOON)).expect("a time-out");
            let done = cut_all(peer, VPN);
            assert_eq!(done.sockets, 1, "{done:?}");
            assert_eq!(ours.recv(&mut [0; 8]).expect_err("ended").kind(), ErrorKind::ConnectionAborted);
        }
    });
}

/// How long it takes with a full table; printed, not asserted.
#[test]
fn time_of_a_cut() {
    spa_tests::in_namespace(|| {
        lay_cable();
        spa_tests::sh(
            "nft 'table inet watch { chain i { type filter hook input priority 0; ct state new counter; }; }'",
        );
        let socket = UdpSocket::bind(at(SERVER_V4, 0)).expect("a socket");
        for n in 0..20_000_u32 {
            let to = at(&format!("10.9.0.{}", 2 + n % 2), 1024 + (n / 2) as u16);
            let _ = socket.send_to(b".", to); // nobody listens there
        }
        let begun = Instant::now();
        cut_all(PEER_V4, VPN);
        println!(
            "a cut with {} entries: {:.1?}",
            spa_tests::sh("cat /proc/sys/net/netfilter/nf_conntrack_count").trim(),
            begun.elapsed()
        );
    });
}
