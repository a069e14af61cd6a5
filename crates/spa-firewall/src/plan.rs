//! From what stands to what should stand: a pure function, the only author of changes.

use core::fmt;
use std::collections::BTreeMap;
use std::time::SystemTime;

use spa_proto::{Endpoint, Protocol};

use crate::ahead::can_accept;
use crate::elements::{self, ElementPlan};
use crate::kernel::{Counted, Counters, FamilyState, Kernel, Rule, Span, last_second};
use crate::model::{Family, GrantKey, Protection, Wanted};
use crate::names::Except;

/// What to do to our chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ChainPlan {
    /// Nothing.
    #[default]
    Keep,
    /// Only grants change. A renewed grant is in both lists.
    Grants {
        /// Exactly these rules go, one each time they are listed.
        remove: Vec<(GrantKey, Span)>,
        /// These come, as a block at `at`.
        insert: Vec<(GrantKey, Span, Counters)>,
        /// Position in our chain, counted from 1, of the first grant.
        at: usize,
    },
    /// The chain is made or emptied, and filled with these.
    Fill(Vec<Counted>),
    /// The chain goes.
    Remove,
}

/// What to do to the jump from INPUT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JumpPlan {
    /// How many jumps go.
    pub remove: usize,
    /// One comes, at INPUT 1.
    pub insert: bool,
    /// The jump was there and is only moved, past a host rule that could accept a protected port.
    pub moved: bool,
}

/// The changes to one family, to be made in one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyPlan {
    /// Our chain.
    pub chain: ChainPlan,
    /// The jump to it.
    pub jump: JumpPlan,
    /// The grants of a driver that keeps them in sets.
    pub elements: ElementPlan,
}

impl FamilyPlan {
    /// Whether rules that stand are written again, with the counters that they had when they were read.
    pub fn rewrites(&self) -> bool {
        match &self.chain {
            ChainPlan::Keep | ChainPlan::Remove => self.elements.rewrites(),
            ChainPlan::Fill(_) => true,
            ChainPlan::Grants { remove, insert, .. } => {
                insert.iter().any(|(key, ..)| remove.iter().any(|(old, _)| old == key))
            }
        }
    }

    /// Whether no more is to be done than to add and remove grants that are rules.
    pub(crate) fn only_grants(&self) -> bool {
        let of_chain = matches!(self.chain, ChainPlan::Keep | ChainPlan::Grants { .. }) && !self.rewrites();
        of_chain && self.jump == JumpPlan::default() && self.elements.is_empty()
    }

    /// Whether both do the same, whatever had been counted when they were made.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.uncounted() == other.uncounted()
    }

    fn uncounted(&self) -> Self {
        let mut plan = self.clone();
        match &mut plan.chain {
            ChainPlan::Keep | ChainPlan::Remove => {}
            ChainPlan::Grants { insert, .. } => {
                insert.iter_mut().for_each(|(_, _, counters)| *counters = Counters::default());
            }
            ChainPlan::Fill(rules) => {
                rules.iter_mut().for_each(|counted| counted.counters = Counters::default());
            }
        }
        plan
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.chain == ChainPlan::Keep && self.jump == JumpPlan::default() && self.elements.is_empty()
    }
}

/// The changes to both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// IPv4.
    pub v4: FamilyPlan,
    /// IPv6.
    pub v6: FamilyPlan,
}

impl Plan {
    /// One family.
    pub fn family(&self, family: Family) -> &FamilyPlan {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// One family, to be changed.
    pub fn family_mut(&mut self, family: Family) -> &mut FamilyPlan {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// When more grants than this go, the chain is written anew: iptables-nft searches the whole chain for each, and of
/// 1,000 grants it took 87 ms to delete 8 and 470 ms to delete 64, but 68 ms to write all anew.
pub const MAX_REMOVALS: usize = 8;

/// What has to change in `kernel` for `wanted` to stand. Empty if it stands already.
///
/// `now` matters to set elements alone, which go by themselves: what has ended by then is not wanted of them. An ended
/// rule stays until it is no longer wanted.
pub fn reconcile(wanted: &Wanted, kernel: &Kernel, now: SystemTime) -> Plan {
    let mut plan = Plan::default();
    for family in Family::BOTH {
        let state = kernel.family(family);
        if !state.missing {
            *plan.family_mut(family) = match &wanted.protection {
                Some(protection) => match &state.elements {
                    Some(held) => FamilyPlan {
                        chain: keep_chain(protection, family, state),
                        jump: jump(protection, state),
                        elements: elements::all(wanted, held, family, now),
                    },
                    None => keep_up(protection, &spans(wanted, family), family, state),
                },
                None => take_down(state),
            };
        }
    }
    plan
}

/// The same for the grants in `changed` alone, when everything else is known to stand; `None` if the firewall keeps
/// grants as rules, which cannot be told one from the other without looking at all.
pub fn reconcile_grants(
    wanted: &Wanted,
    kernel: &Kernel,
    changed: &[GrantKey],
    now: SystemTime,
) -> Option<Plan> {
    let mut plan = Plan::default();
    for family in Family::BOTH {
        let state = kernel.family(family);
        if !state.missing {
            let held = state.elements.as_ref().filter(|_| wanted.protection.is_some())?;
            plan.family_mut(family).elements = elements::some(wanted, held, family, changed, now);
        }
    }
    Some(plan)
}

fn spans(wanted: &Wanted, family: Family) -> BTreeMap<&GrantKey, Span> {
    let own = wanted.grants.iter().filter(|(key, _)| key.family() == family);
    own.map(|(key, lifetime)| (key, Span::of(lifetime))).collect()
}

fn take_down(state: &FamilyState) -> FamilyPlan {
    FamilyPlan {
        chain: if state.present { ChainPlan::Remove } else { ChainPlan::Keep },
        jump: JumpPlan { remove: state.jumps.len(), insert: false, moved: false },
        elements: ElementPlan::default(), // they go with the chain
    }
}

fn keep_up(
    protection: &Protection,
    grants: &BTreeMap<&GrantKey, Span>,
    family: Family,
    state: &FamilyState,
) -> FamilyPlan {
    let head = head(protection, family);
    let tail = tail(protection);
    let chain = match standing_grants(state, &head, &tail) {
        Some(standing) => edit(grants, standing, head.len() + 1),
        None => None,
    };
    let chain = chain.unwrap_or_else(|| {
        let grants = grants.iter().map(|(key, span)| Rule::Grant((*key).clone(), *span));
        let rules = head.into_iter().chain(grants).chain(tail);
        ChainPlan::Fill(rules.map(|rule| Counted { counters: counters(state, &rule), rule }).collect())
    });
    FamilyPlan { chain, jump: jump(protection, state), ..FamilyPlan::default() }
}

/// The chain of a driver that keeps grants in sets: one rule looks them all up.
fn keep_chain(protection: &Protection, family: Family, state: &FamilyState) -> ChainPlan {
    let rules = head(protection, family).into_iter().chain([Rule::Openings]).chain(tail(protection));
    let rules: Vec<_> = rules.map(|rule| Counted { counters: counters(state, &rule), rule }).collect();
    let same = state.rules.iter().map(|counted| &counted.rule).eq(rules.iter().map(|counted| &counted.rule));
    if state.present && same { ChainPlan::Keep } else { ChainPlan::Fill(rules) }
}

/// The rules before the grants: exceptions, then established connections.
fn head(protection: &Protection, family: Family) -> Vec<Rule> {
    let excepted = protection.except.iter().filter(|except| match except {
        Except::Interface(name) => name.as_str() != "lo", // it has its rule
        Except::Network(network) => Family::of(network.address()) == family,
    });
    let mut rules = vec![Rule::Loopback];
    rules.extend(excepted.cloned().map(Rule::Except));
    rules.extend(protection.services.iter().copied().map(Rule::Established));
    rules
}

/// The rules after the grants: the drops. Port 0 names nothing; the enforcer refuses it.
fn tail(protection: &Protection) -> Vec<Rule> {
    let until = protection.provisional_until.map(last_second);
    let services = protection.services.iter().copied().filter(|_| protection.protect);
    services
        .chain(Endpoint::new(Protocol::Udp, protection.spa_port))
        .map(|endpoint| Rule::Drop(endpoint, until))
        .collect()
}

/// The rules between head and tail, if the chain is exactly head, grants, tail.
fn standing_grants<'a>(state: &'a FamilyState, head: &[Rule], tail: &[Rule]) -> Option<Vec<&'a Counted>> {
    if !state.present || state.rules.len() < head.len() + tail.len() {
        return None;
    }
    let (first, rest) = state.rules.split_at(head.len());
    let (middle, last) = rest.split_at(rest.len() - tail.len());
    let same = |stand: &[Counted], want: &[Rule]| stand.iter().map(|counted| &counted.rule).eq(want);
    let framed = same(first, head) && same(last, tail);
    let grants = middle.iter().all(|counted| matches!(counted.rule, Rule::Grant(..)));
    (framed && grants).then(|| middle.iter().collect())
}

/// The difference in grants, or `None` if too many go for editing to be worth it.
fn edit(grants: &BTreeMap<&GrantKey, Span>, standing: Vec<&Counted>, at: usize) -> Option<ChainPlan> {
    let mut missing = grants.clone();
    let mut remove = Vec::new();
    let mut renewed = BTreeMap::new();
    for counted in standing {
        let Rule::Grant(key, span) = &counted.rule else { continue };
        if missing.get(key) == Some(span) {
            missing.remove(key);
        } else {
            remove.push((key.clone(), *span));
            renewed.insert(key, counted.counters);
        }
    }
    if remove.len() > MAX_REMOVALS {
        return None;
    }
    if remove.is_empty() && missing.is_empty() {
        return Some(ChainPlan::Keep);
    }
    let insert = missing.into_iter().map(|(key, span)| {
        let counters = renewed.get(key).copied().unwrap_or_default();
        (key.clone(), span, counters)
    });
    Some(ChainPlan::Grants { insert: insert.collect(), remove, at })
}

/// The counters of the rule that is written again; a grant keeps them over a renewal.
fn counters(state: &FamilyState, rule: &Rule) -> Counters {
    let same = |standing: &Rule| match (standing, rule) {
        (Rule::Grant(old, _), Rule::Grant(new, _)) => old == new,
        _ => standing == rule,
    };
    state.rules.iter().find(|counted| same(&counted.rule)).map(|counted| counted.counters).unwrap_or_default()
}

fn jump(protection: &Protection, state: &FamilyState) -> JumpPlan {
    let void = state.ahead.iter().any(|rule| can_accept(rule, protection));
    match state.jumps.len() {
        0 => JumpPlan { remove: 0, insert: true, moved: false },
        1 if !void => JumpPlan::default(),
        // Deleting by text takes the first, so of several all go and one comes back.
        more => JumpPlan { remove: more, insert: true, moved: void },
    }
}

impl fmt::Display for FamilyPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.chain {
            ChainPlan::Keep => f.write_str("chain as it is")?,
            ChainPlan::Grants { remove, insert, .. } => {
                write!(f, "{} grants out, {} in", remove.len(), insert.len())?;
            }
            ChainPlan::Fill(rules) => write!(f, "chain written anew with {} rules", rules.len())?,
            ChainPlan::Remove => f.write_str("chain removed")?,
        }
        if !self.elements.is_empty() {
            write!(f, ", {}", self.elements)?;
        }
        match self.jump {
            JumpPlan { remove: 0, insert: false, .. } => Ok(()),
            JumpPlan { insert: false, .. } => f.write_str(", jump removed"),
            JumpPlan { remove: 0, .. } => f.write_str(", jump set at INPUT 1"),
            JumpPlan { .. } => f.write_str(", jump moved to INPUT 1"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IPv4: {}; IPv6: {}", self.v4, self.v6)
    }
}
