//! A sieve on another thread and the verifier behind it say of every packet what the verifier alone says.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::forge::{self, forge};
use common::random::Random;
use common::*;
use spa_gate::{Candidate, Counters, Reason, Refusal, Sieve, Verifier};
use spa_proto::{CloakKey, PublicKey, Tag};

fn old_cloak() -> CloakKey {
    CloakKey::from_bytes([9; 32])
}

/// What can be compared of a verdict.
type Verdict = Result<(PublicKey, [u8; 4], Tag, u32, [u8; 32], Vec<u8>), Refusal>;

fn verdict(result: Result<Candidate, Refusal>) -> Verdict {
    result.map(|candidate| {
        let ciphertext = candidate.ciphertext.as_slice().to_vec();
        let es = *candidate.es.expose();
        (candidate.client, candidate.cloak, candidate.tag, candidate.time, es, ciphertext)
    })
}

/// As the verifier's threads do it.
fn in_two_halves(
    sieve: &Sieve,
    counters: &mut Counters,
    verifier: &mut Verifier,
    packet: (spa_gate::Now, std::net::SocketAddr, &[u8]),
) -> Result<Candidate, Refusal> {
    let (now, source, payload) = packet;
    match sieve.sift(payload) {
        Ok(tagged) => verifier.verify_tagged(now, source, &tagged),
        Err(refusal) => {
            counters.count::<()>(&Err(refusal));
            Err(refusal)
        }
    }
}

/// A packet of any kind: right, copied, stale, damaged, forged with some of the keys, or junk.
fn packet(random: &mut Random, clients: &mut [Client; 3], before: &[Vec<u8>], time: u64) -> Vec<u8> {
    let client = &mut clients[random.below(3) as usize];
    let gate = client.gate();
    let right = client.ssh(time + random.below(1_000));
    let any = |random: &mut Random| random.below(right.len() as u64) as usize;
    match random.below(9) {
        0 | 1 => right,
        2 if !before.is_empty() => before[random.below(before.len() as u64) as usize].clone(),
        3 => client.ssh(time - random.below(200) * SECOND),
        4 => {
            let mut flipped = right.clone();
            flipped[any(random)] ^= 1 << random.below(8);
            flipped
        }
        5 => right[..any(random)].to_vec(),
        6 => forge(&right, None, |packet| packet[forge::CIPHERTEXT] ^= 1),
        7 => forge(&right, Some(&gate), |packet| packet[forge::EPHEMERAL].fill(0)),
        _ => (0..random.below(600)).map(|_| random.next() as u8).collect(),
    }
}

#[test]
fn two_halves_are_one_whole() {
    let mut seen = Counters::default();
    for seed in 0..12 {
        let random = &mut Random(seed);
        // The third is unknown to the server.
        let mut clients = [Client::new(1), Client::under(2, &old_cloak()), Client::new(3)];
        let settings = |clients: &[Client; 3], more: Option<CloakKey>| {
            let mut settings = verifier_settings(&[&clients[0], &clients[1]]);
            settings.cloaks.extend(more);
            settings
        };
        let verifier = |clients| Verifier::new(settings(clients, Some(old_cloak())));
        let (mut whole, mut halves) = (verifier(&clients), verifier(&clients));
        let (mut sieve, mut counters) = (halves.sieve().clone(), Counters::default());
        let mut before: Vec<Vec<u8>> = Vec::new();
        let mut seconds = 0.0;
        for step in 0..300 {
            seconds += random.below(10) as f64 / 1_000.0;
            let now = now_at(seconds);
            if step == 150 {
                whole.reconfigure(settings(&clients, None));
                halves.reconfigure(settings(&clients, None));
                sieve = halves.sieve().clone();
            }
            let packet = packet(random, &mut clients, &before, now.wall);
            let source = from(["192.0.2.7", "192.0.2.8", "2001:db8::9"][random.below(3) as usize]);
            let one = verdict(whole.verify(now, source, &packet));
            let two = verdict(in_two_halves(&sieve, &mut counters, &mut halves, (now, source, &packet)));
            assert_eq!(one, two, "seed {seed}, step {step}");
            if let (Ok((_, _, tag, ..)), true) = (&one, random.below(2) == 0) {
                whole.settle(tag, spa_gate::Outcome::Spent);
                halves.settle(tag, spa_gate::Outcome::Spent);
            }
            seen.count(&one);
            before.push(packet);
        }
        assert_eq!(whole.diffie_hellmans(), halves.diffie_hellmans());
        assert_eq!(whole.counters().passed(), halves.counters().passed());
        for reason in Reason::ALL {
            let sum = counters.refused(reason) + halves.counters().refused(reason);
            assert_eq!(whole.counters().refused(reason), sum, "{reason}: each is counted once");
            assert!(counters.refused(reason) == 0 || matches!(reason, Reason::Length | Reason::Tag));
        }
    }
    use Reason::{BudgetClient, Gate, Length, LowOrder, Name, Replay, Stale, Tag};
    for reason in [Length, Tag, Stale, Replay, Name, Gate, BudgetClient, LowOrder] {
        assert!(seen.refused(reason) > 20, "{reason} was met only {} times", seen.refused(reason));
    }
    assert!(seen.passed() > 100);
}

/// It was on its way from a sieve when the key was retired.
#[test]
fn a_retired_key_lets_nothing_through_any_more() {
    let mut alice = Client::under(1, &old_cloak());
    let mut settings = verifier_settings(&[&alice]);
    settings.cloaks.push(old_cloak());
    let mut verifier = Verifier::new(settings);
    let sieve = verifier.sieve().clone();
    let [first, second] = [START, START + 1].map(|counter| sieve.sift(&alice.ssh(counter)).unwrap());
    let (now, here) = (now_at(0.0), from("192.0.2.7"));
    assert!(verifier.verify_tagged(now, here, &first).is_ok());
    verifier.reconfigure(verifier_settings(&[&alice]));
    let refusal = verifier.verify_tagged(now, here, &second).unwrap_err();
    assert_eq!((refusal.reason(), verifier.counters().refused(Reason::Tag)), (Reason::Tag, 1));
}
