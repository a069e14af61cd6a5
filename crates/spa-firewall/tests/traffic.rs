//! What the rules do to real connections over a veth pair, with each driver and in both families.

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use common::*;
use spa_firewall::conntrack::adopt_established;
use spa_firewall::{Enforcer, Family, Firewall, GrantKey, reconcile};

const SSH: &str = "tcp/22";

/// Server address, granted peer, other address of the same peer.
const PAIRS: [(&str, &str, &str); 2] = [(SERVER_V4, PEER_V4, OTHER_V4), (SERVER_V6, PEER_V6, OTHER_V6)];

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

fn listen(ports: &[u16]) {
    for port in ports {
        echo(&format!("[::]:{port}"));
    }
}

#[test]
fn a_grant_opens_for_its_source_alone() {
    spa_tests::in_namespace(|| {
        lay_cable();
        listen(&[22, 80]);
        each_driver("a_grant_opens_for_its_source_alone", |_, enforcer| {
            for (server, peer, other) in PAIRS {
                assert!(is_open(peer, at(server, 22)), "before us it is open");
                enforcer.enforce(&wanted(protection(&[SSH]), &[])).expect("it is laid");
                assert!(!is_open(peer, at(server, 22)), "closed");
                assert!(is_open(peer, at(server, 80)), "not ours");
                let grant = (key("alice", peer, SSH), lasting(600));
                enforcer.enforce(&wanted(protection(&[SSH]), &[grant])).expect("it is granted");
                assert!(is_open(peer, at(server, 22)), "open for {peer}");
                assert!(!is_open(other, at(server, 22)), "closed for {other}");
                enforcer.enforce(&wanted(protection(&[SSH]), &[])).expect("it is taken back");
                assert!(!is_open(peer, at(server, 22)), "closed again");
                assert!(std::net::TcpStream::connect_timeout(&at(server, 22), SOON).is_ok(), "own address");
                enforcer.remove_all().expect("it is removed");
                assert!(is_open(peer, at(server, 22)), "after us it is open");
            }
        });
    });
}

#[test]
fn the_kernel_alone_closes_in_time() {
    spa_tests::in_namespace(|| {
        lay_cable();
        listen(&[22]);
        each_driver("the_kernel_alone_closes_in_time", |_, enforcer| {
            for (server, peer, _) in PAIRS {
                let lifetime = lasting(2);
                let grant = (key("alice", peer, SSH), lifetime);
                enforcer.enforce(&wanted(protection(&[SSH]), &[grant])).expect("it is granted");
                let begun = Instant::now();
                let mut session = connect(peer, at(server, 22), SOON).expect("it is open");
                eventually("closed by the kernel", || !is_open(peer, at(server, 22)));
                let late = std::time::SystemTime::now().duration_since(lifetime.until).expect("not early");
                assert!(
                    late < Duration::from_secs(2),
                    "closed {late:?} after its time, {:?} in all",
                    begun.elapsed()
                );
                assert!(answers(&mut session), "the session lives on");
                enforcer.enforce(&wanted(protection(&[SSH]), &[])).expect("it is tidied");
                assert!(answers(&mut session), "the session lives on without the rule");
                enforcer.remove_all().expect("it is removed");
            }
        });
    });
}

#[test]
fn provisional_protection_lifts_itself() {
    spa_tests::in_namespace(|| {
        lay_cable();
        listen(&[22]);
        each_driver("provisional_protection_lifts_itself", |_, enforcer| {
            let mut protection = protection(&[SSH]);
            protection.provisional_until = Some(lasting(2).until);
            let wanted = wanted(protection, &[]);
            enforcer.enforce(&wanted).expect("it is laid");
            assert!(!is_open(PEER_V4, at(SERVER_V4, 22)), "closed");
            for (server, peer, _) in PAIRS {
                eventually("lifted by the kernel", || is_open(peer, at(server, 22)));
            }
            enforcer.forget();
            assert_eq!(enforcer.enforce(&wanted).expect("it stands").attempts, 0);
            enforcer.remove_all().expect("it is removed");
        });
    });
}

#[test]
fn exceptions_keep_what_they_had() {
    spa_tests::in_namespace(|| {
        lay_cable();
        listen(&[22]);
        each_driver("exceptions_keep_what_they_had", |_, enforcer| {
            let mut protection = protection(&[SSH]);
            protection.except = [PEER_V4, PEER_V6].map(|text| text.parse().expect("an exception")).to_vec();
            enforcer.enforce(&wanted(protection.clone(), &[])).expect("it is laid");
            for (server, peer, other) in PAIRS {
                assert!(is_open(peer, at(server, 22)));
                assert!(!is_open(other, at(server, 22)));
            }
            protection.except = vec!["v0".parse().expect("an interface")];
            enforcer.enforce(&wanted(protection, &[])).expect("it is laid");
            assert!(is_open(OTHER_V4, at(SERVER_V4, 22)));
            assert!(is_open(OTHER_V6, at(SERVER_V6, 22)));
            enforcer.remove_all().expect("it is removed");
        });
    });
}

/// Sessions from before the first rule, one of each family, idle since.
fn sessions(ports: &[u16]) -> Vec<std::net::TcpStream> {
    let to = |port: &u16| {
        PAIRS.map(|(server, peer, _)| connect(peer, at(server, *port), SOON).expect("a session"))
    };
    ports.iter().flat_map(to).collect()
}

#[test]
fn first_start_keeps_idle_sessions() {
    spa_tests::in_namespace(|| {
        lay_cable();
        listen(&[22, 2222]);
        let mut sessions = sessions(&[22]);
        let services = protection(&[SSH]).services;
        let adopted = adopt_established(&services).expect("conntrack takes them");
        assert_eq!((adopted.inserted, adopted.known, adopted.turned), (2, 0, 0), "{adopted:?}");
        assert!(adopted.failed.is_empty());
        let again = adopt_established(&services).expect("conntrack knows them");
        assert_eq!((again.inserted, again.known, again.turned), (0, 2, 0), "{again:?}");
        lay(&[SSH, "tcp/2222"], |_| {
            assert!(sessions.iter_mut().all(answers), "the adopted sessions go on");
            assert!(!is_open(PEER_V4, at(SERVER_V4, 22)));
        });
    });
}

#[test]
fn without_adoption_they_are_cut() {
    spa_tests::in_namespace(|| {
        lay_cable();
        listen(&[22]);
        let mut sessions = sessions(&[22]);
        lay(&[SSH], |_| assert!(!sessions.iter_mut().any(answers), "or the test above shows nothing"));
    });
}

#[test]
fn legacy_keeps_idle_sessions_too() {
    spa_tests::in_namespace(|| {
        lay_cable();
        listen(&[22]);
        let mut sessions = sessions(&[22]);
        let Ok(driver) = spa_firewall::iptables::Iptables::open(spa_firewall::iptables::Variant::Legacy)
        else {
            return spa_tests::skip("legacy_keeps_idle_sessions_too", "iptables-legacy does not work here");
        };
        let wanted = wanted(protection(&[SSH]), &[]);
        let adopted = adopt_established(&protection(&[SSH]).services).expect("conntrack takes them");
        assert_eq!(adopted.inserted, 2);
        Enforcer::new(Box::new(driver)).enforce(&wanted).expect("it is laid");
        assert!(sessions.iter_mut().all(answers));
    });
}

/// Conntrack was on before us and took up a session from a packet of ours, so it holds it the wrong way round.
#[test]
fn a_session_known_the_wrong_way_round_is_turned() {
    spa_tests::in_namespace(|| {
        lay_cable();
        let talker = std::net::TcpListener::bind("[::]:22").expect("the port is free");
        let (accepted, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            talker.incoming().flatten().for_each(|stream| accepted.send(stream).expect("sent"))
        });
        let mut sessions = sessions(&[22]);
        let servers: Vec<_> = (0..2).map(|_| ready.recv().expect("accepted")).collect();
        // A first conntrack rule of somebody else, then the server speaks.
        for family in ["iptables-nft", "ip6tables-nft"] {
            spa_tests::sh(&format!("{family} -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT"));
        }
        let mut greeting = [0; 2];
        for (server, client) in servers.iter().zip(&mut sessions) {
            use std::io::{Read, Write};
            let mut server = server;
            server.write_all(b"hi").expect("sent");
            client.set_read_timeout(Some(SOON)).expect("a time-out");
            client.read_exact(&mut greeting).expect("the greeting comes");
        }
        let adopted = adopt_established(&protection(&[SSH]).services).expect("conntrack takes them");
        assert_eq!((adopted.inserted, adopted.known, adopted.turned), (0, 0, 2), "{adopted:?}");
        lay(&[SSH], |_| {
            for (mut server, mut client) in servers.iter().zip(&sessions) {
                use std::io::{Read, Write};
                client.write_all(b"yo").expect("sent");
                server.set_read_timeout(Some(SOON)).expect("a time-out");
                server.read_exact(&mut greeting).expect("it comes through");
            }
        });
    });
}

#[test]
fn a_closed_spa_port_says_nothing() {
    spa_tests::in_namespace(|| {
        lay_cable();
        each_driver("a_closed_spa_port_says_nothing", |_, enforcer| {
            let knock = || {
                as_peer(|| {
                    PAIRS.map(|(server, _, _)| {
                        let bind = if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
                        let socket = std::net::UdpSocket::bind(bind).expect("a socket");
                        socket.connect(at(server, 62201)).expect("a route");
                        socket.set_read_timeout(Some(SOON)).expect("a time-out");
                        socket.send(b"junk").expect("sent");
                        socket.recv(&mut [0; 8]).expect_err("nothing listens").kind()
                    })
                })
            };
            let refused = std::io::ErrorKind::ConnectionRefused;
            assert_eq!(knock(), [refused; 2], "before us the host gives itself away");
            let mut protection = protection(&[SSH]);
            protection.protect = false;
            enforcer.enforce(&wanted(protection, &[])).expect("it is laid");
            assert_eq!(knock(), [std::io::ErrorKind::WouldBlock; 2], "silence");
            enforcer.remove_all().expect("it is removed");
        });
    });
}

/// How long one grant takes among many; printed, not asserted.
#[test]
fn time_of_one_grant() {
    spa_tests::in_namespace(|| {
        for variant in VARIANTS {
            let Ok(mut driver) = spa_firewall::iptables::Iptables::open(variant) else {
                spa_tests::skip("time_of_one_grant", &format!("{variant:?} does not work here"));
                continue;
            };
            for others in [0_u32, 100, 1000] {
                let grants: Vec<(GrantKey, _)> = (0..others)
                    .map(|n| (key("bob", &format!("10.2.{}.{}", n / 250, n % 250), SSH), lasting(900)))
                    .collect();
                let mut wanted = wanted(protection(&[SSH]), &grants);
                let mut kernel = driver.read().expect("it is read");
                driver.apply(&reconcile(&wanted, &kernel, SystemTime::now())).expect("the others are laid");
                kernel = driver.read().expect("it is read");
                let alice = key("alice", "198.51.100.7", SSH);
                let mut times = [const { Vec::new() }; 4];
                for round in 0..9 {
                    for (slot, lifetime) in
                        [Some(lasting(60 + round)), Some(lasting(120 + round)), None].iter().enumerate()
                    {
                        match lifetime {
                            Some(lifetime) => wanted.grants.insert(alice.clone(), *lifetime),
                            None => wanted.grants.remove(&alice),
                        };
                        let begun = Instant::now();
                        driver.apply(&reconcile(&wanted, &kernel, SystemTime::now())).expect("it is written");
                        times[slot].push(begun.elapsed());
                        let begun = Instant::now();
                        kernel.v4 = driver.read_family(Family::V4).expect("it is read");
                        times[3].push(begun.elapsed());
                        assert!(reconcile(&wanted, &kernel, SystemTime::now()).is_empty());
                    }
                }
                let [grant, renew, remove, read] = times.map(|mut all| {
                    all.sort();
                    all[all.len() / 2]
                });
                println!(
                    "{} among {others} others, median: grant {grant:.1?}, renewal {renew:.1?}, removal {remove:.1?}, \
                     read-back {read:.1?}",
                    driver.name()
                );
            }
        }
    });
}

/// Lays protection with the nft variant, runs `body`, and takes it away.
fn lay(services: &[&str], body: impl FnOnce(&mut Enforcer)) {
    let driver =
        spa_firewall::iptables::Iptables::open(spa_firewall::iptables::Variant::Nft).expect("it opens");
    let mut enforcer = Enforcer::new(Box::new(driver));
    enforcer.enforce(&wanted(protection(services), &[])).expect("it is laid");
    body(&mut enforcer);
    enforcer.remove_all().expect("it is removed");
}
