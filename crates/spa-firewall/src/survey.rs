//! What on this host works against the driver: for `check`, and said once at start.

use core::fmt;
use std::path::Path;

use spa_proto::Endpoint;

use crate::ahead::can_accept;
use crate::driver::Firewall;
use crate::error::Error;
use crate::iptables::{Backend, Iptables, Variant, printed, published_ports, search_path};
use crate::kernel::FamilyState;
use crate::model::{Family, Protection};
use crate::nft::{InputChain, input_chains};
use crate::nftables::{Nftables, TABLE};

/// Exists while firewalld runs, or ran since boot.
pub(crate) const FIREWALLD: [&str; 2] = ["/run/firewalld.pid", "/run/firewalld"];
/// The tables of iptables-legacy that the kernel holds. Reading these makes none; asking iptables-legacy would. In a
/// user namespace they may be unreadable, and then nothing is said.
const LEGACY_TABLES: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It may surprise.
    Warning,
    /// What is protected is open, or a grant opens nothing.
    Error,
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}; {}", self.what, self.remedy)
    }
}

/// Looks around for the iptables driver. Nothing is changed.
///
/// # Errors
/// If the firewall cannot be read at all. What cannot be looked at otherwise is a finding.
pub fn look(protection: &Protection, driver: &mut Iptables) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let chains = chains_or_finding(&mut findings);
    if FIREWALLD.iter().any(|path| Path::new(path).exists())
        || chains.iter().any(|chain| chain.table == "firewalld")
    {
        findings.push(error(
            "firewalld runs: its zone rejects what an iptables grant accepts, and its reload deletes our chain",
            "use backend = \"nftables\", or stop firewalld",
        ));
    }
    findings.extend(other_nft(&chains, driver.backend() == Backend::Nft));
    if driver.backend() == Backend::Nft {
        findings.extend(LEGACY_TABLES.iter().filter_map(|path| legacy_in_use(path)));
    }
    for family in Family::BOTH {
        findings.extend(void(protection, family, &driver.read_family(family)?));
        let published = driver.nat(family)?.map(|text| published_ports(&text, &protection.services));
        findings.extend(
            published.unwrap_or_default().into_iter().map(|endpoint| published_finding(family, endpoint)),
        );
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(findings)
}

/// Looks around for the nftables driver, also while a daemon holds the table. Nothing is changed.
///
/// # Errors
/// If the driver cannot be used.
pub fn look_for_nftables() -> Result<Vec<Finding>, Error> {
    match Nftables::open() {
        Ok(_) | Err(Error::Owned { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut findings = Vec::new();
    let chains = chains_or_finding(&mut findings);
    if chains.iter().any(|chain| chain.table == "firewalld") {
        findings.push(warning(
            "firewalld runs: its zone rejects what it does not know, also for those who have a grant",
            "allow each protected service in the zone, as in \"firewall-cmd --permanent --add-service=ssh\"; \
             spa-server closes it",
        ));
    }
    findings.extend(other_nft(&chains, false));
    findings.extend(LEGACY_TABLES.iter().filter_map(|path| legacy_in_use(path)));
    Ok(findings)
}

/// A firewall that may hold rules of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The table of the nftables driver.
    Nftables,
    /// The chain of the iptables driver.
    Iptables(Variant),
}

/// Where rules of ours may stand: for who has changed the backend. Runs no program and makes no table, so it only says
/// where to look; empty where nf_tables cannot be listed.
pub fn holders() -> Vec<Holder> {
    let chains = input_chains().unwrap_or_default();
    let legacy = LEGACY_TABLES.iter().any(|path| lists_filter(path));
    let all = [
        (Holder::Nftables, chains.iter().any(|chain| chain.family == "inet" && chain.table == TABLE)),
        (Holder::Iptables(Variant::Nft), chains.iter().any(InputChain::is_of_iptables)),
        (Holder::Iptables(Variant::Legacy), legacy),
    ];
    all.into_iter().filter(|(_, may)| *may).map(|(holder, _)| holder).collect()
}

fn lists_filter(path: &str) -> bool {
    std::fs::read_to_string(path).unwrap_or_default().lines().any(|table| table == "filter")
}

fn chains_or_finding(findings: &mut Vec<Finding>) -> Vec<InputChain> {
    input_chains().unwrap_or_else(|error| {
        findings.push(warning(format!("nf_tables cannot be listed ({error})"), "run as root"));
        Vec::new()
    })
}

fn error(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, what: what.into(), remedy: remedy.into() }
}

fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, ..error(what, remedy) }
}

/// Another chain's drop wins over our accept, whatever the priorities. Those of iptables-nft may be where our own
/// rules are.
fn other_nft(chains: &[InputChain], ours_is_iptables: bool) -> Vec<Finding> {
    let other = chains.iter().filter(|chain| chain.table != "firewalld" && chain.table != TABLE);
    let other = other.filter(|chain| !chain.is_inert && (!ours_is_iptables || !chain.is_of_iptables()));
    let finding = |chain: &InputChain| {
        warning(
            format!(
                "the nft chain {} in table {} {} also filters what comes in; a grant cannot open what it drops",
                chain.name, chain.family, chain.table
            ),
            match ours_is_iptables {
                true => format!("look at \"nft list table {} {}\"", chain.family, chain.table),
                false => format!(
                    "look at \"nft list table {} {}\"; docs/COEXISTENCE.md has the rule that lets in what [firewall] \
                     mark is set on",
                    chain.family, chain.table
                ),
            },
        )
    };
    other.map(finding).collect()
}

fn legacy_in_use(path: &str) -> Option<Finding> {
    let program = if path.contains("ip6") { "ip6tables-legacy" } else { "iptables-legacy" };
    (lists_filter(path) && !is_inert(program)).then(|| {
        warning(
            format!(
                "the filter table of {program} is in use beside nf_tables; a grant cannot open what it drops"
            ),
            format!("look at \"{program} -S\", and keep all rules in one of the two"),
        )
    })
}

/// Whether the filter table of a legacy program, which is there, drops nothing that comes in: it has no rule for it, and
/// accepts. What cannot be read may drop.
fn is_inert(program: &str) -> bool {
    let listing = printed(&format!("{program}-save"), &["-t", "filter"], &search_path()).unwrap_or_default();
    let mut lines = listing.lines();
    lines.any(|line| line.starts_with(":INPUT ACCEPT ")) && !lines.any(|line| line.starts_with("-A INPUT "))
}

/// A host rule ahead of our jump that could accept what we drop.
fn void(protection: &Protection, family: Family, state: &FamilyState) -> Option<Finding> {
    if state.jumps.is_empty() {
        return None; // laid at position 1 when we start
    }
    let rule = state.ahead.iter().find(|rule| can_accept(rule, protection))?;
    Some(error(
        format!("the {family} rule \"-A INPUT {rule}\" stands ahead of ours and may accept a protected port"),
        "let the program that sets it append it instead; \"spa-server reload\" moves ours back to the front",
    ))
}

fn published_finding(family: Family, endpoint: Endpoint) -> Finding {
    error(
        format!(
            "{family} packets to {endpoint} are redirected before INPUT, as by a published Docker port: not protected"
        ),
        "publish it on an address that is not reachable, or take it out of [services]",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: &'static str, table: &str, name: &str) -> InputChain {
        InputChain { family, table: table.into(), name: name.into(), is_inert: false }
    }

    #[test]
    fn only_chains_of_others_are_told() {
        let chains = [
            chain("ip", "filter", "INPUT"),
            chain("inet", "spa", "input"),
            chain("inet", "firewalld", "filter_INPUT"),
            chain("inet", "filter", "input"),
            InputChain { is_inert: true, ..chain("ip6", "filter", "INPUT") },
            InputChain { is_inert: true, ..chain("inet", "other", "input") },
        ];
        let told = |ours_is_iptables| other_nft(&chains, ours_is_iptables).len();
        assert_eq!((told(true), told(false)), (1, 2));
    }

    #[test]
    fn a_jump_behind_an_accept_is_an_error() {
        let protection = Protection {
            spa_port: 62201,
            protect: true,
            except: Vec::new(),
            services: ["tcp/22".parse().expect("an endpoint")].into(),
            provisional_until: None,
        };
        let mut state =
            FamilyState { present: true, ahead: vec!["-p tcp -j ACCEPT".into()], ..FamilyState::default() };
        assert_eq!(void(&protection, Family::V4, &state), None);
        state.jumps.push(2);
        assert_eq!(
            void(&protection, Family::V4, &state).map(|finding| finding.severity),
            Some(Severity::Error)
        );
        state.ahead = vec!["-j DROP".into()];
        assert_eq!(void(&protection, Family::V4, &state), None);
    }
}
