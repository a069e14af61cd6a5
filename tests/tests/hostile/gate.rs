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
        assert_eq!(scene.server.refused("budget-global"), 0, "none was paid for");
        assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
        scene.alice.open("ssh");
        scene.wait_open(&scene.topology.client, 22);
        assert!(scene.server.log().lines().count() < 50, "no line a packet:\n{}", scene.server.log());
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
