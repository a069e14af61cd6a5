//! Malformed datagrams by the ten thousand: no crash, no growth, no rule, no log line each, and knocks go on.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::forge::Forger;
use spa_proto::Address;
use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::{Family, Settings, Variant, for_each_variant_and_family};

for_each_variant_and_family!(junk_does_nothing);

/// Datagrams of each kind.
const ROUNDS: usize = 10_000;
/// What the daemon may grow by under junk: pages of its tables touched for the first time.
const GROWTH_KIB: u64 = 4 * 1024;

fn junk_does_nothing(variant: Variant, family: Family) {
    let mut scene = Scene::new(&Settings { open_for: "20s", ..Settings::new(variant) }, family);
    let rules = scene.server.rules(family);
    let socket = scene.socket(&scene.topology.stranger);
    let valid = Forger::client(&scene.invite).knock("ssh", Address::Observed);
    let began = Instant::now();
    send_junk(&socket, &valid, ROUNDS / 10);
    let before = scene.server.process().resident_kib();
    send_junk(&socket, &valid, ROUNDS);
    settled(&scene);
    let after = scene.server.process().resident_kib();
    println!("{} datagrams in {:?}, {before} to {after} KiB", ROUNDS * 4, began.elapsed());
    assert!(after <= before + GROWTH_KIB, "the daemon grew from {before} to {after} KiB");
    assert!(scene.server.process().is_running());
    assert_eq!(scene.server.rules(family), rules, "no rule came or went");
    let log = scene.server.log();
    assert!(log.lines().count() < 50, "no line a packet: {} lines\n{log}", log.lines().count());
    scene.alice.open("ssh");
    scene.wait_open(&scene.topology.client, 22);
    assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
}

/// Random bytes of every length, and a valid packet cut short, drawn out, and with single bits flipped.
fn send_junk(socket: &UdpSocket, valid: &[u8], rounds: usize) {
    for round in 0..rounds {
        let mut random = vec![0; round % 1_400];
        random.fill_with(rand::random);
        let mut flipped = valid.to_vec();
        flipped[round % valid.len()] ^= 1 << (round % 8);
        let mut longer = valid.to_vec();
        longer.resize((valid.len() + 1 + round % 60).min(1_400), 0);
        for datagram in [&random[..], &flipped, &longer, &valid[..round % valid.len()]] {
            // The receiver may be slower: an overflow loses packets, as on any network.
            socket.send(datagram).expect("no ICMP error, ever");
        }
    }
}

/// Waits until the counters stand still: everything that was queued is judged.
fn settled(scene: &Scene) {
    let mut last = scene.server.refused("tag");
    eventually("the junk is judged", PATIENCE * 3, || {
        std::thread::sleep(Duration::from_millis(300));
        let now = scene.server.refused("tag");
        std::mem::replace(&mut last, now) == now
    });
    assert!(last > ROUNDS as u64 / 2, "only {last} were counted");
}
