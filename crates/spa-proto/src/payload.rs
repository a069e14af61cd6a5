//! The payload, a [`Knock`]: what a client asks for. Encoding is canonical; decoding refuses everything else.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind: 1 open, 2 close |
//! | 2 | 1 | address mode: 0 observed, 1 bound, 2 explicit |
//! | 3 | 1 | number of requests: open 1 to 8, close 0 to 8 |
//! | 4 | 8 | counter: Unix nanoseconds |
//! | 12 | 4 | seconds wanted, 0 for the server's default; 0 for close |
//! | 16 | 16 | address, IPv4 as IPv4-mapped; zero if and only if observed |
//! | 32 | 2 | length X of the extensions |
//! | 34 | | requests, then X bytes of extensions, then zero padding |

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

use crate::endpoint::{Endpoint, Protocol};
use crate::service::ServiceName;

/// Most requests in one knock.
pub const MAX_REQUESTS: usize = 8;
/// Bytes before the first request.
const FIXED_LENGTH: usize = 34;
const VERSION: u8 = 1;
const REQUEST_ENDPOINT: u8 = 1;
const REQUEST_SERVICE: u8 = 2;
/// Bit 7 of an extension's type: whoever does not know it must refuse the packet.
const EXTENSION_CRITICAL: u8 = 0x80;

/// What a client asks of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knock {
    /// Open or close, and what.
    pub action: Action,
    /// Whose access is asked for.
    pub address: Address,
    /// Unix time in nanoseconds, strictly increasing per client.
    pub counter: u64,
}

/// Open or close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open all of the requests (1 to 8), or none of them, for so many seconds (0: the server's default).
    Open {
        /// What to open.
        requests: Requests,
        /// Seconds wanted; 0 is the server's default.
        seconds: u32,
    },
    /// Close the client's own grants for the requests (0 to 8); for none, all of its grants.
    Close {
        /// What to close.
        requests: Requests,
    },
}

/// The address mode, with the address where the packet carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// The address that the packet came from.
    Observed,
    /// This address, and the packet must have come from it.
    Bound(IpAddr),
    /// This address, wherever the packet came from.
    Explicit(IpAddr),
}

/// One thing asked for: a service by the server's name for it, or an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// A protocol and one port.
    Endpoint(Endpoint),
    /// A service of the server's configuration.
    Service(ServiceName),
}

impl Request {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Endpoint(endpoint) => {
                let port = endpoint.port().to_be_bytes();
                out.extend([
                    REQUEST_ENDPOINT,
                    endpoint.protocol().number(),
                    port[0],
                    port[1],
                    port[0],
                    port[1],
                ]);
            }
            Self::Service(name) => {
                out.push(REQUEST_SERVICE);
                out.push(name.as_str().len() as u8); // at most 32
                out.extend(name.as_str().as_bytes());
            }
        }
    }

    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 + ServiceName::MAX_LENGTH);
        self.encode(&mut out);
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        match reader.byte()? {
            REQUEST_ENDPOINT => {
                let protocol = Protocol::from_number(reader.byte()?).ok_or(PayloadError::Request)?;
                let (low, high) = (reader.u16()?, reader.u16()?);
                if low != high {
                    return Err(PayloadError::Request);
                }
                Endpoint::new(protocol, low).map(Self::Endpoint).ok_or(PayloadError::Request)
            }
            REQUEST_SERVICE => {
                let length = usize::from(reader.byte()?);
                let name = core::str::from_utf8(reader.take(length)?).map_err(|_| PayloadError::Request)?;
                name.parse().map(Self::Service).map_err(|_| PayloadError::Request)
            }
            _ => Err(PayloadError::Request),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(endpoint) => endpoint.fmt(f),
            Self::Service(name) => name.fmt(f),
        }
    }
}

/// At most eight requests, in the strictly ascending order of their encodings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(Vec<Request>);

impl Requests {
    /// Sorts, and drops repetitions. `None` where more than [`MAX_REQUESTS`] remain.
    pub fn new(requests: impl IntoIterator<Item = Request>) -> Option<Self> {
        let mut requests: Vec<Request> = requests.into_iter().collect();
        requests.sort_by_cached_key(Request::encoded);
        requests.dedup();
        (requests.len() <= MAX_REQUESTS).then_some(Self(requests))
    }

    /// The requests, in order.
    pub fn as_slice(&self) -> &[Request] {
        &self.0
    }
}

/// Why a payload was refused. It was authentic, so the fault is the client program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// It ends too early.
    Truncated,
    /// A version other than 1.
    Version,
    /// An unknown kind, or one whose fields do not fit it.
    Kind,
    /// An unknown address mode, or an address that does not fit it.
    Address,
    /// A wrong number of requests, one that is malformed, or requests out of order.
    Request,
    /// Extensions out of order or malformed.
    Extension,
    /// A critical extension that this version does not know, by its type.
    UnknownCritical(u8),
    /// Padding that is not zero.
    Padding,
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the payload is truncated"),
            Self::Version => f.write_str("the payload's version is not 1"),
            Self::Kind => f.write_str("the payload's kind is unknown or its fields do not fit it"),
            Self::Address => f.write_str("the address does not fit the address mode"),
            Self::Request => f.write_str("the requests are malformed"),
            Self::Extension => f.write_str("the extensions are malformed"),
            Self::UnknownCritical(kind) => write!(f, "the critical extension {kind} is unknown"),
            Self::Padding => f.write_str("the padding is not zero"),
        }
    }
}

impl core::error::Error for PayloadError {}

impl Knock {
    /// The encoding without its padding: 34 to 306 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, requests, seconds) = match &self.action {
            Action::Open { requests, seconds } => (1, requests, *seconds),
            Action::Close { requests } => (2, requests, 0),
        };
        let (mode, address) = match self.address {
            Address::Observed => (0, [0; 16]),
            Address::Bound(address) => (1, octets(address)),
            Address::Explicit(address) => (2, octets(address)),
        };
        let mut out = Vec::with_capacity(FIXED_LENGTH + MAX_REQUESTS * (2 + ServiceName::MAX_LENGTH));
        out.extend([VERSION, kind, mode, requests.0.len() as u8]); // at most 8
        out.extend(self.counter.to_be_bytes());
        out.extend(seconds.to_be_bytes());
        out.extend(address);
        out.extend(0u16.to_be_bytes()); // version 1 defines no extension
        for request in &requests.0 {
            request.encode(&mut out);
        }
        out
    }

    /// Reads a payload with its padding.
    ///
    /// # Errors
    /// [`PayloadError`] for everything that [`Self::encode`] with any zero padding, and with any extensions that
    /// may be skipped, does not make.
    pub fn decode(payload: &[u8]) -> Result<Self, PayloadError> {
        let mut reader = Reader(payload);
        if reader.byte()? != VERSION {
            return Err(PayloadError::Version);
        }
        let (kind, mode, count) = (reader.byte()?, reader.byte()?, usize::from(reader.byte()?));
        let counter = u64::from_be_bytes(reader.array()?);
        let seconds = u32::from_be_bytes(reader.array()?);
        let address = decode_address(mode, reader.array()?)?;
        let extensions = usize::from(reader.u16()?);
        let requests = decode_requests(&mut reader, count)?;
        check_extensions(reader.take(extensions)?)?;
        if reader.0.iter().any(|byte| *byte != 0) {
            return Err(PayloadError::Padding);
        }
        let action = match kind {
            1 if count == 0 => return Err(PayloadError::Request),
            1 => Action::Open { requests, seconds },
            2 if seconds == 0 => Action::Close { requests },
            _ => return Err(PayloadError::Kind),
        };
        Ok(Self { action, address, counter })
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn decode_address(mode: u8, octets: [u8; 16]) -> Result<Address, PayloadError> {
    // IPv4-mapped is IPv4; so ::ffff:192.0.2.1 and 192.0.2.1 are one address, as everywhere in this protocol.
    let address = Ipv6Addr::from(octets).to_canonical();
    match (mode, octets == [0; 16]) {
        (0, true) => Ok(Address::Observed),
        (1, false) => Ok(Address::Bound(address)),
        (2, false) => Ok(Address::Explicit(address)),
        _ => Err(PayloadError::Address),
    }
}

fn decode_requests(reader: &mut Reader<'_>, count: usize) -> Result<Requests, PayloadError> {
    if count > MAX_REQUESTS {
        return Err(PayloadError::Request);
    }
    let mut requests = Vec::with_capacity(count);
    let mut previous: &[u8] = &[];
    for _ in 0..count {
        let start = reader.0;
        requests.push(Request::decode(reader)?);
        let encoded = &start[..start.len() - reader.0.len()];
        if encoded <= previous {
            return Err(PayloadError::Request);
        }
        previous = encoded;
    }
    Ok(Requests(requests))
}

/// Type, length, value; types strictly ascending. Version 1 defines none, so a critical one is always unknown.
fn check_extensions(bytes: &[u8]) -> Result<(), PayloadError> {
    let mut reader = Reader(bytes);
    let mut previous = None;
    while !reader.0.is_empty() {
        let kind = reader.byte().map_err(|_| PayloadError::Extension)?;
        let length = reader.byte().map_err(|_| PayloadError::Extension)?;
        reader.take(usize::from(length)).map_err(|_| PayloadError::Extension)?;
        if previous.is_some_and(|previous| kind <= previous) {
            return Err(PayloadError::Extension);
        }
        if kind & EXTENSION_CRITICAL != 0 {
            return Err(PayloadError::UnknownCritical(kind));
        }
        previous = Some(kind);
    }
    Ok(())
}

/// Takes bytes from the front, or says that there are too few.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], PayloadError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(PayloadError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(PayloadError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, PayloadError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, PayloadError> {
        self.array().map(u16::from_be_bytes)
    }
}
