//! The whole packet: sealed by a client, opened by a server in the two steps of its two processes.

use zeroize::{Zeroize as _, Zeroizing};

use crate::derive::{Cloak, GateKeys, hedge_key, keyed_hash, noise_psk};
use crate::envelope::{
    AEAD_TAG_LENGTH, CIPHERTEXT, EPHEMERAL, GATE_TAG, HEADER_LENGTH, HINT, Hint, MAX_PACKET, MIN_PACKET,
    NONCE, TIME, epoch,
};
use crate::keys::{CloakKey, Psk, PublicKey, SecretKey, SharedSecret};
use crate::noise::{Handshake, PskToken, prologue};
use crate::payload::{Knock, PayloadError};

/// Nanoseconds in a second: a counter divided by this is the envelope's time.
pub const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Content up to this many bytes leaves the full range of sizes open.
const SHORT_CONTENT: usize = MIN_PACKET - HEADER_LENGTH - AEAD_TAG_LENGTH;
/// Smallest datagram where the content is longer.
const MIN_LONG_PACKET: usize = 432;
/// Most content that [`MIN_LONG_PACKET`] holds; 8 requests of the longest name are 306.
const MAX_CONTENT: usize = MIN_LONG_PACKET - HEADER_LENGTH - AEAD_TAG_LENGTH;

/// The random input of one packet, fresh from the system's random source.
#[derive(Clone)]
pub struct Randomness {
    /// `N`.
    pub nonce: [u8; 12],
    /// Hashed with the counter under the hedge key into the ephemeral private key.
    pub ephemeral: [u8; 32],
    /// Chooses the datagram's size.
    pub size: u64,
}

impl Drop for Randomness {
    fn drop(&mut self) {
        self.ephemeral.zeroize();
    }
}

/// What a client needs to knock at one server: its own keys and what it shares with the server, with the
/// Diffie-Hellman of the two static keys done once.
pub struct Sealer {
    server: PublicKey,
    client: PublicKey,
    cloak: Cloak,
    gate: GateKeys,
    noise_psk: Zeroizing<[u8; 32]>,
    hedge: Zeroizing<[u8; 32]>,
    ss: SharedSecret,
}

impl Sealer {
    /// `None` where the two static keys have no shared secret, which no honestly made pair has.
    pub fn new(secret: &SecretKey, psk: &Psk, cloak: &CloakKey, server: &PublicKey) -> Option<Self> {
        let client = secret.public_key();
        Some(Self {
            server: *server,
            client,
            cloak: Cloak::new(cloak, server),
            gate: GateKeys::new(psk, server, &client),
            noise_psk: noise_psk(psk, server, &client),
            hedge: hedge_key(psk, server, &client),
            ss: secret.diffie_hellman(server.as_bytes())?,
        })
    }

    /// The datagram for a knock, 256 to 544 bytes.
    pub fn seal(&self, knock: &Knock, random: &Randomness) -> Vec<u8> {
        let content = Zeroizing::new(knock.encode());
        let mut packet = vec![0; packet_size(content.len(), random.size)];
        packet[CIPHERTEXT][..content.len()].copy_from_slice(&content);
        let time = (knock.counter / NANOS_PER_SECOND) as u32; // in range until the year 2106
        self.seal_in_place(
            &mut packet,
            time,
            &self.ephemeral(&random.ephemeral, knock.counter),
            &random.nonce,
        );
        packet
    }

    /// Seals a packet of any length that has its payload from [`CIPHERTEXT`] on, and room for the AEAD's tag after.
    fn seal_in_place(&self, packet: &mut [u8], time: u32, ephemeral: &SecretKey, nonce: &[u8; 12]) {
        let hint = self.gate.hint(epoch(time));
        let ephemeral_public = *ephemeral.public_key().as_bytes();
        packet[NONCE].copy_from_slice(nonce);
        packet[TIME].copy_from_slice(&time.to_be_bytes());
        packet[HINT].copy_from_slice(&hint);
        packet[EPHEMERAL].copy_from_slice(&ephemeral_public);
        let es = ephemeral.diffie_hellman(self.server.as_bytes());
        let handshake = Handshake {
            prologue: &prologue(nonce, time, &hint),
            initiator: &self.client,
            responder: &self.server,
            psk: &PskToken::new(&self.noise_psk),
            ephemeral: &ephemeral_public,
            es: &es.expect("a checked public key is not of low order"),
            ss: &self.ss,
        };
        handshake.encrypt(&mut packet[CIPHERTEXT]);
        self.seal_envelope(packet);
    }

    /// Makes `M`, masks, makes `T`.
    fn seal_envelope(&self, packet: &mut [u8]) {
        let gate_tag = self.gate.gate_tag(packet);
        packet[GATE_TAG].copy_from_slice(&gate_tag);
        self.cloak.seal(packet);
    }

    /// A bad random source alone repeats no ephemeral key: the counter never repeats, and the hedge key is secret.
    fn ephemeral(&self, random: &[u8; 32], counter: u64) -> SecretKey {
        SecretKey::from_bytes(*keyed_hash(&self.hedge, &[random, &counter.to_be_bytes()]))
    }
}

/// Draws a size evenly from 256 to 544, or from 432 where the content would not fit below. (The modulo's bias over
/// a random u64 is under 2^-55.)
fn packet_size(content: usize, random: u64) -> usize {
    assert!(content <= MAX_CONTENT, "content of {content} bytes does not fit a packet");
    let low = if content <= SHORT_CONTENT { MIN_PACKET } else { MIN_LONG_PACKET };
    low + (random % (MAX_PACKET - low + 1) as u64) as usize
}

/// What the warden holds for one client: enough to open its messages, given `es` from the verifier.
pub struct Opener {
    server: PublicKey,
    client: PublicKey,
    psk: PskToken,
    ss: SharedSecret,
}

/// A message as the verifier hands it over. All of it is hostile until [`Opener::open`] says otherwise.
pub struct Message<'a> {
    /// `N`.
    pub nonce: &'a [u8; 12],
    /// The envelope's time, Unix seconds.
    pub time: u32,
    /// The envelope's hint.
    pub hint: &'a Hint,
    /// The client's ephemeral public key.
    pub ephemeral: &'a [u8; 32],
    /// The Diffie-Hellman of the server's static key with it.
    pub es: &'a SharedSecret,
    /// The Noise ciphertext with its tag.
    pub ciphertext: &'a [u8],
}

/// Why a message was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Not made by this client.
    NotAuthentic,
    /// Authentic, but not a knock.
    Payload(PayloadError),
    /// Authentic, but its counter belongs to another second than the envelope's time.
    TimeMismatch,
}

impl Opener {
    /// `None` where the two static keys have no shared secret.
    pub fn new(server: &SecretKey, client: &PublicKey, psk: &Psk) -> Option<Self> {
        let server_public = server.public_key();
        Some(Self {
            server: server_public,
            client: *client,
            psk: PskToken::new(&noise_psk(psk, &server_public, client)),
            ss: server.diffie_hellman(client.as_bytes())?,
        })
    }

    /// Opens and strictly decodes a message.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, message: &Message<'_>) -> Result<Knock, OpenError> {
        let mut buffer = Zeroizing::new([0; MAX_PACKET]);
        let buffer = buffer.get_mut(..message.ciphertext.len()).ok_or(OpenError::NotAuthentic)?;
        buffer.copy_from_slice(message.ciphertext);
        let handshake = Handshake {
            prologue: &prologue(message.nonce, message.time, message.hint),
            initiator: &self.client,
            responder: &self.server,
            psk: &self.psk,
            ephemeral: message.ephemeral,
            es: message.es,
            ss: &self.ss,
        };
        let payload = handshake.decrypt(buffer).ok_or(OpenError::NotAuthentic)?;
        let knock = Knock::decode(payload).map_err(OpenError::Payload)?;
        if knock.counter / NANOS_PER_SECOND != u64::from(message.time) {
            return Err(OpenError::TimeMismatch);
        }
        Ok(knock)
    }
}

#[cfg(test)]
pub(crate) mod tests;
