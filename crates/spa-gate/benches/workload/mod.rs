//! One step of the gate at a time, on packets that get exactly that far.
//!
//! The server is made of the same parts as in the tests; all but the step itself is done beforehand.
#![allow(dead_code, missing_docs)] // each bench uses a part
#![allow(clippy::unwrap_used)] // as in the tests

#[path = "../../tests/common/mod.rs"]
mod common;

use core::hint::black_box;
use core::time::Duration;

use common::forge::{self, forge};
use common::random::Random;
use common::*;
use spa_gate::{Accepted, Candidate, Judge, Openers, Reason, Verifier, VerifierSettings};
use spa_proto::{CloakKey, GateKeys, Knock, Psk, PublicKey};

/// Packets that one client can send before its bucket is empty (the clock stands still here).
const A_CLIENT: usize = spa_gate::CLIENT_BURST as usize;

/// What is measured. The order is that of the refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Random bytes: refused at the tag.
    Junk,
    /// What passes the tag first in an epoch of 64 s: each client's hint is computed.
    Epoch,
    /// A captured packet again: refused by the memo.
    Replayed,
    /// Made with the cloak key by one who has no client's psk: refused at the hint.
    Stranger,
    /// A client's hint by one who has the cloak key alone: refused at `M`.
    Altered,
    /// A valid packet, tag to one X25519.
    Verify,
    /// AEAD and strict decoding.
    Open,
    /// Replay, policy, the lease.
    Judge,
}

impl Step {
    pub const ALL: [Self; 8] = [
        Self::Junk,
        Self::Epoch,
        Self::Replayed,
        Self::Stranger,
        Self::Altered,
        Self::Verify,
        Self::Open,
        Self::Judge,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Junk => "junk, refused at tag",
            Self::Epoch => "first of an epoch, all hints",
            Self::Replayed => "replayed capture, refused by the memo",
            Self::Stranger => "cloak key alone, refused at name",
            Self::Altered => "cloak key and a seen hint, refused at M",
            // curve25519-dalek finds out at run time, as here.
            Self::Verify if has_avx2() => "valid: tag to X25519, with AVX2",
            Self::Verify => "valid: tag to X25519",
            Self::Open => "valid: AEAD and decoding",
            Self::Judge => "valid: replay, policy, lease",
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

/// Keys of enrolled clients. Those who never knock have a public key that nobody's private key makes: it is as
/// dear to look up, and cheaper to invent.
pub struct Population {
    knocking: Vec<Client>,
    all: Vec<(PublicKey, GateKeys)>,
}

impl Population {
    pub fn new(clients: usize, knocking: usize) -> Self {
        let knocking: Vec<_> = (1..=knocking.min(clients)).map(|n| Client::new(n as u16)).collect();
        let mut all: Vec<_> = knocking.iter().map(|client| (client.key(), client.gate())).collect();
        let mut random = Random(99);
        let server = server_key().public_key();
        all.extend((knocking.len()..clients).map(|_| {
            let key = some_key(&mut random);
            let gate = GateKeys::new(&Psk::from_bytes(random.bytes()), &server, &key);
            (key, gate)
        }));
        Self { knocking, all }
    }

    /// Valid packets, as many as the buckets allow: of each client in turn.
    fn packets(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for n in 0..A_CLIENT as u64 {
            packets.extend(self.knocking.iter_mut().map(|client| client.ssh(START + n)));
        }
        packets
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(VerifierSettings {
            server: server_key(),
            cloaks: vec![cloak_key()],
            max_age: MAX_AGE,
            clients: self.all.clone(),
        })
    }

    fn openers(&self) -> Openers {
        openers(&self.knocking.iter().collect::<Vec<_>>())
    }

    /// With `remembered` further public keys whose newest counter is known.
    fn judge(&self, remembered: usize) -> Judge {
        let policies =
            self.knocking.iter().enumerate().map(|(n, client)| policy(&format!("c{n}"), client, &["ssh"]));
        let mut judge = Judge::new(judge_settings(policies.collect()));
        let mut random = Random(7);
        judge.restore((0..remembered).map(|_| (some_key(&mut random), START - SECOND)));
        judge
    }
}

/// One round: what was prepared for it, each packet once.
pub struct Round {
    step: Step,
    verifier: Verifier,
    openers: Openers,
    judge: Judge,
    packets: Vec<Vec<u8>>,
    candidates: Vec<Candidate>,
    knocks: Vec<Knock>,
}

impl Round {
    pub fn new(step: Step, population: &mut Population, remembered: usize) -> Self {
        let valid = population.packets();
        let mut round = Self {
            step,
            verifier: population.verifier(),
            openers: population.openers(),
            judge: population.judge(remembered),
            packets: Vec::new(),
            candidates: Vec::new(),
            knocks: Vec::new(),
        };
        if matches!(step, Step::Replayed | Step::Open | Step::Judge) {
            for packet in &valid {
                let candidate = round.verifier.verify(now(), from(SOURCE), packet).unwrap();
                let (knock, outcome) = round.openers.open(&candidate);
                round.verifier.settle(&candidate.tag, outcome);
                round.knocks.push(knock.unwrap());
                round.candidates.push(candidate);
            }
        }
        if step != Step::Epoch {
            let _ = round.verifier.verify(now(), from(SOURCE), &strangers(1)[0]); // computes the hints
        }
        round.packets = match step {
            Step::Junk => junk(valid.len()),
            Step::Epoch => strangers(1),
            Step::Stranger => strangers(valid.len()),
            Step::Altered => valid
                .iter()
                .map(|packet| forge(packet, None, |bytes| bytes[forge::CIPHERTEXT] ^= 1))
                .collect(),
            _ => valid,
        };
        round
    }

    /// How many times the step is done by [`Self::run`].
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// The step on each packet, once. What comes of it is checked: a bench of the wrong refusal measures nothing.
    pub fn run(&mut self) {
        match self.step {
            Step::Junk => self.refused(Reason::Tag),
            Step::Replayed => self.refused(Reason::Replay),
            Step::Epoch | Step::Stranger => self.refused(Reason::Name),
            Step::Altered => self.refused(Reason::Gate),
            Step::Verify => {
                for packet in &self.packets {
                    assert!(black_box(self.verifier.verify(now(), from(SOURCE), packet)).is_ok());
                }
            }
            Step::Open => {
                for candidate in &self.candidates {
                    assert!(black_box(self.openers.open(candidate)).0.is_ok());
                }
            }
            Step::Judge => {
                for (candidate, knock) in self.candidates.iter().zip(&self.knocks) {
                    let accepted: Accepted =
                        self.judge.judge(now(), &candidate.client, candidate.source.ip(), knock).unwrap();
                    assert!(black_box(self.judge.grant(now(), accepted)).is_ok());
                }
            }
        }
    }

    fn refused(&mut self, reason: Reason) {
        for packet in &self.packets {
            assert_eq!(
                black_box(self.verifier.verify(now(), from(SOURCE), packet)).unwrap_err().reason(),
                reason
            );
        }
    }
}

/// A public key whose private key nobody knows.
fn some_key(random: &mut Random) -> PublicKey {
    let mut bytes = random.bytes::<32>();
    bytes[31] &= 0x7f; // the canonical encoding
    PublicKey::from_bytes(bytes).unwrap()
}

const SOURCE: &str = "192.0.2.7";

fn now() -> spa_gate::Now {
    spa_gate::Now { wall: START + SECOND, boot: Duration::from_secs(1000) }
}

/// The mean of version 1's lengths.
const JUNK_SIZE: usize = 400;

fn junk(count: usize) -> Vec<Vec<u8>> {
    let mut random = Random(3);
    (0..count).map(|_| random.bytes::<JUNK_SIZE>().to_vec()).collect()
}

fn strangers(count: usize) -> Vec<Vec<u8>> {
    let mut stranger = Client::under(60_000, &CloakKey::from_bytes(*cloak_key().expose()));
    (0..count as u64).map(|n| stranger.ssh(START + n)).collect()
}
