//! The warden's *open*: state-free, so it may run for many candidates at once.

use std::collections::HashMap;

use spa_proto::{Address, Knock, OpenError, Opener, PublicKey};

use crate::candidate::{Candidate, Outcome};
use crate::reason::{Reason, Refusal};

/// The openers of all clients.
pub struct Openers {
    openers: HashMap<PublicKey, Opener>,
}

impl Openers {
    /// One opener a client; of two for one key the last counts.
    pub fn new(openers: impl IntoIterator<Item = (PublicKey, Opener)>) -> Self {
        Self { openers: openers.into_iter().collect() }
    }

    /// Forgets a client: whatever it sent is not opened any more.
    pub fn forget(&mut self, client: &PublicKey) {
        self.openers.remove(client);
    }

    /// Opens a candidate, and says what the verifier is to be told at once, before anything slow is done.
    ///
    /// The refusal is `unknown-client` (removed while the candidate was under way), `not-authentic`, `payload` or
    /// `time-mismatch`.
    pub fn open(&self, candidate: &Candidate) -> (Result<Knock, Refusal>, Outcome) {
        let Some(opener) = self.openers.get(&candidate.client) else {
            return (Err(Reason::UnknownClient.into()), Outcome::Spent);
        };
        match opener.open(&candidate.message()) {
            Ok(knock) => {
                let outcome = match knock.address {
                    Address::Bound(address) => Outcome::BoundTo(address),
                    Address::Observed | Address::Explicit(_) => Outcome::Spent,
                };
                (Ok(knock), outcome)
            }
            Err(error) => (Err(refusal(error)), Outcome::Spent),
        }
    }
}

fn refusal(error: OpenError) -> Refusal {
    match error {
        OpenError::NotAuthentic => Reason::NotAuthentic.into(),
        OpenError::Payload(error) => Refusal::payload(error),
        OpenError::TimeMismatch => Reason::TimeMismatch.into(),
    }
}
