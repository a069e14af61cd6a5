//! The grants of a firewall that keeps them in sets: what has to change.
//!
//! A packet shows its source and the service it goes to, and no client. So there are two sets: the *openings*, one
//! element for each source and service, which the rules look up, and the *owners*, one element for each grant, which
//! no rule knows. An opening stands until the latest end among its owners; so two clients behind one address share it,
//! neither ends it for the other, and the owners' set is all that a new daemon needs.

use core::fmt;
use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::kernel::{Elements, Open};
use crate::model::{Family, GrantKey, Lifetime, Opening, Wanted};

/// The changes to the sets of one family. What is renewed goes and comes in one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElementPlan {
    /// These owners go.
    pub remove: Vec<GrantKey>,
    /// These come.
    pub insert: Vec<(GrantKey, Lifetime)>,
    /// These openings go.
    pub close: Vec<Opening>,
    /// These come.
    pub open: Vec<(Opening, Open)>,
}

impl ElementPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.insert.is_empty() && self.close.is_empty() && self.open.is_empty()
    }

    /// Whether an opening is written again, with the counters that it had when it was read.
    pub fn rewrites(&self) -> bool {
        let closed: std::collections::BTreeSet<_> = self.close.iter().collect();
        self.open.iter().any(|(opening, _)| closed.contains(opening))
    }

    /// What the sets hold when it is done.
    pub fn carry_out(&self, held: &mut Elements) {
        for key in &self.remove {
            held.owners.remove(key);
        }
        for opening in &self.close {
            held.openings.remove(opening);
        }
        held.owners.extend(self.insert.iter().cloned());
        held.openings.extend(self.open.iter().copied());
    }

    fn own(&mut self, key: &GrantKey, standing: Option<&Lifetime>, wanted: Option<&Lifetime>) {
        if standing != wanted {
            self.remove.extend(standing.map(|_| key.clone()));
            self.insert.extend(wanted.map(|lifetime| (key.clone(), *lifetime)));
        }
    }

    fn open(&mut self, opening: Opening, standing: Option<&Open>, wanted: Option<SystemTime>) {
        if standing.map(|open| open.until) != wanted {
            let counters = standing.map(|open| open.counters).unwrap_or_default();
            self.close.extend(standing.map(|_| opening));
            self.open.extend(wanted.map(|until| (opening, Open { until, counters })));
        }
    }
}

impl fmt::Display for ElementPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} grants out, {} in", self.remove.len(), self.insert.len())?;
        write!(f, ", {} openings out, {} in", self.close.len(), self.open.len())
    }
}

/// The difference in all grants of a family.
pub fn all(wanted: &Wanted, held: &Elements, family: Family, now: SystemTime) -> ElementPlan {
    let mut plan = ElementPlan::default();
    let mut openings = BTreeMap::new();
    let own = || wanted.grants.iter().filter(|(key, grant)| key.family() == family && grant.until > now);
    for (key, lifetime) in own() {
        plan.own(key, held.owners.get(key), Some(lifetime));
        let until = openings.entry(key.opening()).or_insert(lifetime.until);
        *until = lifetime.until.max(*until);
    }
    for (key, standing) in &held.owners {
        if alive(wanted, key, now).is_none() {
            plan.own(key, Some(standing), None);
        }
    }
    for (opening, until) in &openings {
        plan.open(*opening, held.openings.get(opening), Some(*until));
    }
    for (opening, standing) in &held.openings {
        if !openings.contains_key(opening) {
            plan.open(*opening, Some(standing), None);
        }
    }
    plan
}

/// The difference in these grants of a family, and in what they open.
pub fn some(
    wanted: &Wanted,
    held: &Elements,
    family: Family,
    keys: &[GrantKey],
    now: SystemTime,
) -> ElementPlan {
    let mut plan = ElementPlan::default();
    let mut openings = BTreeMap::new();
    let keys: std::collections::BTreeSet<_> = keys.iter().filter(|key| key.family() == family).collect();
    for key in keys {
        plan.own(key, held.owners.get(key), alive(wanted, key, now));
        openings.entry(key.opening()).or_insert_with(|| latest(wanted, key, now));
    }
    for (opening, until) in openings {
        plan.open(opening, held.openings.get(&opening), until);
    }
    plan
}

fn alive<'a>(wanted: &'a Wanted, key: &GrantKey, now: SystemTime) -> Option<&'a Lifetime> {
    wanted.grants.get(key).filter(|lifetime| lifetime.until > now)
}

/// The latest end among the owners of what `key` opens. They are neighbours in the order of the keys.
fn latest(wanted: &Wanted, key: &GrantKey, now: SystemTime) -> Option<SystemTime> {
    let opening = key.opening();
    let same = |(key, _): &(&GrantKey, &Lifetime)| key.opening() == opening;
    let before = wanted.grants.range(..key).rev().take_while(same);
    let after = wanted.grants.range(key..).take_while(same);
    before.chain(after).map(|(_, lifetime)| lifetime.until).filter(|until| *until > now).max()
}
