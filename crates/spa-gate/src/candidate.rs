//! The one message from the verifier to the warden, and the one back.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use spa_proto::{HEADER_LENGTH, Hint, MAX_PACKET, Message, PublicKey, SharedSecret, Tag};

/// Longest Noise ciphertext with its tag, in bytes.
pub const MAX_CIPHERTEXT: usize = MAX_PACKET - HEADER_LENGTH;

/// A Noise ciphertext in a fixed buffer.
#[derive(Clone)]
pub struct Ciphertext {
    bytes: [u8; MAX_CIPHERTEXT],
    length: usize,
}

impl Ciphertext {
    /// Copies; `None` beyond [`MAX_CIPHERTEXT`] bytes.
    pub fn new(ciphertext: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_CIPHERTEXT];
        bytes.get_mut(..ciphertext.len())?.copy_from_slice(ciphertext);
        Some(Self { bytes, length: ciphertext.len() })
    }

    /// The ciphertext.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// A packet that passed the verifier: the client's psk made it, so far as `M` tells. Fixed size, no heap. To the
/// warden all of it is hostile until [`Openers::open`](crate::Openers::open) says otherwise.
#[derive(Clone)]
pub struct Candidate {
    /// The client that the hint names.
    pub client: PublicKey,
    /// The cloak key that it came under, as [`CloakKey::id_bytes`](spa_proto::CloakKey::id_bytes) has it. Not its place
    /// in a list: by the time that the warden reads this, it may go by another.
    pub cloak: [u8; 4],
    /// `T`, by which the warden tells the verifier the [`Outcome`].
    pub tag: Tag,
    /// `N`.
    pub nonce: [u8; 12],
    /// The envelope's time, Unix seconds.
    pub time: u32,
    /// The envelope's hint.
    pub hint: Hint,
    /// The client's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The Diffie-Hellman of the server's static key with it.
    pub es: SharedSecret,
    /// The Noise ciphertext with its tag.
    pub ciphertext: Ciphertext,
    /// Where the packet came from.
    pub source: SocketAddr,
}

impl Candidate {
    /// What an [`Opener`](spa_proto::Opener) opens.
    pub fn message(&self) -> Message<'_> {
        Message {
            nonce: &self.nonce,
            time: self.time,
            hint: &self.hint,
            ephemeral: &self.ephemeral,
            es: &self.es,
            ciphertext: self.ciphertext.as_slice(),
        }
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("client", &self.client)
            .field("source", &self.source)
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

/// What the warden found in a candidate, as far as the verifier needs it to refuse copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No copy can open anything more.
    Spent,
    /// The packet counts only from this address; a copy from another harms nobody.
    BoundTo(IpAddr),
}
