//! The warden's *judge*: replay, then policy, then leases.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeSet, HashSet};

use spa_proto::{Action, Address, Endpoint, Knock, PublicKey, Requests};

use crate::fresh::Window;
use crate::leases::{Change, End, Ended, Lease, LeaseKey, Leases, Mode, Selector};
use crate::policy::{ClientPolicy, JudgeSettings, Policy, address_to_open};
use crate::reason::{Reason, Refusal};
use crate::replay::Replays;
use crate::time::Now;

/// A knock that passed. Its counter is used up in memory, but nothing is open yet: first [`Self::record`] must be
/// durable, then [`Judge::grant`] takes it, once.
#[derive(Debug)]
pub struct Accepted {
    client: PublicKey,
    source: IpAddr,
    knock: Knock,
}

impl Accepted {
    /// What must be durable before the grant: the client's key and the counter used, Unix nanoseconds. The record
    /// of a client is the greatest of these.
    pub const fn record(&self) -> (PublicKey, u64) {
        (self.client, self.knock.counter)
    }

    /// Where the packet came from.
    pub const fn source(&self) -> IpAddr {
        self.source
    }

    /// What the client asks.
    pub const fn knock(&self) -> &Knock {
        &self.knock
    }
}

/// The replay state, the policy and the leases.
///
/// A packet that passes replay and is then refused by policy is used up in memory, but not recorded on disk: it is
/// never judged twice while the process lives. After a restart within max-age it may be judged once more; nothing
/// was opened by it, so nothing is opened twice.
pub struct Judge {
    policy: Policy,
    window: Window,
    replays: Replays,
    leases: Leases,
    /// Clients that have knocked before: their invites cannot lapse any more.
    proven: HashSet<PublicKey>,
}

impl Judge {
    /// A judge with no leases and no replay state: [`Self::restore`] comes next, and before any packet.
    pub fn new(settings: JudgeSettings) -> Self {
        Self {
            window: Window::new(settings.max_age),
            policy: Policy::new(settings),
            replays: Replays::default(),
            leases: Leases::default(),
            proven: HashSet::new(),
        }
    }

    /// Takes the clients that have a durable record of their own, which only an accepted knock makes.
    pub fn set_proven(&mut self, clients: impl IntoIterator<Item = PublicKey>) {
        self.proven.extend(clients);
    }

    /// Sets each client's floor to at least its durable record: the greatest counter it used, Unix nanoseconds.
    pub fn restore(&mut self, newest: impl IntoIterator<Item = (PublicKey, u64)>) {
        for (client, counter) in newest {
            self.replays.raise(&client, counter);
        }
    }

    /// Takes from the durable record when the newest of it was made: the greatest [`record_moment`], Unix nanoseconds.
    pub fn restore_clock(&mut self, wall: u64) {
        self.replays.clock_was_at(wall);
    }

    /// Takes the host's own addresses, for which nothing is opened. At start-up, and whenever they change.
    pub fn set_own_addresses(&mut self, own: impl IntoIterator<Item = IpAddr>) {
        self.policy.set_own_addresses(own.into_iter().map(|address| address.to_canonical()).collect());
    }

    /// Takes new settings. Returns the leases that they no longer allow, which are ended; leases that they allow for
    /// a shorter time end sooner. Lower caps end nothing, but let nothing new in.
    pub fn reconfigure(&mut self, now: Now, settings: JudgeSettings) -> Vec<Ended> {
        let own = self.policy.take_own_addresses();
        self.window = Window::new(settings.max_age);
        self.policy = Policy::new(settings);
        self.policy.set_own_addresses(own);
        let policy = &self.policy;
        let ended = self.leases.end(End::Policy, None, |key, lease| !still_allowed(policy, now, key, lease));
        self.leases.shorten(|key| {
            policy.client_named(&key.client).map_or(now.boot, |client| {
                now.boot.saturating_add(policy.longest(client)).min(end_of_enrolment(client, now))
            })
        });
        ended
    }

    /// Takes over a grant found in the kernel at start-up, which was granted and ends at these Unix nanoseconds.
    /// It lasts no longer than a grant of now would; one whose time is up ends with the next [`Self::expire`]. How its
    /// address was named is not known and not checked. [`Self::restore`] comes first.
    ///
    /// # Errors
    /// Why policy does not allow it, or `clock` where the wall clock was set back since, so that its end is not
    /// known. The caller removes it from the kernel.
    pub fn adopt(&mut self, now: Now, key: LeaseKey, granted: u64, until: u64) -> Result<Lease, Refusal> {
        self.window.check_clock(now, self.replays.clock_reached())?;
        if granted > now.wall {
            return Err(Reason::Clock.into());
        }
        if until <= now.wall {
            return Err(Refusal::stale(0)); // over: it must not stand for a moment more
        }
        let key = LeaseKey { source: key.source.to_canonical(), ..key };
        let client = self.policy.client_named(&key.client).ok_or(Reason::UnknownClient)?;
        self.check_client(now, client)?;
        self.policy.check_address(client, key.source)?;
        if !self.policy.allows_endpoint(client, key.endpoint) {
            return Err(Reason::NotAllowed.into());
        }
        self.check_caps(client, key.source, &BTreeSet::from([key.endpoint]))?;
        let longest = now.boot.saturating_add(self.policy.longest(client));
        let lease = Lease {
            granted,
            since: now.boot.saturating_sub(Duration::from_nanos(now.wall - granted)),
            until: now.boot_at(until).min(longest).min(end_of_enrolment(client, now)),
            owner: client.key,
            mode: Mode::Adopted,
            counter: 0, // not known, so any close of the client ends it
        };
        self.leases.open(key, lease.clone());
        Ok(lease)
    }

    /// Judges a knock of an authentic packet. The caller makes [`Accepted::record`] durable and then calls
    /// [`Self::grant`], in the order of judging.
    ///
    /// # Errors
    /// The refusal. `unknown-client`, `clock`, `expired-client` of a lapsed invite, `stale`, `counter` and `bound-source` use up nothing: a copy of a
    /// bound packet from elsewhere does not harm the original. All others use up the counter.
    pub fn judge(
        &mut self,
        now: Now,
        client: &PublicKey,
        source: IpAddr,
        knock: &Knock,
    ) -> Result<Accepted, Refusal> {
        let source = source.to_canonical();
        let policy = self.policy.client(client).ok_or(Reason::UnknownClient)?;
        if policy.is_late_for_the_first_knock(now) && !self.proven.contains(client) {
            return Err(Reason::ExpiredClient.into()); // a close too: its record would count as a first knock
        }
        self.window.check_clock(now, self.replays.clock_reached())?;
        self.window.check_counter(now, knock.counter)?;
        if !self.replays.is_new(client, knock.counter) {
            return Err(Reason::Counter.into());
        }
        if matches!(knock.address, Address::Bound(address) if address.to_canonical() != source) {
            return Err(Reason::BoundSource.into());
        }
        self.replays.clock_was_at(record_moment(now.wall, knock.counter));
        match &knock.action {
            Action::Open { .. } => self.replays.spend(client, knock.counter),
            Action::Close { .. } => self.replays.raise(client, knock.counter), // held packets die
        }
        let accepted = Accepted { client: *client, source, knock: knock.clone() };
        self.decide(now, &accepted)?;
        self.proven.insert(*client);
        Ok(accepted)
    }

    /// Carries out a knock whose record is durable. Policy is asked again, since a new configuration, or other
    /// knocks that were judged meanwhile, may have come between.
    ///
    /// # Errors
    /// A refusal by policy or caps; then nothing is changed.
    pub fn grant(&mut self, now: Now, accepted: Accepted) -> Result<Vec<Change>, Refusal> {
        match self.decide(now, &accepted)? {
            Decision::Close { key, endpoints } => {
                // A close that was held back ends nothing that was asked for after it was made.
                let own = |lease: &Lease| lease.owner == key && lease.counter < accepted.knock.counter;
                let name = self.policy.client(&key).map(|client| client.name.clone());
                let ended = self.leases.end(End::Closed, name.as_ref(), |key, lease| {
                    own(lease) && endpoints.as_ref().is_none_or(|all| all.contains(&key.endpoint))
                });
                Ok(ended.into_iter().map(Change::Closed).collect())
            }
            Decision::Open { keys, lease } => {
                Ok(keys.into_iter().map(|key| self.leases.open(key, lease.clone())).collect())
            }
        }
    }

    /// Ends the leases whose time is up. Call it at [`Self::next_expiry`]. Its cost is that of what has ended.
    pub fn expire(&mut self, now: Now) -> Vec<Ended> {
        self.leases.expire(now)
    }

    /// The wall clock was set: enrolments may end sooner by the new time. Returns the leases whose time is up.
    pub fn clock_set(&mut self, now: Now) -> Vec<Ended> {
        if self.policy.has_ending_enrolments() {
            let policy = &self.policy;
            self.leases.shorten(|key| {
                policy.client_named(&key.client).map_or(now.boot, |client| end_of_enrolment(client, now))
            });
        }
        self.leases.expire(now)
    }

    /// When the next lease ends, boot-time clock.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.leases.next_end()
    }

    /// Ends the leases that the selector picks. The client may knock again, unless its policy is changed first.
    pub fn revoke(&mut self, selector: &Selector) -> Vec<Ended> {
        self.leases.end(End::Revoked, selector.client.as_ref(), |key, _| selector.fits(key))
    }

    /// Lets these clients in no more, also by knocks that were judged and not granted yet, until the next
    /// [`Self::reconfigure`]. Returns their leases, which are ended.
    pub fn shut_out(&mut self, clients: &[PublicKey]) -> Vec<Ended> {
        for client in clients {
            self.policy.forget(client);
        }
        self.leases.end(End::Policy, None, |_, lease| clients.contains(&lease.owner))
    }

    /// When everything is refused since the wall clock is behind the record: the moment, Unix nanoseconds, from which on
    /// it is not.
    pub fn clock_wrong_until(&self, now: Now) -> Option<u64> {
        let reached = self.replays.clock_reached();
        self.window.check_clock(now, reached).err().map(|_| self.window.clock_right_from(reached))
    }

    /// All leases, by client, source and endpoint.
    pub fn leases(&self) -> impl Iterator<Item = (&LeaseKey, &Lease)> {
        self.leases.iter()
    }

    fn decide(&self, now: Now, accepted: &Accepted) -> Result<Decision, Refusal> {
        let client = self.policy.client(&accepted.client).ok_or(Reason::UnknownClient)?;
        match &accepted.knock.action {
            Action::Close { requests } => Ok(Decision::Close {
                key: client.key,
                endpoints: (!requests.as_slice().is_empty()).then(|| self.policy.named_endpoints(requests)),
            }),
            Action::Open { requests, seconds } => self.decide_open(now, client, accepted, requests, *seconds),
        }
    }

    fn decide_open(
        &self,
        now: Now,
        client: &ClientPolicy,
        accepted: &Accepted,
        requests: &Requests,
        seconds: u32,
    ) -> Result<Decision, Refusal> {
        self.check_client(now, client)?;
        let (source, mode) = address_to_open(accepted.knock.address, accepted.source);
        self.policy.check_mode(client, mode)?;
        self.policy.check_address(client, source)?;
        let endpoints = self.policy.allowed_endpoints(client, requests)?;
        self.check_caps(client, source, &endpoints)?;
        let until = now.boot.saturating_add(self.policy.duration(client, seconds));
        let lease = Lease {
            granted: now.wall,
            since: now.boot,
            until: until.min(end_of_enrolment(client, now)),
            owner: client.key,
            mode,
            counter: accepted.knock.counter,
        };
        let key = |endpoint| LeaseKey { client: client.name.clone(), source, endpoint };
        Ok(Decision::Open { keys: endpoints.into_iter().map(key).collect(), lease })
    }

    fn check_client(&self, now: Now, client: &ClientPolicy) -> Result<(), Reason> {
        if client.has_expired(now) { Err(Reason::ExpiredClient) } else { Ok(()) }
    }

    /// Whether the leases that would be added fit the caps; a renewal adds none.
    fn check_caps(
        &self,
        client: &ClientPolicy,
        source: IpAddr,
        endpoints: &BTreeSet<Endpoint>,
    ) -> Result<(), Reason> {
        let added = endpoints
            .iter()
            .map(|endpoint| LeaseKey { client: client.name.clone(), source, endpoint: *endpoint })
            .filter(|key| !self.leases.contains(key))
            .count();
        if added == 0 {
            return Ok(());
        }
        if self.leases.count(&client.name) + added > client.max_grants as usize {
            return Err(Reason::TooManyGrants);
        }
        if self.leases.len() + added > self.policy.settings().max_grants as usize {
            return Err(Reason::Full);
        }
        Ok(())
    }
}

/// What a knock comes to.
enum Decision {
    Open {
        keys: Vec<LeaseKey>,
        lease: Lease,
    },
    /// `None`: all of the client's.
    Close {
        key: PublicKey,
        endpoints: Option<BTreeSet<Endpoint>>,
    },
}

/// The moment that a record stands for when the wall clock is compared with it, Unix nanoseconds. The counter alone is
/// the client's clock, which may be ahead, by as much as the max-age of then allowed; the wall clock alone may be ahead
/// itself, and be put right later, which must shut nobody out whose own clock was right.
pub fn record_moment(wall: u64, counter: u64) -> u64 {
    wall.min(counter)
}

/// When a client's enrolment ends, boot-time clock.
fn end_of_enrolment(client: &ClientPolicy, now: Now) -> Duration {
    client.valid_until_boot(now).unwrap_or(Duration::MAX)
}

/// Whether a policy allows a lease that was opened under another.
fn still_allowed(policy: &Policy, now: Now, key: &LeaseKey, lease: &Lease) -> bool {
    policy.client_named(&key.client).is_some_and(|client| {
        client.key == lease.owner
            && !client.has_expired(now)
            && policy.check_mode(client, lease.mode).is_ok()
            && policy.check_address(client, key.source).is_ok()
            && policy.allows_endpoint(client, key.endpoint)
    })
}
