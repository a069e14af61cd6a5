//! The table of the nftables driver, as `nft -j` lists it, understood without any code of spa-server.

use std::net::{IpAddr, Ipv6Addr};

use serde_json::Value;
use spa_tests::nft::{Element, Ruleset, protocol_name};
use spa_tests::{Family, SPA_PORT};

use super::kernel::{Grant, Key, Snapshot};

/// The base chain stands before every filter at priority 0.
const PRIORITY: i64 = -150;
/// `nft` rounds what is left of an element's time down to seconds, and a busy machine reads late.
const TIME_TOLERANCE: f64 = 2.5;
/// Numbers of `ct state established` and `ct direction original`, as `nft -n` prints them.
const ESTABLISHED: u64 = 2;
const ORIGINAL: u64 = 0;

/// Reads a family. `now` is when the listing was made, in seconds since 1970.
pub fn read_family(
    ruleset: &Ruleset,
    family: Family,
    allowed: &[Vec<String>],
    now: f64,
    into: &mut Snapshot,
) {
    let chain = if family == Family::V4 { "ipv4" } else { "ipv6" };
    if !ruleset.has_table() {
        into.bare += 1;
        return;
    }
    let mut faults = Vec::new();
    faults.extend(rules(ruleset, family, chain, allowed).err());
    let jumps: Vec<_> = ruleset.rules("input").into_iter().map(|rule| rule["expr"].clone()).collect();
    let jump = jumps.iter().filter(|expr| expr[1]["jump"]["target"] == chain).count();
    if jumps.len() != 2 || jump != 1 {
        faults.push(format!("the base chain is {jumps:?}"));
    }
    let hooked = ruleset.chain("input").is_some_and(|chain| {
        chain["hook"] == "input" && chain["prio"] == PRIORITY && chain["policy"] == "accept"
    });
    if !hooked {
        faults.push(format!("the hook is {:?}", ruleset.chain("input")));
    }
    let grants = ruleset.owners(family).iter().map(grant).collect::<Result<Vec<_>, _>>();
    match grants {
        Ok(grants) => {
            let open = ruleset.openings(family);
            faults.extend(openings(&grants, &open, now));
            // An owner whose opening somebody took away opens nothing.
            let stands = |grant: &Grant| open.iter().any(|element| opens(grant, element));
            into.grants.extend(grants.into_iter().map(|(grant, _)| grant).filter(stands));
        }
        Err(fault) => faults.push(fault),
    }
    into.faults.extend(faults.into_iter().map(|fault| format!("{family}: {fault}")));
}

/// The rules of the family's chain, each by what it does; its comment is not looked at.
fn rules(ruleset: &Ruleset, family: Family, chain: &str, allowed: &[Vec<String>]) -> Result<(), String> {
    let set = if family == Family::V4 { "@openings4" } else { "@openings6" };
    let (mut established, mut dropped, mut lookups, mut last) = (Vec::new(), Vec::new(), 0, 0);
    for rule in ruleset.rules(chain) {
        let empty = Vec::new();
        let expressions = rule["expr"].as_array().unwrap_or(&empty);
        let matches: Vec<_> = expressions.iter().filter_map(|one| one.get("match")).collect();
        let ends = |verdict: &str| expressions.last().is_some_and(|last| last.get(verdict).is_some());
        let is = |one: &Value, what: &Value, right: &Value| one["left"] == *what && one["right"] == *right;
        let meta = |key: &str| serde_json::json!({"meta": {"key": key}});
        let ct = |key: &str| serde_json::json!({"ct": {"key": key}});
        let place = match &matches[..] {
            [one] if is(one, &meta("iifname"), &"lo".into()) && ends("return") => 0,
            [to, state, direction]
                if is(state, &ct("state"), &ESTABLISHED.into())
                    && is(direction, &ct("direction"), &ORIGINAL.into())
                    && ends("accept") =>
            {
                established.extend(endpoint(to));
                1
            }
            [one] if one["right"] == set && ends("accept") => {
                lookups += 1;
                2
            }
            [to] if ends("drop") => {
                dropped.extend(endpoint(to));
                3
            }
            _ => return Err(format!("not one of its rules: {rule}")),
        };
        if place < last {
            return Err(format!("out of order: {rule}"));
        }
        last = place;
    }
    if dropped.pop() != Some(format!("udp/{SPA_PORT}")) {
        return Err("the SPA port is not dropped last".into());
    }
    established.sort();
    dropped.sort();
    if established != dropped || !allowed.contains(&dropped) || lookups != 1 {
        return Err(format!(
            "protects {dropped:?}, keeps established {established:?}, {lookups} look-ups; wanted one of {allowed:?}"
        ));
    }
    Ok(())
}

/// From `tcp dport 22`.
fn endpoint(to: &Value) -> Option<String> {
    let field = &to["left"]["payload"];
    let port = to["right"].as_u64().filter(|_| field["field"] == "dport" && to["op"] == "==")?;
    Some(format!("{}/{port}", field["protocol"].as_str()?))
}

/// An owner, and the end that is written beside it. The client's name fills the last two parts of the key.
fn grant(element: &Element) -> Result<(Grant, f64), String> {
    let read = || {
        let [source, protocol, port, name @ ..] = &element.key[..] else { return None };
        let bytes: Vec<u8> = name
            .iter()
            .map(|part| part.parse::<Ipv6Addr>().ok().map(|address| address.octets()))
            .collect::<Option<Vec<_>>>()?
            .concat();
        let client = String::from_utf8(bytes).ok()?.trim_end_matches('\0').to_owned();
        let (said, until) = element.comment.strip_prefix("spa ")?.split_once(" from=")?;
        let until: f64 = until.split_once(" until=")?.1.parse().ok()?;
        let source: IpAddr = source.parse().ok()?;
        let endpoint = format!("{}/{port}", protocol_name(protocol));
        let key = (said == client).then_some(Key { client, source, endpoint })?;
        Some((Grant { key, until: until.ceil() as u64 }, until))
    };
    read().ok_or_else(|| format!("not an owner: {element:?}"))
}

/// Whether an element lets in what was granted.
fn opens(grant: &Grant, element: &Element) -> bool {
    let [source, protocol, port] = &element.key[..] else { return false };
    let endpoint = format!("{}/{port}", protocol_name(protocol));
    source.parse() == Ok(grant.key.source) && endpoint == grant.key.endpoint
}

/// What is open has an owner, what has an owner is open, and the kernel's time is what was written.
fn openings(grants: &[(Grant, f64)], openings: &[Element], now: f64) -> Vec<String> {
    let mut faults = Vec::new();
    for element in openings {
        let owners = grants.iter().filter(|(grant, _)| opens(grant, element));
        let until = owners.map(|(_, until)| *until).fold(0.0, f64::max);
        let ends = now + element.expires.map_or(f64::INFINITY, |seconds| seconds as f64);
        if (ends - until).abs() > TIME_TOLERANCE {
            faults.push(format!("open to {ends:.3}, its owners to {until:.3}: {element:?}"));
        }
    }
    for (grant, until) in grants {
        if *until > now + TIME_TOLERANCE && !openings.iter().any(|element| opens(grant, element)) {
            faults.push(format!("{} is not open", grant.key));
        }
    }
    faults
}
