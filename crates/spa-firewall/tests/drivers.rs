//! Random operations on every driver at once (in memory, iptables of both variants, nftables), held against a plain
//! model after each, by what the driver reads and by what the programs of others list.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use common::{KINDS, Kind, key, protection, saved};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use spa_firewall::iptables::Variant;
use spa_firewall::memory::Memory;
use spa_firewall::{Enforcer, GrantKey, Lifetime, Span, Wanted};
use spa_tests::nft::{Ruleset, protocol_name};

const SERVICES: [&[&str]; 3] = [&["tcp/22"], &["tcp/22", "tcp/80", "udp/53"], &[]];
const CLIENTS: [&str; 2] = ["alice", "bob"];
const SOURCES: [&str; 3] = ["198.51.100.7", "198.51.100.8", "2001:db8::7"];
const ENDPOINTS: [&str; 2] = ["tcp/22", "udp/53"];

#[derive(Clone, Copy, Debug)]
enum Operation {
    /// Open or renew, for so many seconds.
    Grant(usize, usize, usize, u64),
    Revoke(usize, usize, usize),
    RevokeClient(usize),
    /// Other services.
    Protect(usize),
    /// The process ends, and another finds what it left.
    Restart,
    /// Somebody else takes something of ours away.
    Meddle(usize),
    Unprotect,
}

fn operations() -> impl Strategy<Value = Operation> {
    let which = (0..CLIENTS.len(), 0..SOURCES.len(), 0..ENDPOINTS.len());
    prop_oneof![
        6 => (which.clone(), 100..900_u64).prop_map(|((c, s, e), seconds)| Operation::Grant(c, s, e, seconds)),
        3 => which.prop_map(|(c, s, e)| Operation::Revoke(c, s, e)),
        1 => (0..CLIENTS.len()).prop_map(Operation::RevokeClient),
        1 => (0..SERVICES.len()).prop_map(Operation::Protect),
        1 => Just(Operation::Restart),
        1 => (0..3_usize).prop_map(Operation::Meddle),
        1 => Just(Operation::Unprotect),
    ]
}

/// What should be, kept as simply as possible.
#[derive(Default)]
struct Model {
    services: Option<&'static [&'static str]>,
    grants: BTreeMap<GrantKey, Lifetime>,
}

impl Model {
    /// Carries out the operation, and returns the keys that changed.
    fn follow(&mut self, operation: Operation, now: SystemTime) -> Vec<GrantKey> {
        let one = |c: usize, s: usize, e: usize| key(CLIENTS[c], SOURCES[s], ENDPOINTS[e]);
        match operation {
            Operation::Grant(c, s, e, seconds) => {
                let until = now + Duration::from_secs(seconds);
                self.grants.insert(one(c, s, e), Lifetime { from: now, until });
                vec![one(c, s, e)]
            }
            Operation::Revoke(c, s, e) => {
                self.grants.remove(&one(c, s, e));
                vec![one(c, s, e)]
            }
            Operation::RevokeClient(c) => {
                let of = |key: &GrantKey| key.client.as_str() == CLIENTS[c];
                let gone: Vec<_> = self.grants.keys().filter(|key| of(key)).cloned().collect();
                self.grants.retain(|key, _| !of(key));
                gone
            }
            Operation::Protect(which) => {
                self.services = Some(SERVICES[which]);
                Vec::new()
            }
            Operation::Unprotect => {
                *self = Self::default();
                Vec::new()
            }
            Operation::Restart | Operation::Meddle(_) => Vec::new(),
        }
    }

    fn wanted(&self) -> Wanted {
        Wanted { protection: self.services.map(protection), grants: self.grants.clone() }
    }
}

/// A driver under test; the memory has no kernel behind it.
struct Subject {
    kind: Option<Kind>,
    enforcer: Enforcer,
}

impl Subject {
    fn follow(&mut self, operation: Operation, model: &Model, changed: &[GrantKey]) {
        match (operation, self.kind) {
            (Operation::Restart, Some(kind)) => {
                // The old one goes first: it may hold the table.
                self.enforcer = Enforcer::new(Box::new(Memory::new()));
                self.enforcer = Enforcer::new(kind.open().expect("it opens again"));
                let adopted: BTreeMap<_, _> =
                    self.enforcer.adopt().expect("it is read").into_iter().collect();
                let keys = |grants: &BTreeMap<GrantKey, Lifetime>| grants.keys().cloned().collect::<Vec<_>>();
                if model.services.is_some() {
                    assert_eq!(keys(&adopted), keys(&model.grants), "{kind:?} adopts");
                }
            }
            (Operation::Meddle(which), Some(kind)) => {
                meddle(kind, which);
                self.enforcer.forget();
            }
            _ => {}
        }
        let wanted = model.wanted();
        self.enforcer.enforce_grants(&wanted, changed).expect("it is written");
    }

    /// Whether what stands is what the model says.
    fn agrees(&mut self, model: &Model) -> Result<(), TestCaseError> {
        let spans = |lifetime: &Lifetime| Span::of(lifetime);
        let stands: BTreeMap<_, _> = self
            .enforcer
            .grants()
            .expect("they are read")
            .into_iter()
            .map(|status| (status.key, spans(&status.lifetime)))
            .collect();
        let wanted = if model.services.is_some() { model.grants.clone() } else { BTreeMap::new() };
        let expected: BTreeMap<_, _> = wanted.iter().map(|(key, life)| (key.clone(), spans(life))).collect();
        prop_assert_eq!(&stands, &expected, "{:?}", self.kind);
        let plan = self.enforcer.plan(&model.wanted()).expect("it is read");
        prop_assert!(plan.is_empty(), "{:?}: {}", self.kind, plan);
        let opened: BTreeSet<_> =
            wanted.keys().map(|key| format!("{} {}", key.source, key.endpoint)).collect();
        let mut closed: Vec<_> =
            model.services.into_iter().flatten().map(|text| (*text).to_owned()).collect();
        closed.extend(model.services.map(|_| "udp/62201".to_owned()));
        closed.sort();
        if let Some(kind) = self.kind {
            let listed = listed(kind);
            prop_assert_eq!(&listed.opened, &opened, "{:?}", kind);
            for family in &listed.closed {
                prop_assert_eq!(family, &closed, "{:?}", kind);
            }
        }
        Ok(())
    }
}

/// Nobody but its holder changes the table of nftables: there an end of the holder comes first, as with `Restart`.
fn meddle(kind: Kind, which: usize) {
    let Kind::Iptables(variant) = kind else { return };
    let suffix = if variant == Variant::Nft { "nft" } else { "legacy" };
    let change = ["-D INPUT -j SPA", "-F SPA", "-I SPA 1 -j ACCEPT"][which];
    // What is not there cannot be taken away.
    spa_tests::sh(&format!(
        "iptables-{suffix} -w {change} 2>/dev/null; ip6tables-{suffix} -w {change} 2>/dev/null; true"
    ));
}

/// What the programs of others say.
struct Listed {
    /// `198.51.100.7 tcp/22`, of both families.
    opened: BTreeSet<String>,
    /// Endpoints that are dropped, of each family.
    closed: [Vec<String>; 2],
}

fn listed(kind: Kind) -> Listed {
    match kind {
        Kind::Iptables(variant) => listed_by_iptables(variant),
        Kind::Nftables => listed_by_nft(),
    }
}

fn listed_by_iptables(variant: Variant) -> Listed {
    let text = saved(variant);
    let after = |rule: &str, word: &str| {
        rule.split_once(word).and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default().to_owned()
    };
    let endpoint = |rule: &str| format!("{}/{}", after(rule, "-p "), after(rule, "--dport "));
    let mut listed = Listed { opened: BTreeSet::new(), closed: Default::default() };
    // Each family begins with its own "*filter".
    for (family, part) in text.split("*filter").skip(1).enumerate() {
        for rule in part.lines().filter_map(|line| line.strip_prefix("-A SPA ")) {
            if rule.contains("--datestop") && rule.ends_with("-j ACCEPT") {
                let source = after(rule, "-s ");
                let source = source.split('/').next().unwrap_or_default();
                listed.opened.insert(format!("{source} {}", endpoint(rule)));
            } else if rule.ends_with("-j DROP") {
                listed.closed[family].push(endpoint(rule));
            }
        }
        listed.closed[family].sort();
    }
    listed
}

fn listed_by_nft() -> Listed {
    let ruleset = Ruleset::here();
    let families = spa_tests::Family::BOTH;
    let opened = families.into_iter().flat_map(|family| ruleset.openings(family)).map(|element| {
        let [source, protocol, port] = &element.key[..] else { panic!("no opening: {element:?}") };
        format!("{source} {}/{port}", protocol_name(protocol))
    });
    let closed = ["ipv4", "ipv6"].map(|chain| {
        let rules = ruleset.rules(chain);
        let drops = rules.iter().filter(|rule| {
            rule["expr"].as_array().and_then(|all| all.last()).is_some_and(|last| last.get("drop").is_some())
        });
        let mut closed: Vec<_> = drops
            .map(|rule| {
                let to = &rule["expr"][0]["match"];
                let protocol = to["left"]["payload"]["protocol"].as_str().unwrap_or_default();
                format!("{protocol}/{}", to["right"])
            })
            .collect();
        closed.sort();
        closed
    });
    Listed { opened: opened.collect(), closed }
}

fn run(kinds: &[Kind], operations: &[Operation]) -> Result<(), TestCaseError> {
    let memories = [Memory::new(), Memory::with_sets()]
        .map(|memory| Subject { kind: None, enforcer: Enforcer::new(Box::new(memory)) });
    let real = kinds.iter().map(|kind| Subject {
        kind: Some(*kind),
        enforcer: Enforcer::new(kind.open().expect("it opened before")),
    });
    let mut subjects: Vec<_> = memories.into_iter().chain(real).collect();
    let mut model = Model { services: Some(SERVICES[0]), ..Model::default() };
    for subject in &mut subjects {
        subject.enforcer.enforce(&model.wanted()).expect("it is laid");
    }
    for operation in operations {
        let changed = model.follow(*operation, SystemTime::now());
        for subject in &mut subjects {
            subject.follow(*operation, &model, &changed);
            subject.agrees(&model)?;
        }
        if model.services.is_none() {
            model.services = Some(SERVICES[0]); // laid again with the next operation
        }
    }
    for subject in &mut subjects {
        subject.enforcer.remove_all().expect("it is removed");
        subject.agrees(&Model::default())?;
    }
    Ok(())
}

#[test]
fn every_driver_does_what_the_model_says() {
    spa_tests::in_namespace(|| {
        let kinds: Vec<_> = KINDS
            .into_iter()
            .filter(|kind| {
                let opened = kind.open().map(drop);
                if let Err(error) = &opened {
                    let test = format!("every_driver_does_what_the_model_says ({kind:?})");
                    spa_tests::skip(&test, &error.to_string());
                }
                opened.is_ok()
            })
            .collect();
        let cases = proptest::collection::vec(operations(), 1..12);
        let config = Config { cases: 16, failure_persistence: None, ..Config::default() };
        TestRunner::new(config).run(&cases, |operations| run(&kinds, &operations)).expect("they agree");
    });
}
