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

use blake2::{Blake2s256, Digest as _};
use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use chacha20poly1305::{ChaCha20Poly1305, Tag};
use hkdf::SimpleHkdf;
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

/// What both sides know of the message before its payload.
pub(crate) struct Handshake<'a> {
    pub prologue: &'a [u8],
    pub initiator: &'a PublicKey,
    pub responder: &'a PublicKey,
    pub psk: &'a [u8; 32],
    pub ephemeral: &'a [u8; 32],
    pub es: &'a SharedSecret,
    pub ss: &'a SharedSecret,
}

impl Handshake<'_> {
    /// Runs the tokens `psk, e, es, ss`; what is left is one AEAD operation.
    fn symmetric_state(&self) -> Symmetric {
        let mut state = Symmetric::new();
        state.mix_hash(self.prologue);
        state.mix_hash(self.initiator.as_bytes());
        state.mix_hash(self.responder.as_bytes());
        state.mix_key_and_hash(self.psk);
        state.mix_hash(self.ephemeral);
        state.mix_key(self.ephemeral); // section 9.2: with a psk, `e` goes into the key as well
        state.mix_key(self.es.expose());
        state.mix_key(self.ss.expose());
        state
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

/// The SymmetricState of Noise section 5.2, as far as one message needs it.
struct Symmetric {
    chaining_key: [u8; 32],
    hash: [u8; 32],
    key: [u8; 32],
}

impl Symmetric {
    fn new() -> Self {
        // The name is longer than a hash, so it is hashed (section 5.2, InitializeSymmetric).
        let hash = Blake2s256::digest(PROTOCOL_NAME).into();
        Self { chaining_key: hash, hash, key: [0; 32] }
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = Blake2s256::new().chain_update(self.hash).chain_update(data).finalize().into();
    }

    /// HKDF of section 4.3, which is RFC 5869 with the chaining key as salt and no info.
    fn hkdf<const BYTES: usize>(&self, input: &[u8]) -> Zeroizing<[u8; BYTES]> {
        let mut output = Zeroizing::new([0; BYTES]);
        SimpleHkdf::<Blake2s256>::new(Some(&self.chaining_key), input)
            .expand(&[], &mut *output)
            .expect("two or three hashes are within HKDF's length");
        output
    }

    fn mix_key(&mut self, input: &[u8; 32]) {
        let output = self.hkdf::<64>(input);
        self.chaining_key.copy_from_slice(&output[..32]);
        self.key.copy_from_slice(&output[32..]);
    }

    fn mix_key_and_hash(&mut self, input: &[u8; 32]) {
        let output = self.hkdf::<96>(input);
        self.chaining_key.copy_from_slice(&output[..32]);
        self.mix_hash(&output[32..64]);
        self.key.copy_from_slice(&output[64..]);
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new((&self.key).into())
    }
}

impl Drop for Symmetric {
    fn drop(&mut self) {
        self.chaining_key.zeroize();
        self.hash.zeroize();
        self.key.zeroize();
    }
}

#[cfg(test)]
pub(crate) mod tests;
