//! Keys derived from the cloak key and from a client's psk: BLAKE2s-256 (RFC 7693) in its keyed mode over a
//! 16-byte label and a binding, cut to length.

use blake2::Blake2sMac256;
use blake2::digest::{KeyInit as _, Mac as _};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::keys::{CloakKey, KEY_LENGTH, Psk, PublicKey};

/// A 16-byte SipHash key, wiped on drop and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct SipKey(pub(crate) [u8; 16]);

/// BLAKE2s-256 keyed with `key` over the concatenation of `parts`.
pub(crate) fn keyed_hash(key: &[u8; KEY_LENGTH], parts: &[&[u8]]) -> Zeroizing<[u8; KEY_LENGTH]> {
    let mut mac = Blake2sMac256::new(key.into());
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn sip_key(key: &[u8; KEY_LENGTH], parts: &[&[u8]]) -> SipKey {
    let hash = keyed_hash(key, parts);
    let mut cut = SipKey([0; 16]);
    cut.0.copy_from_slice(&hash[..16]);
    cut
}

/// What a cloak key gives: the key of the tag `T` and the key of the mask.
#[derive(Clone)]
pub struct Cloak {
    pub(crate) filter: SipKey,
    pub(crate) mask: Zeroizing<[u8; KEY_LENGTH]>,
}

impl Cloak {
    /// Derives the two keys that a server and the clients enrolled under `key` share.
    pub fn new(key: &CloakKey, server: &PublicKey) -> Self {
        Self {
            filter: sip_key(key.expose(), &[b"spa-v1-filter---", server.as_bytes()]),
            mask: keyed_hash(key.expose(), &[b"spa-v1-mask-----", server.as_bytes()]),
        }
    }
}

impl CloakKey {
    /// What people call this key by: 8 hexadecimal digits that give nothing of it away.
    pub fn id(&self) -> String {
        self.id_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes of [`Self::id`].
    pub fn id_bytes(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = *keyed_hash(self.expose(), &[b"spa-v1-cloak-id-"]);
        [a, b, c, d]
    }
}

/// The part of a client's derived keys that names it and lets it through the gate. Opens and forges no Noise message.
#[derive(Clone)]
pub struct GateKeys {
    pub(crate) hint: SipKey,
    pub(crate) gate: SipKey,
}

impl GateKeys {
    /// Derives from the psk, bound to both public keys.
    pub fn new(psk: &Psk, server: &PublicKey, client: &PublicKey) -> Self {
        let derive = |label: &[u8; 16]| sip_key(psk.expose(), &[label, server.as_bytes(), client.as_bytes()]);
        Self { hint: derive(b"spa-v1-hint-----"), gate: derive(b"spa-v1-gate-----") }
    }

    /// Restores from [`Self::to_bytes`], which is how the warden hands them to the verifier.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut keys = Self { hint: SipKey([0; 16]), gate: SipKey([0; 16]) };
        keys.hint.0.copy_from_slice(&bytes[..16]);
        keys.gate.0.copy_from_slice(&bytes[16..]);
        keys
    }

    /// The hint key, then the gate key.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        bytes[..16].copy_from_slice(&self.hint.0);
        bytes[16..].copy_from_slice(&self.gate.0);
        bytes
    }
}

/// The psk of the Noise message.
pub(crate) fn noise_psk(psk: &Psk, server: &PublicKey, client: &PublicKey) -> Zeroizing<[u8; KEY_LENGTH]> {
    keyed_hash(psk.expose(), &[b"spa-v1-noise----", server.as_bytes(), client.as_bytes()])
}

/// The key from which a client draws its ephemeral keys.
pub(crate) fn hedge_key(psk: &Psk, server: &PublicKey, client: &PublicKey) -> Zeroizing<[u8; KEY_LENGTH]> {
    keyed_hash(psk.expose(), &[b"spa-v1-hedge----", server.as_bytes(), client.as_bytes()])
}
