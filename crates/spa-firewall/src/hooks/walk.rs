//! A packet's way through one hook after the other.

use std::net::IpAddr;

use super::expression::Answer;
use super::model::{Base, Body, CONNTRACK, Chain, Hook, NAT_DESTINATION, NAT_SOURCE, Rule, Ruleset, Table};
use super::oracle::Oracle;
use super::packet::{Connection, Host, Packet, State};
use super::place::{POLICY, Place, Step};
use super::{machine, xt};

/// How deep chains may call each other: `NFT_JUMP_STACK_SIZE`.
const MAX_DEPTH: usize = 16;

/// What a rule has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the next rule.
    Continue,
    /// An expression did not match.
    NoMatch,
    Accept,
    Drop,
    Reject(Answer),
    Return,
    Jump(String),
    Goto(String),
    /// To another address or port, or both.
    Destination(Option<IpAddr>, Option<u16>),
    /// To this host, on another port.
    Redirect(Option<u16>),
    /// Something that is not understood.
    Strange,
}

/// What a hook has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Through,
    Dropped,
    Rejected(Answer),
    Unclear,
}

/// One packet under way.
pub struct Walk<'a> {
    pub rules: &'a Ruleset,
    pub host: &'a Host,
    pub packet: Packet,
    pub connection: Connection,
    pub oracle: &'a mut Oracle,
    pub steps: Vec<Step>,
    /// Rules that nobody could understand, and that were reached.
    pub strange: Vec<Place>,
}

/// What a chain has done, and which rule of it.
struct Decision {
    action: Action,
    by: Option<Place>,
}

impl<'a> Walk<'a> {
    /// Whether a rule's unknown condition holds, in this run.
    pub fn ask(&mut self, place: &Place) -> bool {
        self.oracle.ask(place)
    }

    /// Takes the packet through a hook.
    pub fn hook(&mut self, hook: Hook) -> End {
        let has_to_be_seen = matches!(hook, Hook::Ingress | Hook::Prerouting | Hook::Output);
        let mut was_rewritten = false;
        for (table, name, chain, base) in self.chains(hook) {
            self.packet.tracked = !has_to_be_seen || hook != Hook::Ingress && effective(base) > CONNTRACK;
            if base.is_nat && (was_rewritten || self.packet.state != State::New || self.packet.untracked) {
                continue;
            }
            let decision = self.base(table, chain, base);
            let by = decision.by.unwrap_or_else(|| table.place(name, POLICY));
            let (did, end) = match decision.action {
                Action::Drop => ("drop", Some(End::Dropped)),
                Action::Reject(answer) => ("reject", Some(End::Rejected(answer))),
                Action::Strange => {
                    self.strange.push(by.clone());
                    ("unclear", Some(End::Unclear))
                }
                Action::Destination(address, port) => {
                    was_rewritten = true;
                    self.rewrite(address, port);
                    ("rewrite", None)
                }
                Action::Redirect(port) => {
                    was_rewritten = true;
                    self.rewrite(None, port);
                    ("redirect", None)
                }
                _ => ("accept", None),
            };
            self.steps.push(Step { hook: hook.name(), chain: table.place(name, ""), by, did });
            if let Some(end) = end {
                return end;
            }
        }
        self.packet.tracked = hook != Hook::Ingress;
        End::Through
    }

    fn rewrite(&mut self, address: Option<IpAddr>, port: Option<u16>) {
        self.packet.destination = address.unwrap_or(self.packet.destination);
        self.packet.destination_port = port.unwrap_or(self.packet.destination_port);
        self.connection.rewritten = Some((self.packet.destination, self.packet.destination_port));
    }

    /// The base chains of a hook, in order. Of those with one priority the kernel runs the one that was hooked last
    /// first, which nobody can look up: asked.
    fn chains(&mut self, hook: Hook) -> Vec<(&'a Table, &'a str, &'a Chain, &'a Base)> {
        let rules = self.rules;
        let device = self.packet.input.as_ref().map(|interface| interface.name.clone()).unwrap_or_default();
        let mut all: Vec<_> = rules
            .tables
            .iter()
            .filter(|table| table.sees(self.packet.family))
            .flat_map(|table| table.chains.iter().map(move |(name, chain)| (table, name.as_str(), chain)))
            .filter_map(|(table, name, chain)| Some((table, name, chain, chain.base.as_ref()?)))
            .filter(|(_, _, chain, base)| {
                base.hook == hook
                    && (base.devices.is_empty() || base.devices.contains(&device))
                    && (!chain.rules.is_empty() || base.drops_the_rest)
            })
            .collect();
        all.sort_by_key(|(.., base)| (effective(base), base.priority));
        let mut ordered = Vec::with_capacity(all.len());
        while !all.is_empty() {
            let key = |(.., base): &(&Table, &str, &Chain, &Base)| (effective(base), base.priority);
            let first = key(&all[0]);
            let ties = all.iter().take_while(|one| key(one) == first).count();
            let chosen = (0..ties - 1).find(|at| {
                let (table, name, ..) = all[*at];
                self.oracle.ask(&table.place(name, "the order of chains with the same priority"))
            });
            ordered.push(all.remove(chosen.unwrap_or(ties - 1)));
        }
        ordered
    }

    fn base(&mut self, table: &'a Table, chain: &'a Chain, base: &Base) -> Decision {
        let decision = self.chain(table, chain, 0);
        match decision.action {
            Action::Continue | Action::Return if base.drops_the_rest => {
                Decision { action: Action::Drop, by: None }
            }
            Action::Continue | Action::Return => Decision { action: Action::Accept, by: None },
            _ => decision,
        }
    }

    fn chain(&mut self, table: &'a Table, chain: &'a Chain, depth: usize) -> Decision {
        for rule in &chain.rules {
            let action = match self.rule(table, rule) {
                Action::Continue => continue,
                Action::Jump(next) => match self.called(table, &next, rule, depth) {
                    Decision { action: Action::Continue | Action::Return, .. } => continue,
                    other => return other,
                },
                Action::Goto(next) => return self.called(table, &next, rule, depth),
                other => other,
            };
            return Decision { action, by: Some(rule.place.clone()) };
        }
        Decision { action: Action::Continue, by: None }
    }

    fn called(&mut self, table: &'a Table, name: &str, rule: &Rule, depth: usize) -> Decision {
        match table.chains.get(name) {
            Some(chain) if depth < MAX_DEPTH => self.chain(table, chain, depth + 1),
            _ => Decision { action: Action::Strange, by: Some(rule.place.clone()) },
        }
    }

    fn rule(&mut self, table: &Table, rule: &Rule) -> Action {
        match &rule.body {
            Body::Text(text) => xt::run(self, &rule.place, text),
            Body::Native(expressions) => machine::run(self, table, &rule.place, expressions),
            // It may do nothing, or anything.
            Body::Opaque if self.ask(&rule.place) => Action::Strange,
            Body::Opaque => Action::Continue,
        }
    }
}

/// When it runs: chains of type nat are run by conntrack's own hooks, in the order of their priorities.
fn effective(base: &Base) -> i32 {
    match (base.is_nat, base.hook) {
        (true, Hook::Prerouting | Hook::Output) => NAT_DESTINATION,
        (true, _) => NAT_SOURCE,
        (false, _) => base.priority,
    }
}
