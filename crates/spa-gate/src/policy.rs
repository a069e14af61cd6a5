//! Policy: what a client may open, for which address, for how long. It never widens a request.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use spa_proto::{
    Address, ClientName, Endpoint, NANOS_PER_SECOND, Network, PublicKey, Request, Requests, ServiceName,
};

use crate::address::is_martian;
use crate::leases::Mode;
use crate::reason::Reason;
use crate::time::Now;

/// [`JudgeSettings::max_grants`] where the configuration says nothing.
pub const DEFAULT_MAX_GRANTS: u32 = 1_000;
/// [`ClientPolicy::max_grants`] where the configuration says nothing.
pub const DEFAULT_MAX_GRANTS_PER_CLIENT: u32 = 64;

/// What the judge goes by.
#[derive(Clone, Debug)]
pub struct JudgeSettings {
    /// The endpoints of each service.
    pub services: BTreeMap<ServiceName, Vec<Endpoint>>,
    /// How far a packet's counter may be from our clock, either way: taken into 5 s to 10 min, in whole seconds.
    pub max_age: Duration,
    /// How long a grant lasts where the client names no duration.
    pub open_for: Duration,
    /// How long a grant lasts at most.
    pub max_open_for: Duration,
    /// Most leases at once. When full, what would add one is refused (`full`); renewing and closing go on.
    pub max_grants: u32,
    /// The clients; of two for one key or one name the last counts.
    pub clients: Vec<ClientPolicy>,
}

/// What one client may do.
#[derive(Clone, Debug)]
pub struct ClientPolicy {
    /// What its leases are called by.
    pub name: ClientName,
    /// Its public key.
    pub key: PublicKey,
    /// The services it may open. Empty, or a service that does not exist: nothing.
    pub allow: Vec<ServiceName>,
    /// The addresses it may open for, in every address mode; where the packet itself comes from proves nothing and
    /// is not restricted. Empty: any.
    pub sources: Vec<Network>,
    /// Whether only packets that are bound to their address may open.
    pub require_bound: bool,
    /// Whether it may open for an address that it names, wherever the packet comes from.
    pub allow_explicit: bool,
    /// How long its grants last at most, where that is less than the server's limit.
    pub max_open_for: Option<Duration>,
    /// Most leases of its own at once. When full, what would add one is refused (`too-many-grants`).
    pub max_grants: u32,
    /// When its enrolment ends, Unix seconds: from then on it opens nothing, and nothing of it is open.
    pub valid_until: Option<u64>,
    /// When its invite lapses, Unix seconds: a client that has not knocked before is not let in from then on.
    pub first_knock_by: Option<u64>,
}

impl ClientPolicy {
    /// Whether the enrolment has ended.
    pub(crate) fn has_expired(&self, now: Now) -> bool {
        self.valid_until_nanos().is_some_and(|end| end <= now.wall)
    }

    /// Whether the time for the first knock is over.
    pub(crate) fn is_late_for_the_first_knock(&self, now: Now) -> bool {
        self.first_knock_by.is_some_and(|end| end.saturating_mul(NANOS_PER_SECOND) <= now.wall)
    }

    /// When the enrolment ends, boot-time clock.
    pub(crate) fn valid_until_boot(&self, now: Now) -> Option<Duration> {
        self.valid_until_nanos().map(|end| now.boot_at(end))
    }

    fn valid_until_nanos(&self) -> Option<u64> {
        self.valid_until.map(|seconds| seconds.saturating_mul(NANOS_PER_SECOND))
    }
}

/// The settings with their clients by key and by name.
pub(crate) struct Policy {
    settings: JudgeSettings,
    by_key: HashMap<PublicKey, usize>,
    by_name: HashMap<ClientName, usize>,
    own: BTreeSet<IpAddr>,
    has_ending_enrolments: bool,
}

impl Policy {
    pub(crate) fn new(settings: JudgeSettings) -> Self {
        let by_name: HashMap<_, _> =
            settings.clients.iter().enumerate().map(|(i, client)| (client.name.clone(), i)).collect();
        let by_key = settings
            .clients
            .iter()
            .enumerate()
            .filter(|(i, client)| by_name.get(&client.name) == Some(i))
            .map(|(i, client)| (client.key, i))
            .collect();
        let has_ending_enrolments = settings.clients.iter().any(|client| client.valid_until.is_some());
        Self { settings, by_key, by_name, own: BTreeSet::new(), has_ending_enrolments }
    }

    pub(crate) const fn settings(&self) -> &JudgeSettings {
        &self.settings
    }

    pub(crate) fn client(&self, key: &PublicKey) -> Option<&ClientPolicy> {
        self.by_key.get(key).map(|index| &self.settings.clients[*index])
    }

    /// Forgets a client; its name, if this was its key.
    pub(crate) fn forget(&mut self, key: &PublicKey) -> Option<ClientName> {
        let index = self.by_key.remove(key)?;
        let name = self.settings.clients[index].name.clone();
        self.by_name.remove(&name);
        Some(name)
    }

    pub(crate) fn client_named(&self, name: &ClientName) -> Option<&ClientPolicy> {
        self.by_name.get(name).map(|index| &self.settings.clients[*index])
    }

    /// Whether any client's enrolment has an end.
    pub(crate) const fn has_ending_enrolments(&self) -> bool {
        self.has_ending_enrolments
    }

    pub(crate) fn set_own_addresses(&mut self, own: BTreeSet<IpAddr>) {
        self.own = own;
    }

    pub(crate) fn take_own_addresses(&mut self) -> BTreeSet<IpAddr> {
        core::mem::take(&mut self.own)
    }

    /// Whether a client may open by this way of naming an address.
    pub(crate) fn check_mode(&self, client: &ClientPolicy, mode: Mode) -> Result<(), Reason> {
        match mode {
            Mode::Explicit if !client.allow_explicit => Err(Reason::Explicit),
            Mode::Observed | Mode::Explicit if client.require_bound => Err(Reason::BoundRequired),
            _ => Ok(()),
        }
    }

    /// Whether a client may open for this address.
    pub(crate) fn check_address(&self, client: &ClientPolicy, address: IpAddr) -> Result<(), Reason> {
        if is_martian(address) {
            return Err(Reason::Martian);
        }
        if self.own.contains(&address) {
            return Err(Reason::OwnAddress);
        }
        if !client.sources.is_empty() && !client.sources.iter().any(|network| network.contains(address)) {
            return Err(Reason::Source);
        }
        Ok(())
    }

    /// Whether an endpoint lies in a service that the client may open.
    pub(crate) fn allows_endpoint(&self, client: &ClientPolicy, endpoint: Endpoint) -> bool {
        client
            .allow
            .iter()
            .filter_map(|service| self.settings.services.get(service))
            .any(|endpoints| endpoints.contains(&endpoint))
    }

    /// The endpoints of all requests, or the refusal of the first that is not allowed.
    pub(crate) fn allowed_endpoints(
        &self,
        client: &ClientPolicy,
        requests: &Requests,
    ) -> Result<BTreeSet<Endpoint>, Reason> {
        let mut all = BTreeSet::new();
        for request in requests.as_slice() {
            match request {
                Request::Endpoint(endpoint) if self.allows_endpoint(client, *endpoint) => {
                    all.insert(*endpoint);
                }
                Request::Endpoint(_) => return Err(Reason::NotAllowed),
                Request::Service(name) => {
                    let endpoints = self.settings.services.get(name).ok_or(Reason::Service)?;
                    if !client.allow.contains(name) || endpoints.is_empty() {
                        return Err(Reason::NotAllowed);
                    }
                    all.extend(endpoints);
                }
            }
        }
        Ok(all)
    }

    /// The endpoints that requests name, allowed or not; an unknown service names none.
    pub(crate) fn named_endpoints(&self, requests: &Requests) -> BTreeSet<Endpoint> {
        let mut all = BTreeSet::new();
        for request in requests.as_slice() {
            match request {
                Request::Endpoint(endpoint) => {
                    all.insert(*endpoint);
                }
                Request::Service(name) => all.extend(self.settings.services.get(name).into_iter().flatten()),
            }
        }
        all
    }

    /// The longest that a client's grant may last.
    pub(crate) fn longest(&self, client: &ClientPolicy) -> Duration {
        self.settings.max_open_for.min(client.max_open_for.unwrap_or(Duration::MAX))
    }

    /// How long a grant lasts where the client wants so many seconds; 0 is the default.
    pub(crate) fn duration(&self, client: &ClientPolicy, seconds: u32) -> Duration {
        let wanted =
            if seconds == 0 { self.settings.open_for } else { Duration::from_secs(u64::from(seconds)) };
        wanted.min(self.longest(client))
    }
}

/// The address to open for, with the way it was named.
pub(crate) fn address_to_open(address: Address, source: IpAddr) -> (IpAddr, Mode) {
    match address {
        Address::Observed => (source, Mode::Observed),
        Address::Bound(_) => (source, Mode::Bound), // equal: the judge has checked
        Address::Explicit(address) => (address.to_canonical(), Mode::Explicit),
    }
}
