//! `Noise_Kpsk0_25519_ChaChaPoly_BLAKE2s` (Noise revision 34), one message, initiator to responder.
//!
//! ```text
//! -> s
//! <- s
//! ...
//! -> psk, e, es, ss
//! ```
//!
//! The Diffie-Hellman results are arguments: the server makes `es` in one process and keeps `ss` in another.
//!
//! Only what one message needs is computed. The token `psk` mixes constants of a pair of keys, so it is done once
//! ([`PskToken`]). Nothing is encrypted between `e` and the payload, so of these mixed keys the last alone is made.

use blake2::{Blake2s256, Digest as _};
use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use chacha20poly1305::{ChaCha20Poly1305, Tag};
use zeroize::{Zeroize as _, Zeroizing};

use crate::envelope::{AEAD_TAG_LENGTH, Hint};
use crate::keys::{PublicKey, SharedSecret};

const PROTOCOL_NAME: &[u8] = b"Noise_Kpsk0_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE_LABEL: &[u8; 16] = b"spa-v1-prologue-";
/// Bytes in the prologue: label, `N`, time, hint.
const PROLOGUE_LENGTH: usize = 16 + 12 + 4 + 8;

/// The prologue, which ties the message to its envelope: a label, `N`, time, hint.
pub(crate) fn prologue(nonce: &[u8; 12], time: u32, hint: &Hint) -> [u8; PROLOGUE_LENGTH] {
    let mut prologue = [0; PROLOGUE_LENGTH];
    prologue[..16].copy_from_slice(PROLOGUE_LABEL);
    prologue[16..28].copy_from_slice(nonce);
    prologue[28..32].copy_from_slice(&time.to_be_bytes());
    prologue[32..].copy_from_slice(hint);
    prologue
}

/// The token `psk`, which a pair of keys has done once: both values are secret.
#[derive(Clone)]
pub(crate) struct PskToken {
    chaining_key: Zeroizing<[u8; 32]>,
    /// What MixKeyAndHash has mixed into the hash.
    mixed: Zeroizing<[u8; 32]>,
}

impl PskToken {
    pub(crate) fn new(psk: &[u8; 32]) -> Self {
        let keys = Hkdf::new(&initial_hash(), psk);
        let chaining_key = keys.first();
        let mixed = keys.next(&chaining_key, 2);
        Self { chaining_key, mixed } // the third output is a cipher key that nothing is encrypted with
    }
}

/// What both sides know of the message before its payload.
pub(crate) struct Handshake<'a> {
    pub prologue: &'a [u8],
    pub initiator: &'a PublicKey,
    pub responder: &'a PublicKey,
    pub psk: &'a PskToken,
    pub ephemeral: &'a [u8; 32],
    pub es: &'a SharedSecret,
    pub ss: &'a SharedSecret,
}

impl Handshake<'_> {
    /// Runs the tokens `psk, e, es, ss`; what is left is one AEAD operation.
    fn symmetric_state(&self) -> Symmetric {
        let mut hash = initial_hash();
        let hashed: [&[u8]; 5] = [
            self.prologue,
            self.initiator.as_bytes(),
            self.responder.as_bytes(),
            &*self.psk.mixed,
            self.ephemeral,
        ];
        for data in hashed {
            hash = mix_hash(&hash, data);
        }
        // Section 9.2: with a psk, `e` goes into the key as well.
        let with_e = Hkdf::new(&self.psk.chaining_key, self.ephemeral).first();
        let with_es = Hkdf::new(&with_e, self.es.expose()).first();
        let keys = Hkdf::new(&with_es, self.ss.expose());
        let chaining_key = keys.first();
        let key = keys.next(&chaining_key, 2);
        Symmetric { hash, key }
    }

    /// Encrypts `message`, whose last 16 bytes are room for the tag, in place.
    pub(crate) fn encrypt(&self, message: &mut [u8]) {
        let state = self.symmetric_state();
        let (payload, tag) = message.split_at_mut(message.len() - AEAD_TAG_LENGTH);
        let sealed = state.cipher().encrypt_inout_detached(&[0; 12].into(), &state.hash, payload.into());
        // ChaCha20-Poly1305 fails only beyond 256 GiB; a packet has 544 bytes.
        tag.copy_from_slice(&sealed.expect("a packet is within the AEAD's length"));
    }

    /// Decrypts `message`, ciphertext and tag, in place and returns the payload; `None` where it is not authentic.
    pub(crate) fn decrypt<'m>(&self, message: &'m mut [u8]) -> Option<&'m [u8]> {
        let state = self.symmetric_state();
        let (payload, tag) = message.split_at_mut(message.len().checked_sub(AEAD_TAG_LENGTH)?);
        let tag = Tag::try_from(&*tag).ok()?;
        state
            .cipher()
            .decrypt_inout_detached(&[0; 12].into(), &state.hash, (&mut *payload).into(), &tag)
            .ok()
            .map(|()| &*payload)
    }
}

/// What is left of the SymmetricState of Noise section 5.2.
struct Symmetric {
    hash: [u8; 32],
    key: Zeroizing<[u8; 32]>,
}

impl Symmetric {
    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new((&*self.key).into())
    }
}

impl Drop for Symmetric {
    fn drop(&mut self) {
        self.hash.zeroize();
    }
}

/// The first hash, which is the first chaining key too. The name is longer than a hash, so it is hashed (section 5.2,
/// InitializeSymmetric).
fn initial_hash() -> [u8; 32] {
    Blake2s256::digest(PROTOCOL_NAME).into()
}

fn mix_hash(hash: &[u8; 32], data: &[u8]) -> [u8; 32] {
    Blake2s256::new().chain_update(hash).chain_update(data).finalize().into()
}

/// HKDF of section 4.3, each output when it is wanted.
struct Hkdf {
    temporary: Zeroizing<[u8; 32]>,
}

impl Hkdf {
    fn new(chaining_key: &[u8; 32], input: &[u8; 32]) -> Self {
        Self { temporary: hmac(chaining_key, &[input]) }
    }

    fn first(&self) -> Zeroizing<[u8; 32]> {
        hmac(&self.temporary, &[&[1]])
    }

    /// The output with this number, from the one before.
    fn next(&self, before: &[u8; 32], number: u8) -> Zeroizing<[u8; 32]> {
        hmac(&self.temporary, &[before, &[number]])
    }
}

/// HMAC of RFC 2104 over BLAKE2s-256, whose block has 64 bytes.
fn hmac(key: &[u8; 32], data: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let padded = |byte: u8| {
        let mut block = Zeroizing::new([byte; 64]);
        block.iter_mut().zip(key).for_each(|(block, key)| *block ^= key);
        Blake2s256::new().chain_update(block.as_slice())
    };
    let inner: Zeroizing<[u8; 32]> = Zeroizing::new(
        data.iter().fold(padded(0x36), |hash, data| hash.chain_update(data)).finalize().into(),
    );
    Zeroizing::new(padded(0x5c).chain_update(inner.as_slice()).finalize().into())
}

#[cfg(test)]
pub(crate) mod tests;
