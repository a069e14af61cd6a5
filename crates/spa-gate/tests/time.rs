//! What a refusal costs in time does not grow with what a stranger, or anybody, can make more of: sources, remembered
//! packets, clients. Ratios within one run, of the fastest of several rounds, since a busy machine only slows down.
#![allow(missing_docs)]

mod common;

use core::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use common::random::Random;
use common::*;
use spa_gate::{MEMO_ENTRIES, Reason, Verifier};

/// Rounds of each measurement, and packets in one.
const ROUNDS: usize = 15;
const PACKETS: u32 = 400;
/// A scan of 4,096 entries or of 100,000 sources would be hundreds of times slower; caches and noise are not.
const MOST: u32 = 5;

/// The fastest of several rounds of both, taken in turns.
fn fastest(mut first: impl FnMut(u32), mut second: impl FnMut(u32)) -> (Duration, Duration) {
    let mut times = (Duration::MAX, Duration::MAX);
    for round in 0..ROUNDS as u32 {
        let began = Instant::now();
        (0..PACKETS).for_each(|n| first(round * PACKETS + n));
        times.0 = times.0.min(began.elapsed());
        let began = Instant::now();
        (0..PACKETS).for_each(|n| second(round * PACKETS + n));
        times.1 = times.1.min(began.elapsed());
    }
    times
}

fn no_slower(what: &str, (few, many): (Duration, Duration)) {
    println!("{what}: {:?} a packet with few, {:?} with many", few / PACKETS, many / PACKETS);
    assert!(many <= few * MOST, "{what}: {few:?} with few, {many:?} with many");
}

fn source(n: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + n), 40_000))
}

/// ruroco's limiter looked at every source that it had seen, 3.3 ms a packet at 100,000.
#[test]
fn junk_from_100_000_sources() {
    let alice = Client::new(1);
    let (mut few, mut many) = (Server::new(&[&alice]).verifier, Server::new(&[&alice]).verifier);
    let mut random = Random(1);
    let junk: [u8; 300] = random.bytes();
    for n in 0..100_000 {
        assert_eq!(many.verify(now_at(0.0), source(n), &junk).unwrap_err().reason(), Reason::Tag);
    }
    let times = fastest(
        |_| drop(few.verify(now_at(1.0), source(0), &junk)),
        |n| drop(many.verify(now_at(1.0), source(200_000 + n), &junk)),
    );
    no_slower("junk from one source, and after 100,000", times);
}

/// sparoid went through up to 65,536 nonces for each packet.
#[test]
fn copies_among_all_that_is_remembered() {
    let filled = |count: usize| {
        // 32 packets a client, as fast as its budget allows.
        let mut clients: Vec<Client> = (1..=count.div_ceil(32) as u16).map(Client::new).collect();
        let mut verifier = Verifier::new(verifier_settings(&clients.iter().collect::<Vec<_>>()));
        let mut last = Vec::new();
        for turn in 0..count.min(32) as u64 {
            let now = now_at(turn as f64 / 4.0);
            for client in &mut clients {
                last = client.ssh(now.wall);
                verifier.verify(now, from("192.0.2.7"), &last).unwrap();
            }
        }
        // The same source again is a replay, and stays one.
        assert_eq!(
            verifier.verify(now_at(8.0), from("192.0.2.7"), &last).unwrap_err().reason(),
            Reason::Replay
        );
        (verifier, last)
    };
    let (mut few, one) = filled(1);
    let (mut many, other) = filled(MEMO_ENTRIES);
    let times = fastest(
        |_| drop(few.verify(now_at(9.0), from("192.0.2.7"), &one)),
        |_| drop(many.verify(now_at(9.0), from("192.0.2.7"), &other)),
    );
    no_slower("a copy among 1, and among all of the memo", times);
}

/// A holder of the cloak key whose name is looked up among many clients.
#[test]
fn strangers_with_the_cloak_key_among_many_clients() {
    let mut outsider = Client::new(9_999);
    let alice = Client::new(1);
    let mut few = Verifier::new(verifier_settings(&[&alice]));
    let mut settings = verifier_settings(&[&alice]);
    let mut random = Random(7);
    settings.clients.extend((0..10_000).map(|_| {
        let mut key: [u8; 32] = random.bytes();
        key[31] &= 0x3f; // canonical
        (spa_proto::PublicKey::from_bytes(key).unwrap(), spa_proto::GateKeys::from_bytes(&random.bytes()))
    }));
    let mut many = Verifier::new(settings);
    let packet = outsider.ssh(START);
    for verifier in [&mut few, &mut many] {
        // The tables are made with the first packet.
        assert_eq!(verifier.verify(now_at(0.0), source(0), &packet).unwrap_err().reason(), Reason::Name);
    }
    let times = fastest(
        |n| drop(few.verify(now_at(0.0), source(n), &packet)),
        |n| drop(many.verify(now_at(0.0), source(n), &packet)),
    );
    no_slower("a name among 1 client, and among 10,001", times);
}
