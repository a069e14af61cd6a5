//! What a holder of the cloak key, or also of a client's psk, can make of a packet: an envelope written from the
//! table in DESIGN section 3, apart from spa-proto's.

use core::hash::Hasher as _;
use std::sync::OnceLock;

use blake2::Blake2sMac256;
use blake2::digest::{KeyInit as _, Mac as _};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use siphasher::sip::SipHasher24;
use siphasher::sip128::{self, Hasher128 as _};
use spa_proto::{GateKeys, PublicKey};

use super::{cloak_key, server_key};

static SERVER: OnceLock<PublicKey> = OnceLock::new();

fn derive(label: &[u8; 16]) -> [u8; 32] {
    let mut mac = Blake2sMac256::new(cloak_key().expose().into());
    mac.update(label);
    mac.update(SERVER.get_or_init(|| server_key().public_key()).as_bytes());
    mac.finalize().into_bytes().into()
}

fn mask(packet: &mut [u8]) {
    let nonce: [u8; 12] = packet[..12].try_into().unwrap();
    ChaCha20::new(&derive(b"spa-v1-mask-----").into(), &nonce.into()).apply_keystream(&mut packet[28..]);
}

/// Unmasks, edits, makes `M` anew where the client's gate keys are known, masks, makes `T` anew.
pub fn forge(packet: &[u8], gate: Option<&GateKeys>, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut packet = packet.to_vec();
    mask(&mut packet);
    edit(&mut packet);
    if let Some(gate) = gate {
        let key: [u8; 16] = gate.to_bytes()[16..].try_into().unwrap();
        let mut hasher = SipHasher24::new_with_key(&key);
        hasher.write(&packet[..12]);
        hasher.write(&packet[28..40]);
        hasher.write(&packet[48..]);
        packet[40..48].copy_from_slice(&hasher.finish().to_le_bytes());
    }
    mask(&mut packet);
    let key: [u8; 16] = derive(b"spa-v1-filter---")[..16].try_into().unwrap();
    let mut hasher = sip128::SipHasher24::new_with_key(&key);
    hasher.write(&packet[..12]);
    hasher.write(&packet[28..]);
    packet[12..28].copy_from_slice(&hasher.finish128().as_bytes());
    packet
}

/// Byte positions to edit.
pub const NONCE: usize = 0;
pub const EPHEMERAL: core::ops::Range<usize> = 48..80;
pub const CIPHERTEXT: usize = 80;
