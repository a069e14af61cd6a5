//! What should stand in the firewall.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use spa_proto::{ClientName, Endpoint};

use crate::names::Except;

/// An address family. Everything is done for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which they are written.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address as it stands (an IPv4-mapped address counts as IPv6).
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The length of an address in bits: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The standing part: what is closed to everyone without a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// The UDP port that knocks come to, not 0. Always dropped, so that no ICMP error gives the host away.
    pub spa_port: u16,
    /// Whether the services are dropped here; `false` leaves that to the administrator's own rules.
    pub protect: bool,
    /// Never filtered: returned to the administrator's own rules before anything else.
    pub except: Vec<Except>,
    /// The protected services.
    pub services: BTreeSet<Endpoint>,
    /// The kernel itself lifts the drops at this wall-clock time (within a second after): `run --confirm`.
    pub provisional_until: Option<SystemTime>,
}

/// Who may reach what. A renewal has the same key.
///
/// In order, the grants of one [`Opening`] stand together, and IPv4 comes before IPv6.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantKey {
    /// The one source address it is open for; IPv4 as IPv4, never mapped.
    pub source: IpAddr,
    /// The service it is open to.
    pub endpoint: Endpoint,
    /// The client that knocked.
    pub client: ClientName,
}

impl GrantKey {
    /// Builds the key, folding an IPv4-mapped address.
    pub fn new(client: ClientName, source: IpAddr, endpoint: Endpoint) -> Self {
        Self { source: source.to_canonical(), endpoint, client }
    }

    /// The family of the source.
    pub fn family(&self) -> Family {
        Family::of(self.source)
    }

    /// What it opens.
    pub fn opening(&self) -> Opening {
        Opening { source: self.source, endpoint: self.endpoint }
    }
}

/// What a packet can be told by: several clients behind one address share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Opening {
    /// From this address.
    pub source: IpAddr,
    /// To this service.
    pub endpoint: Endpoint,
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.source, self.endpoint)
    }
}

impl fmt::Display for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.client, self.source, self.endpoint)
    }
}

/// When a grant is open, by the wall clock, which is what the kernel compares with. The daemon keeps the precise
/// expiry on the boot-time clock and rewrites this when the wall clock is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Open from here on.
    pub from: SystemTime,
    /// Closed from here on; the kernel closes less than a second after.
    pub until: SystemTime,
}

/// Everything that should stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `None`: no trace of us at all, and the grants are ignored.
    pub protection: Option<Protection>,
    /// The open grants. Only named services matter to the kernel, but nothing here checks policy.
    pub grants: BTreeMap<GrantKey, Lifetime>,
}
