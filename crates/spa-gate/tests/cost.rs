//! What an attack costs, counted in Diffie-Hellman operations, the only expense; nothing is timed.
#![allow(missing_docs)]

mod common;

use common::forge::{self, forge};
use common::random::Random;
use common::*;
use spa_gate::{CLIENT_BURST, CLIENT_RATE, Counters, MEMO_ENTRIES, MEMO_SOURCES, Reason};

const HERE: &str = "192.0.2.7";

fn only(counters: &Counters, expected: &[Reason]) -> bool {
    counters.iter().all(|(reason, count)| (count > 0) == expected.contains(&reason))
}

#[test]
fn junk_costs_none() {
    let mut server = Server::new(&[&Client::new(1)]);
    let mut random = Random(1);
    for _ in 0..5_000 {
        let junk: [u8; 256] = random.bytes();
        assert_eq!(server.refusal(now_at(0.0), from(HERE), &junk), Reason::Tag);
    }
    assert_eq!(server.verifier.diffie_hellmans(), 0);
}

#[test]
fn a_holder_of_the_cloak_key_alone_costs_none_and_fills_nothing() {
    let (mut alice, mut outsider) = (Client::new(1), Client::new(2));
    let mut server = Server::new(&[&alice]);
    let captured = alice.ssh(START);
    for n in 0..MEMO_ENTRIES as u64 {
        // Packets of its own, and captured ones changed: new nonces, new ciphertexts.
        if n % 64 == 0 {
            assert_eq!(server.refusal(now_at(0.0), from(HERE), &outsider.ssh(START + n)), Reason::Name);
        }
        let edited = forge(&captured, None, |packet| {
            packet[forge::NONCE..8].copy_from_slice(&n.to_be_bytes());
        });
        assert_eq!(server.refusal(now_at(0.0), from(HERE), &edited), Reason::Gate);
        let edited = forge(&captured, None, |packet| {
            packet[forge::CIPHERTEXT..][..8].copy_from_slice(&n.to_be_bytes());
        });
        assert_eq!(server.refusal(now_at(0.0), from(HERE), &edited), Reason::Gate);
    }
    assert_eq!(server.verifier.diffie_hellmans(), 0);
    assert!(server.deliver(now_at(0.0), from(HERE), &captured).is_ok());
}

#[test]
fn a_replayed_capture_costs_one() {
    let mut alice = Client::new(1);
    let mut server = Server::new(&[&alice]);
    let captured = alice.ssh(START);
    let source = |n: u32| core::net::SocketAddr::from((core::net::Ipv4Addr::from(0xc633_6400 + n), 1));
    // While the warden has not answered, a copy goes on from a few sources, with the same result of the first.
    let passed = (0..1000).filter(|n| server.verifier.verify(now_at(0.0), source(*n), &captured).is_ok());
    assert_eq!(passed.count(), MEMO_SOURCES);
    let mut server = Server::new(&[&alice]);
    assert!(server.deliver(now_at(0.0), source(0), &captured).is_ok());
    for n in 0..3_000 {
        assert_eq!(server.refusal(now_at(0.0), source(n), &captured), Reason::Replay);
    }
    assert_eq!(server.verifier.diffie_hellmans(), 1);
    assert!(only(server.verifier.counters(), &[Reason::Replay]));
}

#[test]
fn more_captures_of_a_client_than_are_remembered_cost_nothing_more() {
    let mut alice = Client::new(1);
    let mut server = Server::new(&[&alice]);
    let seconds = |n: u64| n as f64 / CLIENT_RATE as f64;
    let captured: Vec<_> = (0..100).map(|n| alice.ssh(START + n * SECOND / CLIENT_RATE)).collect();
    for (n, packet) in (0..).zip(&captured) {
        assert!(server.deliver(now_at(seconds(n)), from(HERE), packet).is_ok());
    }
    for _ in 0..10 {
        for packet in &captured {
            assert_eq!(server.refusal(now_at(seconds(100)), from("198.51.100.1"), packet), Reason::Replay);
        }
    }
    assert_eq!(server.verifier.diffie_hellmans(), 100);
    let packet = alice.ssh(START + 100 * SECOND / CLIENT_RATE);
    assert!(server.deliver(now_at(seconds(100)), from(HERE), &packet).is_ok(), "its bucket is its own");
}

#[test]
fn a_client_floods_with_its_own_psk() {
    let (mut mallory, mut bob) = (Client::new(1), Client::new(2));
    let mut server = Server::new(&[&mallory, &bob]);
    let of_bob = bob.ssh(START);
    assert!(server.deliver(now_at(0.0), from(HERE), &of_bob).is_ok());
    let template = mallory.ssh(START);
    for n in 0..5_000_u64 {
        let packet = forge(&template, Some(&mallory.gate()), |packet| {
            packet[forge::CIPHERTEXT..][..8].copy_from_slice(&n.to_be_bytes());
        });
        let now = now_at(n as f64 / 500.0);
        let reason = server.refusal(now, from(HERE), &packet);
        assert!([Reason::NotAuthentic, Reason::BudgetClient, Reason::Replay].contains(&reason), "{reason}");
    }
    let spent = server.verifier.diffie_hellmans() - 1;
    assert!(spent <= CLIENT_BURST + CLIENT_RATE * 10, "{spent}");
    assert!(
        server.deliver(now_at(10.0), from(HERE), &bob.ssh(START + SECOND)).is_ok(),
        "another client's knock"
    );
    assert_eq!(server.refusal(now_at(10.0), from(HERE), &of_bob), Reason::Replay, "nor is the memo his");
}

#[test]
fn two_clients_with_one_hint_both_work() {
    let (mut alice, mut bob) = (Client::new(1), Client::new(2));
    let mut settings = verifier_settings(&[&alice, &bob]);
    let mut mixed = alice.gate().to_bytes();
    mixed[..16].copy_from_slice(&bob.gate().to_bytes()[..16]);
    settings.clients[0].1 = spa_proto::GateKeys::from_bytes(&mixed); // alice's gate key with bob's hint key
    let mut server = Server::new(&[&alice, &bob]);
    server.verifier = spa_gate::Verifier::new(settings);
    assert!(server.deliver(now_at(0.0), from(HERE), &bob.ssh(START)).is_ok());
    let hint = bob.gate().hint(spa_proto::epoch((START / SECOND) as u32));
    let of_alice =
        forge(&alice.ssh(START), Some(&alice.gate()), |packet| packet[32..40].copy_from_slice(&hint));
    // The hint is part of the prologue, so the warden does not know this packet; the verifier took it for alice's.
    let candidate = server.verifier.verify(now_at(0.0), from(HERE), &of_alice).unwrap();
    assert_eq!(candidate.client, alice.key());
}

#[test]
fn each_of_many_clients_is_found() {
    let mut clients: Vec<Client> = (1..=3).map(Client::new).collect();
    let mut settings = verifier_settings(&clients.iter().collect::<Vec<_>>());
    let mut random = Random(7);
    settings.clients.extend((0..3_000).map(|_| {
        // Any canonical number will do for a key that is never used; the top bits make it canonical.
        let mut key: [u8; 32] = random.bytes();
        key[31] &= 0x3f;
        (spa_proto::PublicKey::from_bytes(key).unwrap(), spa_proto::GateKeys::from_bytes(&random.bytes()))
    }));
    let mut verifier = spa_gate::Verifier::new(settings);
    for client in &mut clients {
        for second in [-60, 0, 60] {
            let packet = client.ssh(START.saturating_add_signed(second * SECOND as i64));
            assert_eq!(verifier.verify(now_at(0.0), from(HERE), &packet).unwrap().client, client.key());
        }
    }
}
