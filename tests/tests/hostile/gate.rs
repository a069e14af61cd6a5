//! Who holds some of the keys gets no further than those keys.

use crate::forge::{self, Forger};
use spa_proto::Address;
use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::{Family, Settings, Variant, in_namespace};

fn scene() -> Scene {
    Scene::new(&Settings { open_for: "20s", ..Settings::new(Variant::Nft) }, Family::V4)
}

/// Refused by a look-up, before any Diffie-Hellman; counted; and in nobody's way.
#[test]
fn a_cloak_key_alone_gets_no_further_than_the_name() {
    in_namespace(|| {
        const FORGED: u64 = 2_000;
        let scene = scene();
        let forger = Forger::cloak_alone(&scene.invite);
        let socket = scene.socket(&scene.topology.stranger);
        for _ in 0..FORGED {
            socket.send(&forger.knock("ssh", Address::Observed)).expect("sent");
        }
        eventually("every one is refused by name", PATIENCE, || scene.server.refused("name") == FORGED);
        assert_eq!(scene.server.diffie_hellmans(), 0, "none was paid for");
        assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
        scene.alice.open("ssh");
        scene.wait_open(&scene.topology.client, 22);
        assert!(scene.server.log().lines().count() < 50, "no line a packet:\n{}", scene.server.log());
    });
}

/// Taken from the air and sent on from everywhere, a packet costs one Diffie-Hellman, and opens for one source at most.
#[test]
fn a_packet_from_many_sources_costs_one_diffie_hellman() {
    in_namespace(|| {
        const SOURCES: u8 = 100;
        let scene = scene();
        let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
        let sources = (0..SOURCES).map(|number| std::net::IpAddr::from([192, 0, 2, 100 + number]));
        let sockets: Vec<_> = sources
            .map(|source| {
                stranger.add_address(source);
                let socket =
                    stranger.ns.enter(|| std::net::UdpSocket::bind((source, 0)).expect("just added"));
                socket.connect((scene.address, spa_tests::SPA_PORT)).expect("a route");
                socket
            })
            .collect();
        let forger = Forger::client(&scene.invite);
        let bound = Address::Bound(client.address(Family::V4));
        for (nth, address) in [bound, Address::Observed].into_iter().enumerate() {
            let packet = forger.knock("ssh", address);
            let judged = || scene.server.refused_in_all() + scene.server.grants().len() as u64;
            let before = judged();
            for socket in &sockets {
                socket.send(&packet).expect("sent");
            }
            let sent = u64::from(SOURCES);
            eventually(format_args!("all copies of {address:?} are judged"), PATIENCE, || {
                judged() == before + sent
            });
            let paid = scene.server.diffie_hellmans();
            assert_eq!(paid, nth as u64 + 1, "{address:?}: {}", scene.server.status());
            // The honest sender of the bound packet comes last of all, and still gets in.
            if address == bound {
                assert!(scene.server.grants().is_empty());
                scene.send(client, &packet);
                scene.wait_open(client, 22);
                assert_eq!(scene.server.diffie_hellmans(), paid, "with the result of the first copy");
                scene.server.must(&["revoke", "--all"]);
            }
        }
        assert_eq!(scene.server.grants().len(), 1, "observed: the first to come");
    });
}

/// A client's close that somebody held back ends nothing that was asked for after it.
#[test]
fn a_close_held_back_ends_no_newer_grant() {
    in_namespace(|| {
        let scene = scene();
        let client = &scene.topology.client;
        let alice = Forger::client(&scene.invite);
        let (first, held, second) = (forge::now(), forge::now(), forge::now());
        scene.send(client, &alice.knock_at("ssh", Address::Observed, first));
        scene.wait_open(client, 22);
        scene.send(client, &alice.knock_at("web", Address::Observed, second));
        scene.wait_open(client, 80);
        let close = alice.close_at(held);
        scene.send(client, &close);
        eventually("what was older than it is closed", PATIENCE, || scene.look(client, 22) == Probe::Silent);
        assert_eq!(scene.look(client, 80), Probe::Open, "what was asked for later is not");
        // The same service, asked for again after the close was made.
        let (held, again) = (forge::now(), forge::now());
        scene.send(client, &alice.knock_at("web", Address::Observed, again));
        eventually("it is renewed", PATIENCE, || scene.server.status()["granted"] == 4);
        let granted = scene.server.status()["granted"].as_u64().expect("a count");
        scene.send(client, &alice.close_at(held));
        eventually("the close is judged", PATIENCE, || {
            let status = scene.server.status();
            status["granted"].as_u64() > Some(granted) || scene.server.refused("counter") > 0
        });
        assert_eq!(scene.look(client, 80), Probe::Open);
    });
}

/// A client whose clock is far ahead, let in under a long max-age, locks nobody out when that is made shorter.
#[test]
fn a_shorter_max_age_blames_no_clock() {
    in_namespace(|| {
        let settings = |max_age| Settings { max_age, open_for: "20s", ..Settings::new(Variant::Nft) };
        let mut scene = Scene::new(&settings("10m"), Family::V4);
        let client = scene.topology.client.clone();
        let bob = Forger::client(&scene.server.enrol("bob", "web", &scene.address.to_string(), &[]));
        scene.server.must(&["reload"]);
        scene.send(&client, &bob.knock_at("web", Address::Observed, forge::now() + 590_000_000_000));
        scene.wait_open(&client, 80);
        scene.server.configure(&settings("5s"));
        scene.server.must(&["reload"]);
        for after in ["a reload", "a restart", "another restart"] {
            scene.alice.open("ssh");
            eventually(format_args!("alice is let in after {after}"), PATIENCE, || {
                scene.look(&client, 22) == Probe::Open
            });
            assert_eq!(scene.server.refused("clock"), 0, "after {after}");
            scene.server.must(&["revoke", "--all"]);
            scene.server.process().stop();
            scene.server.start();
        }
    });
}

/// A client that floods spends its own budget, and not the others'.
#[test]
fn a_client_spends_its_own_budget_alone() {
    in_namespace(|| {
        let mut scene = scene();
        let invite = scene.server.enrol("mallory", "web", &scene.address.to_string(), &[]);
        scene.server.must(&["reload"]);
        let mallory = Forger::client(&invite);
        let socket = scene.socket(&scene.topology.stranger);
        for _ in 0..200 {
            socket.send(&mallory.knock("web", Address::Observed)).expect("sent");
        }
        eventually("its bucket is empty", PATIENCE, || scene.server.refused("budget-client") > 0);
        scene.alice.open("ssh");
        scene.wait_open(&scene.topology.client, 22);
        assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
        scene.server.process().stop();
    });
}

/// Taken from the air and sent on from elsewhere, a bound packet opens nothing, and still works for whom it is for.
#[test]
fn a_redirected_bound_packet_opens_nothing_and_harms_nobody() {
    in_namespace(|| {
        let scene = scene();
        let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
        let packet = Forger::client(&scene.invite).knock("ssh", Address::Bound(client.address(Family::V4)));
        scene.send(stranger, &packet);
        eventually("the copy is refused", PATIENCE, || scene.server.refused("bound-source") == 1);
        assert_eq!(scene.looks(&[(stranger, 22), (client, 22)]), [Probe::Silent; 2]);
        scene.send(client, &packet);
        scene.wait_open(client, 22);
        assert_eq!(scene.look(stranger, 22), Probe::Silent);
    });
}

/// From another time: refused, and the log says by how much the clocks differ, once.
#[test]
fn a_wrong_clock_is_told_with_its_skew() {
    in_namespace(|| {
        let scene = scene();
        let alice = Forger::client(&scene.invite);
        let hour = 3_600 * spa_proto::NANOS_PER_SECOND;
        let socket = scene.socket(&scene.topology.client);
        for counter in [forge::now() - hour, forge::now() + hour, forge::now() + hour] {
            socket.send(&alice.knock_at("ssh", Address::Observed, counter)).expect("sent");
        }
        eventually("all are refused", PATIENCE, || scene.server.refused("stale") == 3);
        assert_eq!(scene.look(&scene.topology.client, 22), Probe::Silent);
        let log = scene.server.log();
        assert_eq!(log.lines().filter(|line| line.contains("skew")).count(), 1, "{log}");
        // The future-dated ones raised no floor.
        scene.alice.open("ssh");
        scene.wait_open(&scene.topology.client, 22);
    });
}

/// What the policy does not allow is refused whole, with the parts that it does allow.
#[test]
fn policy_is_all_or_nothing() {
    in_namespace(|| {
        let mut scene = scene();
        let invite = scene.server.enrol("bob", "web", &scene.address.to_string(), &[]);
        scene.server.must(&["reload"]);
        let bob = spa_tests::Client::invited(&scene.topology.client, "bob", &invite);
        bob.call(&["open", "tcp/22", "tcp/80"]);
        eventually("it is refused", PATIENCE, || scene.server.refused("not-allowed") == 1);
        assert_eq!(
            scene.looks(&[(&scene.topology.client, 22), (&scene.topology.client, 80)]),
            [Probe::Silent; 2]
        );
        bob.must(&["open", "tcp/80"]);
        scene.wait_open(&scene.topology.client, 80);
        scene.server.process().stop();
    });
}
