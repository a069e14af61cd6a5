//! What stands in the firewall, as read back.

use core::fmt;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spa_proto::Endpoint;

use crate::model::{Family, GrantKey, Lifetime, Opening};
use crate::names::Except;

/// The last second that both variants of iptables accept and print back: 2038-01-19T03:14:06Z (they leave out
/// `i32::MAX` when printing). Later stops are clamped to it, which closes early, never late.
pub const LAST_SECOND: u64 = i32::MAX as u64 - 1;

/// Whole wall-clock seconds since 1970, both inclusive: the kernel's grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Open from the beginning of this second.
    pub start: u64,
    /// Open to the end of this second.
    pub stop: u64,
}

impl Span {
    /// The smallest span that holds the lifetime, so it never closes before `until`, and less than a second after.
    pub fn of(lifetime: &Lifetime) -> Self {
        Self { start: seconds_and_rest(lifetime.from).0.min(LAST_SECOND), stop: last_second(lifetime.until) }
    }

    /// The lifetime that a rule read back stands for: whole seconds, `until` at the end of the last one.
    pub fn lifetime(&self) -> Lifetime {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        Lifetime { from: at(self.start), until: at(self.stop.saturating_add(1).min(LAST_SECOND + 1)) }
    }
}

/// The last whole second, inclusive, of something that ends at `until`.
pub fn last_second(until: SystemTime) -> u64 {
    let (seconds, whole) = seconds_and_rest(until);
    (if whole { seconds.saturating_sub(1) } else { seconds }).min(LAST_SECOND)
}

/// Seconds since 1970 rounded down (0 before), and whether there was nothing to round.
fn seconds_and_rest(time: SystemTime) -> (u64, bool) {
    time.duration_since(UNIX_EPOCH).map_or((0, true), |since| (since.as_secs(), since.subsec_nanos() == 0))
}

/// How often a rule matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes of these packets, IP header included.
    pub bytes: u64,
}

/// One rule of our chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Back to the administrator's rules for what comes in on `lo`.
    Loopback,
    /// Back to the administrator's rules for an exception.
    Except(Except),
    /// Accept established connections to a service, in the original direction.
    Established(Endpoint),
    /// Accept one source to one service for a time.
    Grant(GrantKey, Span),
    /// Accept what the set of openings holds, for a driver that has one.
    Openings,
    /// Drop whatever still comes to this endpoint; with a time, until the end of that second (since 1970).
    Drop(Endpoint, Option<u64>),
    /// Somebody else's, or not readable: kept as text, and replaced.
    Foreign(String),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("return for lo"),
            Self::Except(except) => write!(f, "return for {except}"),
            Self::Established(endpoint) => write!(f, "accept established to {endpoint}"),
            Self::Grant(key, span) => write!(f, "grant {key} until {}", span.stop.saturating_add(1)),
            Self::Openings => f.write_str("accept openings"),
            Self::Drop(endpoint, None) => write!(f, "drop {endpoint}"),
            Self::Drop(endpoint, Some(stop)) => write!(f, "drop {endpoint} until {}", stop.saturating_add(1)),
            Self::Foreign(text) => write!(f, "foreign rule {text:?}"),
        }
    }
}

/// A rule and its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The rule.
    pub rule: Rule,
    /// How often it matched.
    pub counters: Counters,
}

/// What the sets of a driver hold that keeps the grants there, and not as rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elements {
    /// Who was granted what. They open nothing: the set is the record.
    pub owners: BTreeMap<GrantKey, Lifetime>,
    /// What is open, each until the latest end among its owners.
    pub openings: BTreeMap<Opening, Open>,
}

/// One opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// When the kernel closes it.
    pub until: SystemTime,
    /// What it let in, for all its owners together.
    pub counters: Counters,
}

/// One family as read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyState {
    /// The kernel was built or booted without this family: nothing can come in, nothing is written. Only IPv6.
    pub missing: bool,
    /// Our chain exists.
    pub present: bool,
    /// The rules of our chain, in order.
    pub rules: Vec<Counted>,
    /// Where INPUT jumps to our chain unconditionally, counted from 1.
    pub jumps: Vec<usize>,
    /// The host's INPUT rules ahead of the first jump (all of them if there is none), in `iptables-save` form
    /// (`-s 10.0.0.0/8 -j ACCEPT`).
    pub ahead: Vec<String>,
    /// The grants, with a driver that keeps them in sets; then none is among the rules. It is there even when our
    /// chain is not.
    pub elements: Option<Elements>,
    /// Rules of others that refer to our chain; it cannot be removed before they are.
    pub references: Vec<String>,
}

impl FamilyState {
    /// Whether the chain of our name holds the rules of somebody else. What we lay begins with the return for loopback
    /// and goes on with rules of ours, whatever others have added to it since.
    pub fn is_of_others(&self) -> bool {
        let mut rules = self.rules.iter().map(|counted| &counted.rule);
        let begins_as_ours = rules.next() == Some(&Rule::Loopback);
        let goes_on_as_ours = rules.any(|rule| !matches!(rule, Rule::Foreign(_)));
        !(self.rules.is_empty() || begins_as_ours && goes_on_as_ours)
    }
}

/// Both families as read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// IPv4.
    pub v4: FamilyState,
    /// IPv6.
    pub v6: FamilyState,
}

impl Kernel {
    /// One family.
    pub fn family(&self, family: Family) -> &FamilyState {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// One family, to be changed.
    pub fn family_mut(&mut self, family: Family) -> &mut FamilyState {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// The grants that stand, with their counters. Where several clients share one opening, each has all it let in.
    pub fn grants(&self) -> impl Iterator<Item = (&GrantKey, Lifetime, Counters)> {
        let families = || [&self.v4, &self.v6].into_iter();
        let rules = families().flat_map(|state| &state.rules).filter_map(|counted| match &counted.rule {
            Rule::Grant(key, span) => Some((key, span.lifetime(), counted.counters)),
            _ => None,
        });
        let elements = families().filter_map(|state| state.elements.as_ref()).flat_map(|elements| {
            elements.owners.iter().map(|(key, lifetime)| {
                let open = elements.openings.get(&key.opening());
                (key, *lifetime, open.map(|open| open.counters).unwrap_or_default())
            })
        });
        rules.chain(elements)
    }
}
