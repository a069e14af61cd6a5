//! Tables, chains, rules.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::expression::Expression;
use super::place::{Place, Which};
use super::sets::Set;
use super::text::TextRule;
use crate::model::Family;

/// A place in the kernel where packets are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    Ingress,
    Prerouting,
    Input,
    Output,
    Postrouting,
}

impl Hook {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

/// When chains of type nat run, whatever their own priority: `enum nf_ip_hook_priorities`, `linux/netfilter_ipv4.h`.
pub const NAT_DESTINATION: i32 = -100;
pub const NAT_SOURCE: i32 = 100;
/// When conntrack looks.
pub const CONNTRACK: i32 = -200;

/// How a chain is hooked.
#[derive(Clone, Debug)]
pub struct Base {
    pub hook: Hook,
    pub priority: i32,
    /// Only for the first packet of a connection.
    pub is_nat: bool,
    pub drops_the_rest: bool,
    /// Only what comes in here; empty for all.
    pub devices: Vec<String>,
}

/// What is known of a rule's meaning.
#[derive(Clone, Debug)]
pub enum Body {
    Text(Box<TextRule>),
    Native(Vec<Expression>),
    /// Nothing.
    Opaque,
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub place: Place,
    pub body: Body,
}

#[derive(Clone, Debug, Default)]
pub struct Chain {
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub struct Table {
    pub which: Which,
    pub name: String,
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, Set>,
}

impl Table {
    pub fn new(which: Which, name: &str) -> Self {
        Self { which, name: name.to_owned(), chains: BTreeMap::new(), sets: BTreeMap::new() }
    }

    pub fn sees(&self, family: Family) -> bool {
        match self.which {
            Which::LegacyV4 | Which::Ip => family == Family::V4,
            Which::LegacyV6 | Which::Ip6 => family == Family::V6,
            Which::Inet | Which::Netdev => true,
        }
    }

    /// A chain of it, or a thing in that chain.
    pub fn place(&self, chain: &str, text: impl Into<String>) -> Place {
        Place {
            which: self.which,
            table: self.name.clone(),
            chain: chain.to_owned(),
            handle: None,
            text: text.into(),
        }
    }
}

/// All rules of a host, as they stood at one moment.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    pub(super) tables: Vec<Table>,
    /// What could not be read, for people. A verdict without it would be a guess.
    pub unread: Vec<String>,
}

impl Ruleset {
    /// Whether a chain of this name is in this table of iptables.
    pub fn has_chain(&self, which: Which, table: &str, chain: &str) -> bool {
        self.tables
            .iter()
            .any(|one| one.which == which && one.name == table && one.chains.contains_key(chain))
    }

    /// Whether a chain jumps to another one unconditionally.
    pub fn jumps(&self, which: Which, table: &str, from: &str, to: &str) -> bool {
        let table = self.tables.iter().find(|one| one.which == which && one.name == table);
        let chain = table.and_then(|table| table.chains.get(from));
        chain.is_some_and(|chain| {
            chain.rules.iter().any(|rule| rule.place.text.strip_prefix("-j ") == Some(to))
        })
    }

    /// Whether any table of this kind has a rule, or a policy of drop.
    pub fn is_in_use(&self, which: Which) -> bool {
        let active = |chain: &super::model::Chain| {
            !chain.rules.is_empty() || chain.base.as_ref().is_some_and(|base| base.drops_the_rest)
        };
        self.tables.iter().any(|table| table.which == which && table.chains.values().any(active))
    }

    /// Whether there is a table of this name.
    pub fn has_table(&self, which: Which, name: &str) -> bool {
        self.tables.iter().any(|table| table.which == which && table.name == name)
    }
}

/// As in a packet.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
