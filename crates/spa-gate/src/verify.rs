//! The verifier half: from a datagram to a candidate, cheapest refusal first.

use core::net::SocketAddr;
use core::time::Duration;

use spa_proto::{CloakKey, Envelope, GateKeys, PublicKey, SecretKey, SharedSecret, Tag};

use crate::budget::{self, Bucket};
use crate::candidate::{Candidate, Ciphertext, Outcome};
use crate::clients::Clients;
use crate::fresh::Window;
use crate::memo::{Memo, Recall};
use crate::reason::{Counters, Reason, Refusal};
use crate::sieve::{Sieve, Tagged};
use crate::time::Now;

/// What the verifier knows.
pub struct VerifierSettings {
    /// The server's private key.
    pub server: SecretKey,
    /// The live cloak keys, newest first; those beyond [`MAX_CLOAKS`](crate::MAX_CLOAKS) are ignored.
    pub cloaks: Vec<CloakKey>,
    /// How far a packet's time may be from ours, either way: taken into 5 s to 10 min, in whole seconds.
    pub max_age: Duration,
    /// The clients; of two for one key the last counts.
    pub clients: Vec<(PublicKey, GateKeys)>,
}

/// The verifier half. Memory is fixed by the number of clients; the cost of a packet does not depend on it.
pub struct Verifier {
    server: SecretKey,
    sieve: Sieve,
    window: Window,
    clients: Clients,
    memo: Memo,
    budget: Bucket,
    counters: Counters,
    diffie_hellmans: u64,
}

impl Verifier {
    /// A verifier that has seen nothing.
    pub fn new(settings: VerifierSettings) -> Self {
        Self {
            sieve: Sieve::new(&settings.server.public_key(), &settings.cloaks),
            window: Window::new(settings.max_age),
            clients: Clients::new(settings.clients),
            server: settings.server,
            memo: Memo::new(),
            budget: Bucket::default(),
            counters: Counters::default(),
            diffie_hellmans: 0,
        }
    }

    /// Takes new settings; the memo, the budgets and the counters of what stays are kept.
    pub fn reconfigure(&mut self, settings: VerifierSettings) {
        let mut old = core::mem::replace(self, Self::new(settings));
        let moved = self.clients.inherit(&old.clients);
        self.memo = core::mem::replace(&mut old.memo, Memo::new()).for_clients(&moved, &mut self.clients);
        self.budget = old.budget;
        self.counters = old.counters;
        self.diffie_hellmans = old.diffie_hellmans;
    }

    /// Judges one datagram's payload. No refusal allocates, but for the hint table of a new epoch.
    ///
    /// # Errors
    /// The refusal, already counted: `length` to `low-order`.
    pub fn verify(&mut self, now: Now, source: SocketAddr, payload: &[u8]) -> Result<Candidate, Refusal> {
        let result = match self.sieve.sift(payload) {
            Ok(tagged) => self.check(now, source, &tagged),
            Err(refusal) => Err(refusal),
        };
        self.counters.count(&result);
        result
    }

    /// The first step of [`Self::verify`] alone, for other threads, which count for themselves what they refuse.
    pub const fn sieve(&self) -> &Sieve {
        &self.sieve
    }

    /// The steps of [`Self::verify`] behind the sieve, for what passed one on another thread.
    ///
    /// # Errors
    /// As [`Self::verify`], also counted: `stale` to `low-order`; and `tag`, where the cloak key has been retired since.
    pub fn verify_tagged(
        &mut self,
        now: Now,
        source: SocketAddr,
        tagged: &Tagged,
    ) -> Result<Candidate, Refusal> {
        let result = match self.sieve.knows(tagged) {
            true => self.check(now, source, tagged),
            false => Err(Reason::Tag.into()),
        };
        self.counters.count(&result);
        result
    }

    /// The warden's word on a candidate that it opened; wanted at once, before policy or the durable record.
    pub fn settle(&mut self, tag: &Tag, outcome: Outcome) {
        self.memo.settle(tag, outcome);
    }

    /// Refusals by reason, and candidates.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Diffie-Hellman operations done so far: the one expense that packets can cause.
    pub const fn diffie_hellmans(&self) -> u64 {
        self.diffie_hellmans
    }

    fn check(&mut self, now: Now, source: SocketAddr, tagged: &Tagged) -> Result<Candidate, Refusal> {
        let Tagged { cloak, envelope } = tagged;
        self.window.check_time(now, envelope.time())?;
        let (client, es) = match self.memo.recall(&envelope.tag(), source.ip().to_canonical()) {
            Recall::New => self.check_new(now, source, envelope)?,
            Recall::Replay => return Err(Reason::Replay.into()),
            Recall::Copy(entry) => {
                if !self.clients.get_mut(entry.client).gate.admits(envelope) {
                    return Err(Reason::Gate.into());
                }
                let es = self.memo.pass(entry, source.ip().to_canonical()).ok_or(Reason::Replay)?;
                (entry.client, es)
            }
        };
        let key = self.clients.get_mut(client).key;
        candidate(key, *cloak, envelope, es, source).ok_or(Reason::Length.into())
    }

    /// *name* and *pay*, for a packet that the memo does not know.
    fn check_new(
        &mut self,
        now: Now,
        source: SocketAddr,
        envelope: &Envelope,
    ) -> Result<(u32, SharedSecret), Refusal> {
        let (tag, time) = (envelope.tag(), envelope.time());
        let index = self.clients.find(now, self.window, envelope)?;
        let client = self.clients.get_mut(index);
        if client.remembered.may_have_forgotten(time) {
            return Err(Reason::Replay.into());
        }
        if !client.bucket.has_token(budget::CLIENT, now.boot) {
            return Err(Reason::BudgetClient.into());
        }
        if !self.budget.has_token(budget::GLOBAL, now.boot) {
            return Err(Reason::BudgetGlobal.into());
        }
        client.bucket.take(budget::CLIENT, now.boot);
        self.budget.take(budget::GLOBAL, now.boot);
        self.diffie_hellmans += 1;
        let Some(es) = self.server.diffie_hellman(&envelope.ephemeral()) else {
            self.memo.remember_spent(&mut self.clients, index, tag, time);
            return Err(Reason::LowOrder.into());
        };
        let from = source.ip().to_canonical();
        self.memo.remember_pending(&mut self.clients, index, tag, time, es.clone(), from);
        Ok((index, es))
    }
}

/// `None` where the ciphertext does not fit, which the length check rules out.
fn candidate(
    client: PublicKey,
    cloak: [u8; 4],
    envelope: &Envelope,
    es: SharedSecret,
    source: SocketAddr,
) -> Option<Candidate> {
    Some(Candidate {
        client,
        cloak,
        tag: envelope.tag(),
        nonce: envelope.nonce(),
        time: envelope.time(),
        hint: envelope.hint(),
        ephemeral: envelope.ephemeral(),
        es,
        ciphertext: Ciphertext::new(envelope.ciphertext())?,
        source,
    })
}

#[cfg(test)]
mod tests {
    use spa_proto::{Action, Address, Cloak, Knock, Psk, Randomness, Requests, Sealer};

    use super::*;

    /// A candidate is under way while the warden takes a newer key: it must still name the one that it came under.
    #[test]
    fn a_cloak_key_is_named_wherever_it_stands() {
        let server = SecretKey::from_bytes([1; 32]);
        let (old, new) = (CloakKey::from_bytes([2; 32]), CloakKey::from_bytes([9; 32]));
        let (secret, psk) = (SecretKey::from_bytes([3; 32]), Psk::from_bytes([4; 32]));
        let (public, client) = (server.public_key(), secret.public_key());
        let sealer = Sealer::new(&secret, &psk, &old, &public).unwrap();
        for (second, cloaks) in [vec![old.clone()], vec![new, old.clone()]].into_iter().enumerate() {
            let counter = 1_790_000_000_000_000_000 + second as u64;
            let knock = Knock {
                action: Action::Close { requests: Requests::default() },
                address: Address::Observed,
                counter,
            };
            let random = Randomness { nonce: [6; 12], ephemeral: [7; 32], size: 8 };
            let mut verifier = Verifier::new(VerifierSettings {
                server: server.clone(),
                cloaks,
                max_age: Duration::from_secs(60),
                clients: vec![(client, GateKeys::new(&psk, &public, &client))],
            });
            let now = Now { wall: counter, boot: Duration::ZERO };
            let packet = sealer.seal(&knock, &random);
            let candidate = verifier.verify(now, "192.0.2.8:1".parse().unwrap(), &packet).unwrap();
            assert_eq!(candidate.cloak, old.id_bytes());
        }
    }

    #[test]
    fn another_packet_with_a_remembered_tag_does_not_pass() {
        let (server, cloak) = (SecretKey::from_bytes([1; 32]), CloakKey::from_bytes([2; 32]));
        let (secret, psk) = (SecretKey::from_bytes([3; 32]), Psk::from_bytes([4; 32]));
        let public = server.public_key();
        let stranger = Sealer::new(&secret, &Psk::from_bytes([5; 32]), &cloak, &public).unwrap();
        let knock = Knock {
            action: Action::Close { requests: Requests::default() },
            address: Address::Observed,
            counter: 1_790_000_000_000_000_000,
        };
        let packet = stranger.seal(&knock, &Randomness { nonce: [6; 12], ephemeral: [7; 32], size: 8 });
        let tag = Cloak::new(&cloak, &public).open(&packet).unwrap().tag();
        let client = secret.public_key();
        let mut verifier = Verifier::new(VerifierSettings {
            server,
            cloaks: vec![cloak],
            max_age: Duration::from_secs(60),
            clients: vec![(client, GateKeys::new(&psk, &public, &client))],
        });
        // As if a packet of the client had the same tag.
        let (es, here) = (SharedSecret::from_bytes([9; 32]), "192.0.2.7".parse().unwrap());
        verifier.memo.remember_pending(&mut verifier.clients, 0, tag, 1_790_000_000, es, here);
        let now = Now { wall: knock.counter, boot: Duration::ZERO };
        let refusal = verifier.verify(now, "192.0.2.8:1".parse().unwrap(), &packet).unwrap_err();
        assert_eq!(refusal.reason(), Reason::Gate);
    }
}
