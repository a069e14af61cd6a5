//! What only the nftables driver does, on the real kernel. What all drivers do is in `traffic.rs` and `rules.rs`.

mod common;

use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime};

use common::*;
use spa_firewall::memory::Memory;
use spa_firewall::nftables::Nftables;
use spa_firewall::{ChainPlan, Enforcer, Error, Firewall, GrantKey, GrantStatus, Lifetime, Wanted};

const SSH: &str = "tcp/22";

fn enforcer() -> Enforcer {
    Enforcer::new(Box::new(Nftables::open().expect("it opens")))
}

/// With a table that others may change, as on kernels without the flags.
fn shared() -> Enforcer {
    Enforcer::new(Box::new(Nftables::open_shared().expect("it opens")))
}

fn nft(arguments: &str) -> String {
    spa_tests::sh(&format!("nft {arguments}"))
}

fn clients(enforcer: &mut Enforcer) -> Vec<String> {
    let grants = enforcer.grants().expect("they are read");
    grants.into_iter().map(|status: GrantStatus| status.key.client.to_string()).collect()
}

#[test]
fn order_of_the_chains() {
    spa_tests::in_namespace(|| {
        let mut protection = protection(&[SSH, "udp/51820"]);
        protection.except =
            ["wg0", "192.0.2.0/24", "2001:db8::/32", "lo"].map(|text| text.parse().expect("one")).to_vec();
        let mut enforcer = enforcer();
        let report = enforcer.enforce(&wanted(protection, &[])).expect("it is laid");
        assert_eq!(report.attempts, 1);
        for (chain, network) in [("ipv4", "192.0.2.0/24"), ("ipv6", "2001:db8::/32")] {
            let listed = nft(&format!("list chain inet spa {chain}"));
            let comments: Vec<_> = listed.lines().filter_map(|line| line.split('"').rev().nth(1)).collect();
            let except = format!("spa except {network}");
            let expected = [
                "spa lo",
                "spa except wg0",
                &except,
                "spa established tcp/22",
                "spa established udp/51820",
                "spa openings",
                "spa drop tcp/22",
                "spa drop udp/51820",
                "spa drop udp/62201",
            ];
            assert_eq!(comments, expected, "{listed}");
        }
        assert!(nft("list chain inet spa input").contains("hook input priority mangle; policy accept;"));
    });
}

/// Two people behind one address: neither ends the other's grant.
#[test]
fn clients_that_share_an_opening() {
    spa_tests::in_namespace(|| {
        lay_cable();
        let server = echo("[::]:22");
        for (address, peer) in [(SERVER_V4, PEER_V4), (SERVER_V6, PEER_V6)] {
            let to = (address.parse::<std::net::IpAddr>().expect("an address"), server.port()).into();
            let (alice, bob) = (key("alice", peer, SSH), key("bob", peer, SSH));
            let mut enforcer = enforcer();
            let mut wanted =
                wanted(protection(&[SSH]), &[(alice.clone(), lasting(1)), (bob.clone(), lasting(600))]);
            enforcer.enforce(&wanted).expect("both are granted");
            assert_eq!(clients(&mut enforcer), ["alice", "bob"]);
            eventually("the kernel ends the first", || clients(&mut enforcer) == ["bob"]);
            assert!(is_open(peer, to), "for the other it stays open");

            wanted.grants.insert(alice.clone(), lasting(900));
            enforcer.enforce_grants(&wanted, std::slice::from_ref(&alice)).expect("it is granted again");
            wanted.grants.remove(&alice);
            let shortened = enforcer.enforce_grants(&wanted, &[alice]).expect("the longer one is revoked");
            assert_eq!(shortened.attempts, 1);
            assert!(is_open(peer, to), "for the other it stays open");
            drop(enforcer);

            let mut next = self::enforcer();
            let adopted = next.adopt().expect("they are read");
            assert_eq!(adopted, [(bob.clone(), wanted.grants[&bob])], "to the nanosecond");
            assert_eq!(next.enforce(&wanted).expect("it stands").attempts, 0);
            wanted.grants.clear();
            next.enforce(&wanted).expect("the last is revoked");
            assert!(!is_open(peer, to));
            next.remove_all().expect("it is removed");
        }
    });
}

/// Datagrams every millisecond that say when they were sent: what the last one says is no later than the kernel let it
/// in, however slow the machine.
#[test]
fn the_kernel_closes_at_the_moment() {
    spa_tests::in_namespace(|| {
        lay_cable();
        for (server, peer) in [(SERVER_V4, PEER_V4), (SERVER_V6, PEER_V6)] {
            let service = UdpSocket::bind((server, 5353)).expect("the port is free");
            service.set_read_timeout(Some(SOON)).expect("a time-out");
            let from = SystemTime::now();
            let lifetime = Lifetime { from, until: from + Duration::from_millis(1_234) };
            let mut enforcer = enforcer();
            let grants = [(key("alice", peer, "udp/5353"), lifetime)];
            enforcer.enforce(&wanted(protection(&["udp/5353"]), &grants)).expect("it is granted");
            let waited = from.elapsed().expect("time goes on"); // the request may have had to wait for its turn
            let sender = std::thread::spawn(move || {
                as_peer(move || {
                    let socket = UdpSocket::bind((peer, 0)).expect("a socket");
                    while SystemTime::now() < lifetime.until + Duration::from_millis(300) {
                        let now = SystemTime::now().duration_since(lifetime.from).expect("it goes on");
                        let now = (now.as_micros() as u64).to_be_bytes();
                        let _ = socket.send_to(&now, (server, 5353)); // what is lost does not come
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            });
            let mut last = None;
            let mut sent = [0; 8];
            while service.recv(&mut sent).is_ok() {
                last = Some(lifetime.from + Duration::from_micros(u64::from_be_bytes(sent)));
            }
            sender.join().expect("the sender ends");
            let last = last.expect("it was open");
            let late = last.duration_since(lifetime.until).unwrap_or_default();
            let early = lifetime.until.duration_since(last).unwrap_or_default();
            println!("{peer}: the last datagram came {late:?} after the end, {early:?} before it");
            assert!(late < waited + Duration::from_millis(50), "the kernel's part");
            assert!(early < Duration::from_millis(600), "the sender may have to wait for its turn");
            enforcer.remove_all().expect("it is removed");
        }
    });
}

#[test]
fn counters_live_through_renewal_and_rewriting() {
    spa_tests::in_namespace(|| {
        lay_cable();
        let server = echo("[::]:22");
        let alice = key("alice", PEER_V4, SSH);
        let mut wanted = wanted(protection(&[SSH]), &[(alice.clone(), lasting(60))]);
        let mut enforcer = enforcer();
        enforcer.enforce(&wanted).expect("it is laid");
        assert!(is_open(
            PEER_V4,
            (SERVER_V4.parse::<std::net::IpAddr>().expect("one"), server.port()).into()
        ));
        let packets = enforcer.grants().expect("they are read")[0].counters.packets;
        assert!(packets > 0);
        wanted.grants.insert(alice.clone(), lasting(120));
        enforcer.enforce_grants(&wanted, &[alice]).expect("it is renewed");
        wanted.protection = Some(protection(&[SSH, "tcp/80"]));
        let report = enforcer.enforce(&wanted).expect("the chain is written anew");
        assert!(matches!(report.plan.v4.chain, ChainPlan::Fill(_)) && report.plan.v4.elements.is_empty());
        assert_eq!(enforcer.grants().expect("they are read")[0].counters.packets, packets);
    });
}

#[test]
fn nothing_is_left_and_foreign_tables_stay() {
    spa_tests::in_namespace(|| {
        nft("add table inet filter");
        nft("add chain inet filter input '{ type filter hook input priority 0; policy drop; }'");
        nft("add set inet filter spa '{ type ipv4_addr; flags timeout; }'");
        nft("add table ip spa && nft add chain ip spa input");
        let before = nft("list ruleset");
        let grants = [(key("alice", "198.51.100.7", SSH), lasting(600))];
        for mut enforcer in [enforcer(), shared()] {
            let mut wanted = wanted(protection(&[SSH]), &grants);
            enforcer.enforce(&wanted).expect("it is laid");
            wanted.grants.clear();
            enforcer.enforce(&wanted).expect("the grant goes");
            assert!(nft("list ruleset").starts_with(&before));
            enforcer.remove_all().expect("it is removed");
            assert_eq!(nft("list ruleset"), before);
            assert_eq!(enforcer.remove_all().expect("it is gone").attempts, 0);
        }
    });
}

#[test]
fn an_owned_table_is_ours_alone_until_we_end() {
    spa_tests::in_namespace(|| {
        if !Nftables::open().expect("it opens").owns_its_table() {
            let why = "this kernel has no table flags owner and persist";
            return spa_tests::skip("an_owned_table_is_ours_alone_until_we_end", why);
        }
        let wanted = wanted(protection(&[SSH]), &[(key("alice", "198.51.100.7", SSH), lasting(600))]);
        let mut first = enforcer();
        first.enforce(&wanted).expect("it is laid");
        nft("flush ruleset");
        let meddle =
            "! nft add rule inet spa ipv4 accept 2>/dev/null && ! nft delete table inet spa 2>/dev/null";
        spa_tests::sh(meddle);
        assert!(matches!(Nftables::open(), Err(Error::Owned { .. })), "a second daemon is told");
        first.forget();
        assert_eq!(first.enforce(&wanted).expect("it stands").attempts, 0);
        drop(first);

        let mut next = enforcer();
        assert_eq!(next.enforce(&wanted).expect("it stands").attempts, 0);
        nft("flush ruleset");
        spa_tests::sh(meddle);
        next.forget();
        assert_eq!(next.enforce(&wanted).expect("it is ours again without a change").attempts, 0);
    });
}

/// Where others can change the table: whatever they do is put right.
#[test]
fn meddling_is_put_right() {
    spa_tests::in_namespace(|| {
        let grants = [
            (key("alice", "198.51.100.7", SSH), lasting(600)),
            (key("bob", "198.51.100.7", SSH), lasting(900)),
            (key("carol", "2001:db8::7", SSH), lasting(900)),
        ];
        let wanted = wanted(protection(&[SSH]), &grants);
        let mut enforcer = shared();
        enforcer.enforce(&wanted).expect("it is laid");
        let listed = || {
            let text = Kind::Nftables.saved();
            let mut words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            words.sort(); // the elements of a set have no order
            words
        };
        let stood = listed();
        for meddling in [
            "flush chain inet spa ipv4",
            "insert rule inet spa ipv6 accept",
            "add rule inet spa ipv4 tcp dport 22 accept comment '\"spa drop tcp/22\"'",
            "flush chain inet spa input",
            "insert rule inet spa input accept",
            "delete table inet spa",
            "flush ruleset",
            "add table inet spa '{ flags dormant; }'",
            "flush set inet spa openings4",
            "flush set inet spa owners6",
            "delete element inet spa openings4 '{ 198.51.100.7 . tcp . 22 }'",
            "add element inet spa openings4 '{ 198.51.100.9 . tcp . 22 }'",
            "add element inet spa openings6 '{ 2001:db8::9 . tcp . 22 timeout 9m }'",
            "add element inet spa openings4 '{ 198.51.100.9 . icmp . 22 }'",
            "add element inet spa owners4 '{ 198.51.100.9 . tcp . 22 . ::1 . :: }'",
            "delete table inet spa && nft add table inet spa && nft add chain inet spa input",
            "delete table inet spa && nft add table inet spa && nft add set inet spa openings4 '{ type ipv4_addr; }'",
        ] {
            nft(meddling);
            enforcer.forget();
            let report = enforcer.enforce(&wanted).unwrap_or_else(|error| panic!("{meddling}: {error}"));
            assert_eq!(report.attempts, 1, "{meddling}: {report:?}");
            assert_eq!(listed(), stood, "{meddling}");
        }
        // What we believe is stale: the transaction is refused, and made again from what stands.
        nft("delete table inet spa");
        let mut more = wanted.clone();
        let dave = key("dave", "198.51.100.8", SSH);
        more.grants.insert(dave.clone(), lasting(600));
        let report = enforcer.enforce_grants(&more, &[dave]).expect("it is put right");
        assert_eq!(report.attempts, 2, "{report:?}");
        assert_eq!(clients(&mut enforcer).len(), 4);
    });
}

#[test]
fn times_beyond_2038() {
    spa_tests::in_namespace(|| {
        let lifetime = lasting(30 * 365 * 86_400);
        let wanted = wanted(protection(&[SSH]), &[(key("alice", "198.51.100.7", SSH), lifetime)]);
        let mut enforcer = enforcer();
        assert_eq!(enforcer.enforce(&wanted).expect("sets take any time").attempts, 1);
        assert_eq!(enforcer.grants().expect("they are read")[0].lifetime, lifetime);
    });
}

#[test]
fn what_has_ended_is_not_written() {
    spa_tests::in_namespace(|| {
        let now = SystemTime::now();
        let ended = Lifetime { from: now - Duration::from_secs(60), until: now - Duration::from_secs(30) };
        let mut wanted = wanted(protection(&[SSH]), &[(key("alice", "198.51.100.7", SSH), ended)]);
        let mut enforcer = enforcer();
        enforcer.enforce(&wanted).expect("it is laid");
        let alice = key("alice", "198.51.100.7", SSH);
        assert!(clients(&mut enforcer).is_empty());
        for left in 0..40 {
            let until = SystemTime::now() + Duration::from_micros(left * 100);
            wanted.grants.insert(alice.clone(), Lifetime { from: now, until });
            enforcer.enforce_grants(&wanted, std::slice::from_ref(&alice)).expect("it ends meanwhile or not");
        }
        eventually("nothing is open", || clients(&mut enforcer).is_empty());
    });
}

/// An administrator saves the whole ruleset and has it loaded at boot: ours must not break that.
#[test]
fn the_listing_loads_again() {
    spa_tests::in_namespace(|| {
        let mut protection = protection(&[SSH, "udp/51820"]);
        protection.except = ["wg0", "192.0.2.0/24", "2001:db8::/32", "192.0.2.9"]
            .map(|text| text.parse().expect("one"))
            .to_vec();
        protection.provisional_until = Some(lasting(600).until);
        let grants = [
            (key("alice", "198.51.100.7", SSH), lasting(600)),
            (key(&"x".repeat(32), "198.51.100.7", SSH), lasting(600)),
            (key("bob", "2001:db8:1::7", "udp/51820"), lasting(600)),
        ];
        let wanted = wanted(protection, &grants);
        let mut enforcer = shared();
        enforcer.enforce(&wanted).expect("it is laid");
        nft("list ruleset >/run/saved && nft flush ruleset && nft -f /run/saved");
        enforcer.forget();
        let loaded = enforcer.enforce(&wanted).expect("it is as we make it or made anew");
        assert!(loaded.attempts <= 1);
        assert_eq!(clients(&mut enforcer).len(), 3);
    });
}

/// A few thousand changes at random, in memory and in the kernel.
#[test]
fn memory_and_kernel_agree() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    type Change = (usize, usize, Option<u64>);
    fn run(changes: &[(Change, usize)]) -> Result<(), TestCaseError> {
        let mut model = Memory::with_sets();
        let mut real = Nftables::open().expect("it opens");
        let services = [&[SSH][..], &[SSH, "tcp/80"], &[]];
        let mut wanted = wanted(protection(&[SSH]), &[]);
        let keys: Vec<_> = ["alice", "bob", "carol"]
            .iter()
            .flat_map(|name| {
                ["198.51.100.7", "198.51.100.8", "2001:db8::7"].map(|source| key(name, source, SSH))
            })
            .collect();
        let now = SystemTime::now();
        for ((number, length, seconds), which) in changes {
            let chosen = &keys[number % keys.len()..(number % keys.len() + length).min(keys.len())];
            for key in chosen {
                match seconds {
                    Some(seconds) => {
                        let until = now + Duration::from_secs(*seconds);
                        wanted.grants.insert(key.clone(), Lifetime { from: now, until });
                    }
                    None => drop(wanted.grants.remove(key)),
                }
            }
            wanted.protection = Some(protection(services[*which]));
            for driver in [&mut model as &mut dyn Firewall, &mut real] {
                let stands = driver.read().expect("it is read");
                driver.apply(&spa_firewall::reconcile(&wanted, &stands, now)).expect("it is written");
            }
            let stands = real.read().expect("it is read");
            prop_assert_eq!(&stands, &model.kernel);
            prop_assert!(spa_firewall::reconcile(&wanted, &stands, now).is_empty());
        }
        for driver in [&mut model as &mut dyn Firewall, &mut real] {
            let stands = driver.read().expect("it is read");
            let nothing = Wanted::default();
            driver.apply(&spa_firewall::reconcile(&nothing, &stands, now)).expect("it is removed");
        }
        prop_assert_eq!(&real.read().expect("it is read"), &model.kernel);
        Ok(())
    }

    spa_tests::in_namespace(|| {
        let change = (0..9_usize, 1..4_usize, proptest::option::weighted(0.7, 100..900_u64));
        let changes = proptest::collection::vec((change, 0..3_usize), 1..12);
        let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
        TestRunner::new(config).run(&changes, |changes| run(&changes)).expect("they agree");
    });
}

/// The cost of one grant does not grow with the others.
#[test]
fn time_of_one_grant_among_many() {
    spa_tests::in_namespace(|| {
        let mut first = None;
        for others in [0_u32, 1_000, 10_000, 50_000] {
            let grants: Vec<(GrantKey, _)> = (0..others)
                .map(|n| {
                    (key("bob", &std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string(), SSH), lasting(900))
                })
                .collect();
            let mut wanted = wanted(protection(&[SSH]), &grants);
            let mut enforcer = enforcer();
            let begun = Instant::now();
            enforcer.enforce(&wanted).expect("the others are laid");
            let laid = begun.elapsed();
            let mut times = [const { Vec::new() }; 3];
            let alice = key("alice", "198.51.100.7", SSH);
            for round in 0..101 {
                for (slot, lifetime) in
                    [Some(lasting(60 + round)), Some(lasting(120 + round)), None].into_iter().enumerate()
                {
                    match lifetime {
                        Some(lifetime) => wanted.grants.insert(alice.clone(), lifetime),
                        None => wanted.grants.remove(&alice),
                    };
                    let begun = Instant::now();
                    let report =
                        enforcer.enforce_grants(&wanted, std::slice::from_ref(&alice)).expect("written");
                    times[slot].push(begun.elapsed());
                    assert_eq!(report.attempts, 1);
                }
            }
            let [grant, renew, remove] = times.map(|mut all| {
                all.sort();
                all[all.len() / 2]
            });
            let begun = Instant::now();
            enforcer.forget();
            assert_eq!(enforcer.enforce(&wanted).expect("all stands").attempts, 0);
            println!(
                "nftables among {others} others, median, read back: grant {grant:.1?}, renewal {renew:.1?}, removal \
                 {remove:.1?}; all of them laid in {laid:.1?}, read and compared in {:.1?}",
                begun.elapsed()
            );
            let first = *first.get_or_insert(grant);
            assert!(grant < first * 3, "{grant:?} among {others}, {first:?} alone");
            enforcer.remove_all().expect("it is removed");
        }
    });
}

/// The kernel announces each change with the netlink port that it came through: by it the driver's own are known, in
/// every process-id namespace.
#[test]
fn announced_changes_of_the_driver_are_known_as_its_own() {
    use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
    use spa_firewall::{Notice, Whose};

    const NFTABLES_GROUP: u32 = 1 << 6;
    const NEW_GENERATION: u16 = 10 << 8 | 15;
    spa_tests::in_namespace(|| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let notices = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))
            .expect("a netlink socket");
        bind(&notices, &SocketAddrNetlink::new(0, NFTABLES_GROUP)).expect("the group");
        let ports = || {
            let mut ports = Vec::new();
            let mut buffer = [0; 1 << 16];
            while let Ok((length, _)) = recv(&notices, &mut buffer[..], RecvFlags::empty()) {
                let mut rest = &buffer[..length];
                while rest.len() >= 16 {
                    let number = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("four"));
                    if u16::from_ne_bytes([rest[4], rest[5]]) == NEW_GENERATION {
                        ports.push(number(12));
                    }
                    rest = &rest[(number(0) as usize).next_multiple_of(4).min(rest.len())..];
                }
            }
            ports
        };
        let mut enforcer = enforcer();
        let authors = enforcer.authors();
        let whose = |port| authors.whose(Notice { port: Some(port), id: None, name: None });
        let mut wanted = wanted(protection(&[SSH]), &[]);
        enforcer.enforce(&wanted).expect("it is laid");
        wanted.grants.insert(key("alice", PEER_V4, SSH), lasting(60));
        enforcer.enforce(&wanted).expect("it is granted");
        let own = ports();
        assert!(own.len() >= 2 && own.iter().all(|port| whose(*port) == Whose::Ours), "{own:?}");
        nft("add table inet other");
        let others = ports();
        assert!(!others.is_empty() && others.iter().all(|port| whose(*port) == Whose::Others), "{others:?}");
    });
}
