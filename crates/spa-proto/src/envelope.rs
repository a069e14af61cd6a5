//! The envelope: what lets a server refuse a stranger with one MAC, name the client without decrypting, and makes
//! every byte look random.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 12 | `N`: random |
//! | 12 | 16 | `T`: SipHash-2-4-128 over `N` and the masked bytes 28 to the end |
//! | 28 | 4 | time, Unix seconds |
//! | 32 | 8 | hint: SipHash-2-4-64 over u64 (time >> 6) |
//! | 40 | 8 | `M`: SipHash-2-4-64 over `N`, time, hint, `e`, ciphertext |
//! | 48 | 32 | Noise `e` |
//! | 80 | 16 + L | Noise ciphertext of the payload |
//!
//! Bytes 28 to the end are XORed with ChaCha20 (RFC 8439) under the mask key, nonce `N`, from block 0.

use core::hash::Hasher as _;

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use siphasher::{sip, sip128};
use subtle::ConstantTimeEq as _;

use crate::derive::{Cloak, GateKeys};

/// Smallest datagram of version 1, in bytes of UDP payload.
pub const MIN_PACKET: usize = 256;
/// Largest datagram of version 1, in bytes of UDP payload.
pub const MAX_PACKET: usize = 544;
/// Bytes before the ciphertext.
pub const HEADER_LENGTH: usize = 80;
/// Bytes that the AEAD adds to the payload.
pub const AEAD_TAG_LENGTH: usize = 16;
/// A hint is good for 2^6 = 64 seconds.
pub const HINT_EPOCH_SHIFT: u32 = 6;

pub(crate) const NONCE: core::ops::Range<usize> = 0..12;
const TAG: core::ops::Range<usize> = 12..28;
const MASKED: core::ops::RangeFrom<usize> = 28..;
pub(crate) const TIME: core::ops::Range<usize> = 28..32;
pub(crate) const HINT: core::ops::Range<usize> = 32..40;
pub(crate) const GATE_TAG: core::ops::Range<usize> = 40..48;
pub(crate) const EPHEMERAL: core::ops::Range<usize> = 48..80;
pub(crate) const CIPHERTEXT: core::ops::RangeFrom<usize> = 80..;

/// `T`, the tag that a holder of the cloak key can make and check. It is unique to a packet.
pub type Tag = [u8; 16];
/// The hint: a name for a client that changes with each epoch.
pub type Hint = [u8; 8];

/// The epoch of a time: its hint is the same for 64 seconds.
pub const fn epoch(time: u32) -> u64 {
    (time >> HINT_EPOCH_SHIFT) as u64
}

/// Fixed-size copy of a range of known length.
fn field<const N: usize>(bytes: &[u8], range: core::ops::Range<usize>) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[range]);
    out
}

impl Cloak {
    fn tag(&self, packet: &[u8]) -> Tag {
        let mut hasher = sip128::SipHasher24::new_with_key(&self.filter.0);
        hasher.write(&packet[NONCE]);
        hasher.write(&packet[MASKED]);
        sip128::Hasher128::finish128(&hasher).as_bytes()
    }

    /// XORs the mask over bytes 28 to the end: masks and unmasks.
    fn apply_mask(&self, packet: &mut [u8]) {
        let nonce: [u8; 12] = field(packet, NONCE);
        ChaCha20::new((&*self.mask).into(), &nonce.into()).apply_keystream(&mut packet[MASKED]);
    }

    /// Masks a packet that is complete but for `T`, and writes `T`.
    pub(crate) fn seal(&self, packet: &mut [u8]) {
        self.apply_mask(packet);
        let tag = self.tag(packet);
        packet[TAG].copy_from_slice(&tag);
    }

    /// Whether `T` is right under this cloak key, in constant time. A length that is not version 1's is never right.
    pub fn admits(&self, packet: &[u8]) -> bool {
        (MIN_PACKET..=MAX_PACKET).contains(&packet.len()) && self.tag(packet).ct_eq(&packet[TAG]).into()
    }

    /// Unmasks a copy of a packet that [`Self::admits`]; `None` where it does not.
    pub fn open(&self, packet: &[u8]) -> Option<Envelope> {
        if !self.admits(packet) {
            return None;
        }
        let mut envelope = Envelope { bytes: [0; MAX_PACKET], length: packet.len() };
        envelope.bytes[..packet.len()].copy_from_slice(packet);
        self.apply_mask(&mut envelope.bytes[..packet.len()]);
        Some(envelope)
    }
}

/// A packet whose `T` was right, unmasked. It says who a client claims to be; [`GateKeys::admits`] tells.
#[derive(Clone)]
pub struct Envelope {
    bytes: [u8; MAX_PACKET],
    length: usize,
}

impl Envelope {
    fn packet(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// `N`.
    pub fn nonce(&self) -> [u8; 12] {
        field(&self.bytes, NONCE)
    }

    /// `T`.
    pub fn tag(&self) -> Tag {
        field(&self.bytes, TAG)
    }

    /// When the client made the packet, Unix seconds.
    pub fn time(&self) -> u32 {
        u32::from_be_bytes(field(&self.bytes, TIME))
    }

    /// The hint.
    pub fn hint(&self) -> Hint {
        field(&self.bytes, HINT)
    }

    /// The client's ephemeral public key, unchecked.
    pub fn ephemeral(&self) -> [u8; 32] {
        field(&self.bytes, EPHEMERAL)
    }

    /// The Noise ciphertext with its 16-byte tag: 176 to 464 bytes.
    pub fn ciphertext(&self) -> &[u8] {
        &self.packet()[CIPHERTEXT]
    }
}

impl GateKeys {
    /// The client's hint in an [`epoch`]. The eight bytes are SipHash's output as its authors print it, little-endian.
    pub fn hint(&self, epoch: u64) -> Hint {
        let mut hasher = sip::SipHasher24::new_with_key(&self.hint.0);
        hasher.write(&epoch.to_be_bytes());
        hasher.finish().to_le_bytes()
    }

    /// `M` of an unmasked packet.
    pub(crate) fn gate_tag(&self, packet: &[u8]) -> [u8; 8] {
        let mut hasher = sip::SipHasher24::new_with_key(&self.gate.0);
        hasher.write(&packet[NONCE]);
        hasher.write(&packet[TIME]);
        hasher.write(&packet[HINT]);
        hasher.write(&packet[EPHEMERAL]);
        hasher.write(&packet[CIPHERTEXT]);
        hasher.finish().to_le_bytes()
    }

    /// Whether `M` was made by this client, in constant time.
    pub fn admits(&self, envelope: &Envelope) -> bool {
        self.gate_tag(envelope.packet()).ct_eq(&envelope.packet()[GATE_TAG]).into()
    }
}

#[cfg(test)]
mod tests;
