//! Leases: what is open, for whom, until when. Bounded by the policy's caps.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use spa_proto::{ClientName, Endpoint, Protocol, PublicKey};

use crate::time::{Now, nanos};

/// What a lease opens. There is never a second lease of the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// The client whose lease it is.
    pub client: ClientName,
    /// The one address it is open for; IPv4 as IPv4, never mapped.
    pub source: IpAddr,
    /// The protocol and port.
    pub endpoint: Endpoint,
}

/// How the address of a lease was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Observed,
    Bound,
    Explicit,
    /// Found in the kernel at start-up.
    Adopted,
}

/// How long a lease lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// When it was opened: Unix nanoseconds by the wall clock of that moment.
    pub granted: u64,
    /// When it was opened, boot-time clock.
    pub since: Duration,
    /// When it ends, boot-time clock: from this moment on it is closed.
    pub until: Duration,
    pub(crate) owner: PublicKey,
    pub(crate) mode: Mode,
    /// The counter of the newest knock that asked for it, so that a close that was held back ends nothing newer.
    pub(crate) counter: u64,
}

impl Lease {
    /// The wall clock at its opening, Unix nanoseconds, as the two clocks stand to each other now.
    pub fn wall_since(&self, now: Now) -> u64 {
        now.wall.saturating_sub(nanos(now.boot.saturating_sub(self.since)))
    }

    /// The wall clock at its end, Unix nanoseconds, as the two clocks stand to each other now: computed anew for
    /// the firewall after a clock step, so that the step moves no end.
    pub fn wall_until(&self, now: Now) -> u64 {
        now.wall.saturating_add(nanos(self.until.saturating_sub(now.boot)))
    }
}

/// Why a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its time was up.
    Expired,
    /// The client closed it.
    Closed,
    /// The administrator revoked it.
    Revoked,
    /// A new configuration no longer allows it.
    Policy,
}

impl End {
    /// The stable name, lower case, for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Closed => "closed",
            Self::Revoked => "revoked",
            Self::Policy => "policy",
        }
    }
}

/// A lease that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What it opened.
    pub key: LeaseKey,
    /// Its times.
    pub lease: Lease,
    /// Why it ended.
    pub why: End,
}

/// What a grant did to one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new lease.
    Opened(LeaseKey, Lease),
    /// A lease that now lasts longer.
    Renewed(LeaseKey, Lease),
    /// A lease that would have lasted as long anyway: renewing never shortens.
    Kept(LeaseKey, Lease),
    /// A lease that the client closed.
    Closed(Ended),
}

/// Which leases: those that fit everything it names. The default names nothing, so it is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Only this client's.
    pub client: Option<ClientName>,
    /// Only for this address.
    pub source: Option<IpAddr>,
    /// Only on this endpoint.
    pub endpoint: Option<Endpoint>,
}

impl Selector {
    pub(crate) fn fits(&self, key: &LeaseKey) -> bool {
        self.client.as_ref().is_none_or(|client| *client == key.client)
            && self.source.is_none_or(|source| source.to_canonical() == key.source)
            && self.endpoint.is_none_or(|endpoint| endpoint == key.endpoint)
    }
}

/// No endpoint is ordered before it.
const LEAST_ENDPOINT: Endpoint = match Endpoint::new(Protocol::Tcp, 1) {
    Some(endpoint) => endpoint,
    None => panic!("port 1 names an endpoint"), // at compile time
};

/// All leases, by key and by end.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: BTreeMap<LeaseKey, Lease>,
    by_end: BTreeSet<(Duration, LeaseKey)>,
}

impl Leases {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&LeaseKey, &Lease)> {
        self.leases.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn contains(&self, key: &LeaseKey) -> bool {
        self.leases.contains_key(key)
    }

    /// How many leases a client has.
    pub(crate) fn count(&self, client: &ClientName) -> usize {
        self.of(client).count()
    }

    /// A client's leases, without looking at those of others.
    fn of(&self, client: &ClientName) -> impl Iterator<Item = (&LeaseKey, &Lease)> {
        let first = LeaseKey {
            client: client.clone(),
            source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            endpoint: LEAST_ENDPOINT,
        };
        self.leases.range(first..).take_while(|(key, _)| key.client == *client)
    }

    /// When the next lease ends, boot-time clock.
    pub(crate) fn next_end(&self) -> Option<Duration> {
        self.by_end.first().map(|(end, _)| *end)
    }

    /// Opens or extends; never shortens, and leaves one lease of a key.
    pub(crate) fn open(&mut self, key: LeaseKey, lease: Lease) -> Change {
        let Some(old) = self.leases.get(&key) else {
            self.by_end.insert((lease.until, key.clone()));
            self.leases.insert(key.clone(), lease.clone());
            return Change::Opened(key, lease);
        };
        let counter = old.counter.max(lease.counter);
        if old.until >= lease.until {
            let kept = Lease { counter, ..old.clone() };
            self.leases.insert(key.clone(), kept.clone());
            return Change::Kept(key, kept);
        }
        let renewed = Lease { until: lease.until, mode: lease.mode, counter, ..old.clone() };
        self.by_end.remove(&(old.until, key.clone()));
        self.by_end.insert((renewed.until, key.clone()));
        self.leases.insert(key.clone(), renewed.clone());
        Change::Renewed(key, renewed)
    }

    /// Brings each lease's end forward to at most what `limit` says; a lease is never extended.
    pub(crate) fn shorten(&mut self, limit: impl Fn(&LeaseKey) -> Duration) {
        for (key, lease) in &mut self.leases {
            let until = limit(key);
            if until < lease.until {
                self.by_end.remove(&(lease.until, key.clone()));
                self.by_end.insert((until, key.clone()));
                lease.until = until;
            }
        }
    }

    /// Ends the leases whose time is up.
    pub(crate) fn expire(&mut self, now: Now) -> Vec<Ended> {
        let mut ended = Vec::new();
        while self.next_end().is_some_and(|end| end <= now.boot) {
            if let Some((_, key)) = self.by_end.pop_first()
                && let Some(lease) = self.leases.remove(&key)
            {
                ended.push(Ended { key, lease, why: End::Expired });
            }
        }
        ended
    }

    /// Ends the leases that `which` picks, of `client` alone where one is given.
    pub(crate) fn end(
        &mut self,
        why: End,
        client: Option<&ClientName>,
        which: impl Fn(&LeaseKey, &Lease) -> bool,
    ) -> Vec<Ended> {
        let picked = |(key, lease): (&LeaseKey, &Lease)| which(key, lease).then(|| key.clone());
        let keys: Vec<_> = match client {
            Some(client) => self.of(client).filter_map(picked).collect(),
            None => self.leases.iter().filter_map(picked).collect(),
        };
        let mut ended = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(lease) = self.leases.remove(&key) {
                self.by_end.remove(&(lease.until, key.clone()));
                ended.push(Ended { key, lease, why });
            }
        }
        ended
    }
}
