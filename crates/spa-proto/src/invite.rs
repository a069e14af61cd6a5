//! The invite: one line of text that carries a new client everything it needs to knock at one server.
//!
//! `spa1-`, then base64url without padding (RFC 4648 section 5) of
//!
//! | size | field |
//! |---|---|
//! | 2 | number of bytes that follow |
//! | | fields: type (1), length (2), value; types never descend |
//! | 4 | check: the first bytes of BLAKE2s-256 over all before |
//!
//! The length and the check tell a line that was cut short from one that was mistyped. [`SealedInvite`] is the same,
//! encrypted with a passphrase.

mod line;
mod sealed;

use core::fmt;

use zeroize::Zeroizing;

use crate::endpoint::{Endpoint, Protocol};
use crate::host::{MAX_HOST_LENGTH, is_host};
use crate::keyfile::MAX_CLOAK_KEYS;
use crate::keys::{CloakKey, KEY_LENGTH, Psk, PublicKey, SecretKey};
use crate::service::{ClientName, ServiceName};

pub use self::sealed::{MAX_PASSPHRASE, MAX_WORK, MIN_WORK, SEAL_SALT_LENGTH, SealedInvite, WORK};

/// Longest invite, in characters. The largest that version 1 makes has 20,205; the rest is room for later fields.
pub const MAX_INVITE_LENGTH: usize = 24 * 1024;
/// Most services in an invite.
pub const MAX_INVITE_SERVICES: usize = 64;
/// Most endpoints of one service in an invite.
pub const MAX_SERVICE_ENDPOINTS: usize = 64;

const PREFIX: &str = "spa1-";
/// Bytes of one endpoint in a service field: protocol, port.
const ENDPOINT_LENGTH: usize = 3;
/// A field whose type has this bit must be understood.
const CRITICAL: u8 = 0x80;

const CLIENT: u8 = 1;
const ADDRESS: u8 = 2;
const PORT: u8 = 3;
const SERVER: u8 = 4;
const CLOAK: u8 = 5;
const PSK: u8 = 6;
const SECRET: u8 = 7;
const SERVICE: u8 = 8;
const EXPIRES: u8 = 9;

/// What an invite says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// What the server calls the client.
    pub client: ClientName,
    /// Where the server is: a host name or an address, as [`is_host`] allows.
    pub address: String,
    /// The SPA port, not 0.
    pub port: u16,
    /// The server's public key.
    pub server: PublicKey,
    /// 1 to [`MAX_CLOAK_KEYS`] cloak keys, newest first.
    pub cloaks: Vec<CloakKey>,
    /// The pre-shared key of the client.
    pub psk: Psk,
    /// The client's private key; `None` where the client made its own.
    pub secret: Option<SecretKey>,
    /// At most [`MAX_INVITE_SERVICES`] services, ascending by name, each with 1 to [`MAX_SERVICE_ENDPOINTS`]
    /// endpoints, ascending.
    pub services: Vec<(ServiceName, Vec<Endpoint>)>,
    /// When the server stops to honour the invite, Unix seconds; `None` for never.
    pub expires: Option<u64>,
}

/// Why a text is not an invite. It never holds any part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteError {
    /// Longer than [`MAX_INVITE_LENGTH`].
    TooLong,
    /// It does not begin as an invite does.
    NotAnInvite,
    /// An invite of another version or form, as its first characters say.
    OtherVersion,
    /// A character that no invite has, at this position counted from 1.
    Character(usize),
    /// So many characters are missing, as its own length says.
    Truncated(usize),
    /// So many characters are too many, as its own length says.
    Extended(usize),
    /// Its check does not agree: something in it was altered.
    Damaged,
    /// A field, by its type, that is malformed, out of order or repeated.
    Field(u8),
    /// A field, by its type, that this version does not know and must.
    UnknownField(u8),
    /// It has no such field.
    Missing(&'static str),
    /// It is encrypted: [`SealedInvite`] opens it.
    Encrypted,
    /// Not the passphrase that it was encrypted with (or somebody altered it and made the check anew).
    Passphrase,
    /// Its work factor is not one of [`MIN_WORK`] to [`MAX_WORK`].
    Work(u8),
}

impl fmt::Display for InviteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the invite is longer than {MAX_INVITE_LENGTH} characters"),
            Self::NotAnInvite => write!(f, "this is not an invite; an invite begins with \"{PREFIX}\""),
            Self::OtherVersion => f.write_str("this kind of invite needs a newer version of this software"),
            Self::Character(position) => write!(
                f,
                "character {position} does not belong in an invite, which is one line of letters, digits, - and _"
            ),
            Self::Truncated(missing) => {
                write!(f, "the invite is incomplete: {missing} characters are missing")
            }
            Self::Extended(extra) => write!(f, "the invite has {extra} characters too many"),
            Self::Damaged => f.write_str("the invite was altered on the way; copy it again"),
            Self::Field(kind) => write!(f, "the invite's field {kind} is malformed"),
            Self::UnknownField(kind) => {
                write!(f, "the invite's field {kind} needs a newer version of this software")
            }
            Self::Missing(name) => write!(f, "the invite has no {name}"),
            Self::Encrypted => f.write_str("the invite is encrypted; its passphrase is needed"),
            Self::Passphrase => f.write_str("the passphrase is not the one of this invite"),
            Self::Work(work) => {
                write!(f, "the invite's work factor is {work}; this version takes {MIN_WORK} to {MAX_WORK}")
            }
        }
    }
}

impl core::error::Error for InviteError {}

impl Invite {
    /// The line, without a line feed. Services and endpoints are put in order and repeated endpoints dropped. What
    /// else breaks a limit of a field makes a line that [`Self::parse`] refuses; [`Self::check`] tells beforehand.
    pub fn encode(&self) -> Zeroizing<String> {
        line::encode(PREFIX, &self.fields())
    }

    /// Whether [`Self::parse`] takes what [`Self::encode`] makes.
    ///
    /// # Errors
    /// What [`Self::parse`] would say.
    pub fn check(&self) -> Result<(), InviteError> {
        parse_fields(&self.fields()).map(drop)
    }

    /// Reads an invite; white space around it is ignored.
    ///
    /// # Errors
    /// [`InviteError`].
    pub fn parse(text: &str) -> Result<Self, InviteError> {
        let body = strip_prefix(text.trim_ascii())?;
        parse_fields(&line::decode(PREFIX, body)?)
    }

    fn fields(&self) -> Zeroizing<Vec<u8>> {
        // Room for everything at once: growing would leave copies behind that nobody wipes.
        let mut out = Zeroizing::new(Vec::with_capacity(MAX_INVITE_LENGTH));
        put(&mut out, CLIENT, &[self.client.as_str().as_bytes()]);
        let address = self.address.as_bytes();
        put(&mut out, ADDRESS, &[&address[..address.len().min(MAX_HOST_LENGTH + 1)]]);
        put(&mut out, PORT, &[&self.port.to_be_bytes()]);
        put(&mut out, SERVER, &[self.server.as_bytes()]);
        for cloak in self.cloaks.iter().take(MAX_CLOAK_KEYS + 1) {
            put(&mut out, CLOAK, &[cloak.expose()]);
        }
        put(&mut out, PSK, &[self.psk.expose()]);
        if let Some(secret) = &self.secret {
            put(&mut out, SECRET, &[secret.expose()]);
        }
        let mut services: Vec<_> = self.services.iter().collect();
        services.sort_by_key(|(name, _)| name);
        for (name, endpoints) in services.into_iter().take(MAX_INVITE_SERVICES + 1) {
            put_service(&mut out, name, endpoints);
        }
        if let Some(expires) = self.expires {
            put(&mut out, EXPIRES, &[&expires.to_be_bytes()]);
        }
        out
    }
}

fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(kind);
    out.extend((length as u16).to_be_bytes()); // the callers cut every value to its limit
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn put_service(out: &mut Vec<u8>, name: &ServiceName, endpoints: &[Endpoint]) {
    let mut endpoints = endpoints.to_vec();
    endpoints.sort_unstable();
    endpoints.dedup();
    let list: Vec<u8> = endpoints
        .iter()
        .take(MAX_SERVICE_ENDPOINTS + 1)
        .flat_map(|endpoint| {
            let port = endpoint.port().to_be_bytes();
            [endpoint.protocol().number(), port[0], port[1]]
        })
        .collect();
    let name = name.as_str().as_bytes();
    put(out, SERVICE, &[&[name.len() as u8], name, &list]); // a name has at most 32 bytes
}

/// Takes `spa1-` off. Any other `spa...-` is ours too, of a version or form to come.
fn strip_prefix(text: &str) -> Result<&str, InviteError> {
    if text.len() > MAX_INVITE_LENGTH {
        return Err(InviteError::TooLong);
    }
    if let Some(body) = text.strip_prefix(PREFIX) {
        return Ok(body);
    }
    if text.starts_with(sealed::PREFIX) {
        return Err(InviteError::Encrypted);
    }
    let word = text.strip_prefix("spa").and_then(|rest| rest.split_once('-')).map(|(word, _)| word);
    let ours = word.is_some_and(|word| {
        (1..=4).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    Err(if ours { InviteError::OtherVersion } else { InviteError::NotAnInvite })
}

/// The fields met so far.
#[derive(Default)]
struct Found {
    client: Option<ClientName>,
    address: Option<String>,
    port: Option<u16>,
    server: Option<PublicKey>,
    cloaks: Vec<CloakKey>,
    psk: Option<Psk>,
    secret: Option<SecretKey>,
    services: Vec<(ServiceName, Vec<Endpoint>)>,
    expires: Option<u64>,
}

fn parse_fields(mut bytes: &[u8]) -> Result<Invite, InviteError> {
    let mut found = Found::default();
    let mut previous = 0;
    while let Some((&kind, rest)) = bytes.split_first() {
        let (length, rest) = rest.split_first_chunk().ok_or(InviteError::Field(kind))?;
        let (value, rest) = rest
            .split_at_checked(u16::from_be_bytes(*length).into())
            .filter(|_| kind >= previous && kind != 0)
            .ok_or(InviteError::Field(kind))?;
        found.field(kind, value)?;
        (previous, bytes) = (kind, rest);
    }
    if found.cloaks.is_empty() {
        return Err(InviteError::Missing("cloak key"));
    }
    Ok(Invite {
        client: found.client.ok_or(InviteError::Missing("client name"))?,
        address: found.address.ok_or(InviteError::Missing("address"))?,
        port: found.port.ok_or(InviteError::Missing("port"))?,
        server: found.server.ok_or(InviteError::Missing("server key"))?,
        cloaks: found.cloaks,
        psk: found.psk.ok_or(InviteError::Missing("psk"))?,
        secret: found.secret,
        services: found.services,
        expires: found.expires,
    })
}

impl Found {
    fn field(&mut self, kind: u8, value: &[u8]) -> Result<(), InviteError> {
        let valid = match kind {
            CLIENT => once(&mut self.client, string(value).and_then(|name| name.parse().ok())),
            ADDRESS => once(&mut self.address, string(value).filter(|text| is_host(text)).map(str::to_owned)),
            PORT => once(&mut self.port, array(value).map(u16::from_be_bytes).filter(|port| *port != 0)),
            SERVER => once(&mut self.server, array(value).and_then(|key| PublicKey::from_bytes(key).ok())),
            CLOAK => self.cloak(value),
            PSK => once(&mut self.psk, key(value).map(|key| Psk::from_bytes(*key))),
            SECRET => once(&mut self.secret, key(value).map(|key| SecretKey::from_bytes(*key))),
            SERVICE => self.service(value),
            EXPIRES => once(&mut self.expires, array(value).map(u64::from_be_bytes)),
            _ if kind & CRITICAL != 0 => return Err(InviteError::UnknownField(kind)),
            _ => Some(()),
        };
        valid.ok_or(InviteError::Field(kind))
    }

    fn cloak(&mut self, value: &[u8]) -> Option<()> {
        let cloak = CloakKey::from_bytes(*key(value)?);
        if self.cloaks.len() == MAX_CLOAK_KEYS || self.cloaks.contains(&cloak) {
            return None;
        }
        self.cloaks.push(cloak);
        Some(())
    }

    fn service(&mut self, value: &[u8]) -> Option<()> {
        let (&length, rest) = value.split_first()?;
        let (name, list) = rest.split_at_checked(length.into())?;
        let name: ServiceName = string(name)?.parse().ok()?;
        let endpoints: Vec<Endpoint> = list.chunks(ENDPOINT_LENGTH).map(endpoint).collect::<Option<_>>()?;
        let fits = (1..=MAX_SERVICE_ENDPOINTS).contains(&endpoints.len())
            && endpoints.is_sorted_by(|a, b| a < b)
            && self.services.len() < MAX_INVITE_SERVICES
            && self.services.last().is_none_or(|(last, _)| *last < name);
        fits.then(|| self.services.push((name, endpoints)))
    }
}

/// Sets what was not set yet.
fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Option<()> {
    if slot.is_some() {
        return None;
    }
    *slot = Some(value?);
    Some(())
}

fn string(value: &[u8]) -> Option<&str> {
    core::str::from_utf8(value).ok()
}

fn array<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

fn key(value: &[u8]) -> Option<Zeroizing<[u8; KEY_LENGTH]>> {
    array(value).map(Zeroizing::new)
}

fn endpoint(bytes: &[u8]) -> Option<Endpoint> {
    let [protocol, high, low] = array(bytes)?;
    Endpoint::new(Protocol::from_number(protocol)?, u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests;
