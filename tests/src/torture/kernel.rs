//! What stands in the kernel, read with the administrator's own tools and understood without any code of spa-server.

use std::net::IpAddr;

use spa_tests::nft::Ruleset;
use spa_tests::ns::Namespace;
use spa_tests::{Family, SPA_PORT, Variant};

use super::model::now;
use super::table;

/// Whose grant, from where, to what (`tcp/22`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub client: String,
    pub source: IpAddr,
    pub endpoint: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.client, self.source, self.endpoint)
    }
}

/// A rule that accepts a grant.
#[derive(Clone, Debug)]
pub struct Grant {
    pub key: Key,
    /// The first second, since 1970, in which the rule matches no more.
    pub until: u64,
}

/// Both families at one time.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// When the reading began and ended, seconds since 1970.
    pub began: f64,
    pub ended: f64,
    pub grants: Vec<Grant>,
    /// What of each family is not ours, counters left out.
    pub foreign: String,
    /// What is wrong with our chain or with the jump, whatever the grants.
    pub faults: Vec<String>,
    /// Families in which nothing of ours is left.
    pub bare: usize,
    /// As the tools printed it.
    pub text: String,
}

/// Reads both families. `allowed` are the sets of protected endpoints, sorted, any of which may stand.
pub fn read(ns: &Namespace, variant: Variant, allowed: &[Vec<String>]) -> Snapshot {
    let mut snapshot = Snapshot { began: now(), ..Snapshot::default() };
    for family in Family::BOTH {
        let save = format!("{}-save", variant.iptables(family));
        let text = ns.sh(&format!("{save} || {save} || {save}"));
        read_family(&text, family, allowed, &mut snapshot);
        snapshot.text += &text;
    }
    if variant == Variant::Nftables {
        read_table(ns, allowed, &mut snapshot);
    }
    snapshot.ended = now();
    snapshot
}

/// The rules of iptables are then all foreign, and what `nft` lists of them counts as well.
fn read_table(ns: &Namespace, allowed: &[Vec<String>], into: &mut Snapshot) {
    let ruleset = Ruleset::read(ns);
    into.foreign += &ruleset.foreign();
    into.text += &format!("{ruleset:?}\n");
    (into.bare, into.faults) = (0, Vec::new());
    for family in Family::BOTH {
        table::read_family(&ruleset, family, allowed, now(), into);
    }
}

fn read_family(text: &str, family: Family, allowed: &[Vec<String>], into: &mut Snapshot) {
    let ours = |line: &&str| line.contains("SPA");
    for line in text.lines().filter(|line| !line.starts_with('#') && !ours(line)) {
        // `:INPUT ACCEPT [12:720]`
        let line = if line.starts_with(':') { line.split(" [").next().unwrap_or(line) } else { line };
        into.foreign += &format!("{family} {line}\n");
    }
    let mut fault = |text: String| into.faults.push(format!("{family}: {text}"));
    if !text.lines().any(|line| ours(&line)) {
        into.bare += 1;
        return;
    }
    let input: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("-A INPUT ")).collect();
    let jumps = input.iter().filter(|rule| **rule == "-j SPA").count();
    if jumps != 1 || input.first() != Some(&"-j SPA") {
        fault(format!("{jumps} jumps; INPUT begins with {:?}", input.first()));
    }
    let (mut established, mut dropped, mut last) = (Vec::new(), Vec::new(), 0);
    for rule in text.lines().filter_map(|line| line.strip_prefix("-A SPA ")) {
        let endpoint = || Some(format!("{}/{}", after(rule, "-p ")?, after(rule, "--dport ")?));
        let place = if rule == "-i lo -j RETURN" {
            0
        } else if rule.contains("--ctstate ESTABLISHED --ctdir ORIGINAL -j ACCEPT") {
            established.extend(endpoint());
            1
        } else if let Some(grant) = grant(rule) {
            into.grants.push(grant);
            2
        } else if rule.ends_with("-j DROP") && !rule.contains("-s ") && !rule.contains("-m time") {
            dropped.extend(endpoint());
            3
        } else {
            fault(format!("not one of its rules: {rule}"));
            continue;
        };
        if place < last {
            fault(format!("out of order: {rule}"));
        }
        last = place;
    }
    let spa = format!("udp/{SPA_PORT}");
    if dropped.pop().as_ref() != Some(&spa) {
        fault("the SPA port is not dropped last".into());
    }
    established.sort();
    dropped.sort();
    if established != dropped || !allowed.contains(&dropped) {
        fault(format!("protects {dropped:?}, keeps established {established:?}; wanted one of {allowed:?}"));
    }
}

fn after<'a>(rule: &'a str, word: &str) -> Option<&'a str> {
    rule.split_once(word)?.1.split(' ').next()
}

/// The dates are what the kernel goes by, so they count, and the comment has to say the same.
fn grant(rule: &str) -> Option<Grant> {
    let source = after(rule, "-s ")?.split('/').next()?.parse().ok()?;
    let comment = rule.split_once("--comment \"spa ")?.1.split('"').next()?;
    let (client, said) = comment.split_once(" until=")?;
    let until = seconds(after(rule, "--datestop ")?)? + 1;
    seconds(after(rule, "--datestart ")?)?;
    let whole = rule.ends_with("-j ACCEPT") && said.parse() == Ok(until);
    let endpoint = format!("{}/{}", after(rule, "-p ")?, after(rule, "--dport ")?);
    whole.then(|| Grant { key: Key { client: client.into(), source, endpoint }, until })
}

/// `2025-12-22T00:00:00`, UTC, in seconds since 1970; years from 1970 to 2099.
fn seconds(date: &str) -> Option<u64> {
    let mut parts = date.split(['-', 'T', ':']).map(|part| part.parse::<u64>().ok());
    let mut next = || parts.next().flatten();
    let (year, month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?, next()?);
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_day = u64::from(year % 4 == 0 && month > 2);
    let before = BEFORE.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    let days = (year - 1970) * 365 + (year - 1969) / 4 + before + leap_day + day - 1;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}
