//! Messages as bytes: one kind, then its fields, then zeros to [`MESSAGE_LENGTH`]. Integers are big-endian.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use spa_gate::{Candidate, Ciphertext, MAX_CIPHERTEXT, Outcome, Reason};
use spa_proto::{CloakKey, GateKeys, PublicKey, SecretKey, SharedSecret};
use zeroize::Zeroizing;

use super::{Confinement, Counts, FromVerifier, FromWarden, Handover};

/// Bytes in every message.
pub const MESSAGE_LENGTH: usize = 704;
/// Most interfaces in one message.
const MAX_INTERFACES: usize = spa_capture::MAX_INTERFACES;
const MAX_CLOAKS: usize = spa_proto::MAX_CLOAK_KEYS;

const READY: u8 = 1;
const CANDIDATE: u8 = 2;
const SKEW: u8 = 3;
const COUNTS: u8 = 4;
const STALE_INTERFACES: u8 = 5;
const BEGIN: u8 = 16;
const CLIENT: u8 = 17;
const COMMIT: u8 = 18;
/// Carries a descriptor beside it; see [`super::socket`].
pub(super) const CAPTURE: u8 = 19;
const INTERFACES: u8 = 20;
const SETTLE: u8 = 21;
const COUNT: u8 = 22;

/// A message that is none; its sender is broken or taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed message between the daemon's processes")
    }
}

impl std::error::Error for Malformed {}

/// The bytes of a message, wiped on drop.
pub type Bytes = Zeroizing<[u8; MESSAGE_LENGTH]>;

struct Writer {
    bytes: Bytes,
    at: usize,
}

impl Writer {
    fn new(kind: u8) -> Self {
        let mut writer = Self { bytes: Zeroizing::new([0; MESSAGE_LENGTH]), at: 0 };
        writer.put(&[kind]);
        writer
    }

    /// Every message fits, which the tests show.
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }

    fn address(&mut self, address: IpAddr) -> &mut Self {
        self.put(&match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        })
    }

    fn socket_address(&mut self, address: SocketAddr) -> &mut Self {
        self.address(address.ip()).put(&address.port().to_be_bytes())
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.take().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_be_bytes)
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.take()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn address(&mut self) -> Result<IpAddr, Malformed> {
        self.take::<16>().map(|octets| Ipv6Addr::from(octets).to_canonical())
    }

    fn socket_address(&mut self) -> Result<SocketAddr, Malformed> {
        Ok(SocketAddr::new(self.address()?, self.u16()?))
    }

    fn public_key(&mut self) -> Result<PublicKey, Malformed> {
        PublicKey::from_bytes(self.take()?).map_err(|_| Malformed)
    }
}

impl FromVerifier {
    /// The message as bytes.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Ready(confinement) => {
                let mut writer = Writer::new(READY);
                let flags = [confinement.other_user, confinement.landlock, confinement.seccomp];
                writer.put(&flags.map(u8::from));
                writer.bytes
            }
            Self::Candidate(handover) => encode_candidate(handover),
            Self::Skew { source, seconds } => {
                let mut writer = Writer::new(SKEW);
                writer.socket_address(*source).put(&seconds.to_be_bytes());
                writer.bytes
            }
            Self::Counts(counts) => {
                let mut writer = Writer::new(COUNTS);
                for reason in Reason::ALL {
                    writer.put(&counts.refused(reason).to_be_bytes());
                }
                for count in [counts.passed, counts.dropped, counts.diffie_hellman] {
                    writer.put(&count.to_be_bytes());
                }
                writer.bytes
            }
            Self::StaleInterfaces => Writer::new(STALE_INTERFACES).bytes,
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        match reader.take()? {
            [READY] => Ok(Self::Ready(Confinement {
                other_user: reader.flag()?,
                landlock: reader.flag()?,
                seccomp: reader.flag()?,
            })),
            [CANDIDATE] => decode_candidate(&mut reader).map(|handover| Self::Candidate(Box::new(handover))),
            [SKEW] => {
                let source = reader.socket_address()?;
                Ok(Self::Skew { source, seconds: reader.take().map(i64::from_be_bytes)? })
            }
            [COUNTS] => {
                let mut counts = Counts::default();
                for counter in &mut counts.refused {
                    *counter = reader.u64()?;
                }
                (counts.passed, counts.dropped) = (reader.u64()?, reader.u64()?);
                counts.diffie_hellman = reader.u64()?;
                Ok(Self::Counts(counts))
            }
            [STALE_INTERFACES] => Ok(Self::StaleInterfaces),
            _ => Err(Malformed),
        }
    }
}

fn encode_candidate(handover: &Handover) -> Bytes {
    let candidate = &handover.candidate;
    let ciphertext = candidate.ciphertext.as_slice();
    let mut writer = Writer::new(CANDIDATE);
    writer
        .put(candidate.client.as_bytes())
        .put(&candidate.cloak)
        .put(&candidate.tag)
        .put(&candidate.nonce)
        .put(&candidate.time.to_be_bytes())
        .put(&candidate.hint)
        .put(&candidate.ephemeral)
        .put(candidate.es.expose())
        .socket_address(candidate.source)
        .address(handover.destination)
        .put(&(ciphertext.len() as u16).to_be_bytes()) // at most MAX_CIPHERTEXT
        .put(ciphertext);
    writer.bytes
}

fn decode_candidate(reader: &mut Reader<'_>) -> Result<Handover, Malformed> {
    let client = reader.public_key()?;
    let (cloak, tag, nonce) = (reader.take()?, reader.take()?, reader.take()?);
    let time = reader.take().map(u32::from_be_bytes)?;
    let (hint, ephemeral) = (reader.take()?, reader.take()?);
    let es = SharedSecret::from_bytes(reader.take()?);
    let (source, destination) = (reader.socket_address()?, reader.address()?);
    let length = usize::from(reader.u16()?);
    let ciphertext = reader.take::<MAX_CIPHERTEXT>()?;
    let ciphertext = ciphertext.get(..length).and_then(Ciphertext::new).ok_or(Malformed)?;
    Ok(Handover {
        candidate: Candidate { client, cloak, tag, nonce, time, hint, ephemeral, es, ciphertext, source },
        destination,
    })
}

impl FromWarden {
    /// The message as bytes. The descriptor of [`Self::Capture`] goes beside them.
    ///
    /// # Panics
    /// With more cloak keys or interfaces than a message holds, which the configuration does not let through.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Begin { server, cloaks, max_age } => {
                assert!(cloaks.len() <= MAX_CLOAKS, "more cloak keys than a key file has");
                let mut writer = Writer::new(BEGIN);
                writer.put(server.expose()).put(&max_age.as_secs().to_be_bytes()).put(&[cloaks.len() as u8]);
                for cloak in cloaks {
                    writer.put(cloak.expose());
                }
                writer.bytes
            }
            Self::Client(key, gate) => {
                let mut writer = Writer::new(CLIENT);
                writer.put(key.as_bytes()).put(&*gate.to_bytes());
                writer.bytes
            }
            Self::Commit => Writer::new(COMMIT).bytes,
            Self::Capture { family, port, thread, .. } => {
                let mut writer = Writer::new(CAPTURE);
                writer.put(&[u8::from(*family == spa_capture::Family::V6)]).put(&port.to_be_bytes());
                writer.put(&[*thread]);
                writer.bytes
            }
            Self::Interfaces(indexes) => {
                let mut writer = Writer::new(INTERFACES);
                writer.put(&[u8::from(indexes.is_some())]);
                let indexes = indexes.as_deref().unwrap_or_default();
                assert!(indexes.len() <= MAX_INTERFACES, "more interfaces than can be named");
                writer.put(&[indexes.len() as u8]);
                for index in indexes {
                    writer.put(&index.to_be_bytes());
                }
                writer.bytes
            }
            Self::Settle(tag, outcome) => {
                let mut writer = Writer::new(SETTLE);
                writer.put(tag);
                match outcome {
                    Outcome::Spent => writer.put(&[0]),
                    Outcome::BoundTo(address) => writer.put(&[1]).address(*address),
                };
                writer.bytes
            }
            Self::Count => Writer::new(COUNT).bytes,
        }
    }

    /// Reads a message that comes without a descriptor.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        match reader.take()? {
            [BEGIN] => {
                let server = SecretKey::from_bytes(reader.take()?);
                let max_age = Duration::from_secs(reader.u64()?);
                let [count] = reader.take()?;
                if !(1..=MAX_CLOAKS).contains(&usize::from(count)) {
                    return Err(Malformed);
                }
                let cloaks =
                    (0..count).map(|_| reader.take().map(CloakKey::from_bytes)).collect::<Result<_, _>>()?;
                Ok(Self::Begin { server, cloaks, max_age })
            }
            [CLIENT] => Ok(Self::Client(reader.public_key()?, GateKeys::from_bytes(&reader.take()?))),
            [COMMIT] => Ok(Self::Commit),
            [INTERFACES] => {
                let named = reader.flag()?;
                let [count] = reader.take()?;
                let indexes =
                    (0..count).map(|_| reader.take().map(u32::from_be_bytes)).collect::<Result<_, _>>()?;
                Ok(Self::Interfaces(named.then_some(indexes)))
            }
            [SETTLE] => {
                let tag = reader.take()?;
                let bound = reader.flag()?;
                Ok(Self::Settle(
                    tag,
                    if bound { Outcome::BoundTo(reader.address()?) } else { Outcome::Spent },
                ))
            }
            [COUNT] => Ok(Self::Count),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn handover(length: usize) -> Handover {
        Handover {
            candidate: Candidate {
                client: SecretKey::from_bytes([1; 32]).public_key(),
                cloak: [9; 4],
                tag: [2; 16],
                nonce: [3; 12],
                time: 4,
                hint: [5; 8],
                ephemeral: [6; 32],
                es: SharedSecret::from_bytes([7; 32]),
                ciphertext: Ciphertext::new(&vec![8; length]).unwrap(),
                source: "192.0.2.1:1234".parse().unwrap(),
            },
            destination: "2001:db8::1".parse().unwrap(),
        }
    }

    fn read(bytes: &Bytes) -> FromWarden {
        FromWarden::decode(&**bytes).unwrap_or_else(|_| panic!("kind {}", bytes[0]))
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for length in [176, MAX_CIPHERTEXT] {
            let message = FromVerifier::Candidate(Box::new(handover(length)));
            let FromVerifier::Candidate(read) = FromVerifier::decode(&*message.encode()).unwrap() else {
                panic!()
            };
            assert_eq!((read.candidate.ciphertext.as_slice().len(), read.candidate.cloak), (length, [9; 4]));
            assert_eq!(encode_candidate(&read), message.encode());
        }
        let cloaks = vec![CloakKey::from_bytes([1; 32]); MAX_CLOAKS];
        let gate = spa_proto::GateKeys::from_bytes(&[9; 32]);
        for message in [
            FromWarden::Begin {
                server: SecretKey::from_bytes([1; 32]),
                cloaks,
                max_age: Duration::from_secs(60),
            },
            FromWarden::Client(SecretKey::from_bytes([1; 32]).public_key(), gate),
            FromWarden::Commit,
            FromWarden::Interfaces(None),
            FromWarden::Interfaces(Some(vec![u32::MAX; MAX_INTERFACES])),
            FromWarden::Settle([1; 16], Outcome::Spent),
            FromWarden::Settle([1; 16], Outcome::BoundTo("192.0.2.1".parse().unwrap())),
            FromWarden::Count,
        ] {
            let bytes = message.encode();
            assert_eq!(read(&bytes).encode(), bytes, "kind {}", bytes[0]);
        }
        let mut counts = Counts { passed: 1, dropped: 2, diffie_hellman: 3, ..Counts::default() };
        counts.refused[Reason::Full as usize] = u64::MAX;
        for message in [
            FromVerifier::Counts(counts),
            FromVerifier::Ready(Confinement { other_user: true, landlock: false, seccomp: true }),
            FromVerifier::Skew { source: "[2001:db8::1]:7".parse().unwrap(), seconds: -90 },
            FromVerifier::StaleInterfaces,
        ] {
            let bytes = message.encode();
            assert_eq!(FromVerifier::decode(&*bytes).unwrap().encode(), bytes, "{message:?}");
        }
    }

    proptest! {
        /// A verifier that was taken over can send any bytes.
        #[test]
        fn any_bytes_are_a_message_or_an_error(kind in 0u8..24, bytes in proptest::collection::vec(any::<u8>(), 0..MESSAGE_LENGTH)) {
            let mut message = vec![kind];
            message.extend(bytes);
            let _ = FromVerifier::decode(&message);
            let _ = FromWarden::decode(&message);
        }
    }
}
