//! The packet of single-packet authorization, version 1: keys, envelope, Noise message, payload.
//!
//! No I/O, no clock, no random source: times and random bytes are arguments. `docs/PROTOCOL.md` is normative; this
//! crate is its implementation. The order in which a server uses it, cheapest refusal first:
//!
//! 1. [`Cloak::open`]: is `T` right under one of the server's cloak keys?
//! 2. [`Envelope::time`]: is it fresh?
//! 3. [`GateKeys::hint`] and [`GateKeys::admits`]: which client, and did it make this packet?
//! 4. [`SecretKey::diffie_hellman`]: `es`, the one expensive operation.
//! 5. [`Opener::open`]: decrypt and decode into a [`Knock`].
//!
//! A client seals with a [`Sealer`]. Keys travel as text: [`ServerKeyFile`], [`ClientKeyFile`], [`Invite`].
#![forbid(unsafe_code)]

mod derive;
mod endpoint;
mod envelope;
mod host;
mod invite;
mod keyfile;
mod keys;
mod network;
mod noise;
mod packet;
mod payload;
mod seconds;
mod service;
#[cfg(test)]
mod vectors;
mod x25519;

pub use derive::{Cloak, GateKeys};
pub use endpoint::{Endpoint, EndpointError, Protocol};
pub use envelope::{
    AEAD_TAG_LENGTH, Envelope, HEADER_LENGTH, HINT_EPOCH_SHIFT, Hint, MAX_PACKET, MIN_PACKET, Tag, epoch,
};
pub use host::{MAX_HOST_LENGTH, is_host};
pub use invite::{
    Invite, InviteError, MAX_INVITE_LENGTH, MAX_INVITE_SERVICES, MAX_PASSPHRASE, MAX_SERVICE_ENDPOINTS,
    MAX_WORK, MIN_WORK, SEAL_SALT_LENGTH, SealedInvite, WORK,
};
pub use keyfile::{
    ClientKeyFile, KeyFileError, KeyFileReason, MAX_CLOAK_KEYS, MAX_KEY_FILE, ServerKeyFile, parse_psk_file,
    psk_file_text,
};
pub use keys::{CloakKey, KEY_LENGTH, KeyError, Psk, PublicKey, SecretKey, SharedSecret};
pub use network::{Network, NetworkError};
pub use packet::{Message, NANOS_PER_SECOND, OpenError, Opener, Randomness, Sealer};
pub use payload::{Action, Address, Knock, MAX_REQUESTS, PayloadError, Request, Requests};
pub use seconds::{Seconds, SecondsError};
pub use service::{ClientName, NameError, ServiceName};
