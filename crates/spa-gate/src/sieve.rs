//! The first step of the verifier, *length* and *tag*: what almost all junk fails at, and what needs the cloak keys and
//! nothing that changes. So it can be done on several threads at once, while all that is remembered, counted down or
//! paid for stays with the one [`Verifier`](crate::Verifier), without a lock.

use spa_proto::{Cloak, CloakKey, Envelope, MAX_PACKET, MIN_PACKET, PublicKey};

use crate::reason::{Reason, Refusal};

/// Cloak keys that are live at once. Junk costs one short MAC for each.
pub const MAX_CLOAKS: usize = 4;

/// Lets through what was made with a live cloak key.
#[derive(Clone)]
pub struct Sieve {
    /// With what they are called by.
    cloaks: Vec<([u8; 4], Cloak)>,
}

/// A packet that passed, unmasked. Fixed size, no heap.
#[derive(Clone)]
pub struct Tagged {
    /// The cloak key that it came under, by its id.
    pub(crate) cloak: [u8; 4],
    pub(crate) envelope: Envelope,
}

impl Sieve {
    /// Of a server, with its live cloak keys, newest first; those beyond [`MAX_CLOAKS`] are ignored.
    pub fn new(server: &PublicKey, cloaks: &[CloakKey]) -> Self {
        let cloak = |key: &CloakKey| (key.id_bytes(), Cloak::new(key, server));
        Self { cloaks: cloaks.iter().take(MAX_CLOAKS).map(cloak).collect() }
    }

    /// Judges one datagram's payload. Allocates nothing.
    ///
    /// # Errors
    /// The refusal, not counted: `length` or `tag`.
    #[inline]
    pub fn sift(&self, payload: &[u8]) -> Result<Tagged, Refusal> {
        if !(MIN_PACKET..=MAX_PACKET).contains(&payload.len()) {
            return Err(Reason::Length.into());
        }
        let open =
            |(id, cloak): &([u8; 4], Cloak)| Some(Tagged { cloak: *id, envelope: cloak.open(payload)? });
        self.cloaks.iter().find_map(open).ok_or_else(|| Reason::Tag.into())
    }

    /// Whether the key that a packet came under is still live.
    pub(crate) fn knows(&self, tagged: &Tagged) -> bool {
        self.cloaks.iter().any(|(id, _)| *id == tagged.cloak)
    }
}
