//! `backend = "auto"`: which driver suits this host, and why. What stands decides, then what was chosen before, then
//! what else filters here; so a host does not change from one to the other by itself.

use core::fmt;
use std::path::Path;

use crate::error::Error;
use crate::iptables::{Iptables, Variant};
use crate::model::Family;
use crate::nft::{InputChain, input_chains};
use crate::nftables;
use crate::survey::FIREWALLD;

/// Links to firewalld's unit, by which systemd starts it at boot: a choice that is made before it runs must be the same.
const FIREWALLD_ENABLED: [&str; 2] = [
    "/etc/systemd/system/dbus-org.fedoraproject.FirewallD1.service",
    "/etc/systemd/system/multi-user.target.wants/firewalld.service",
];

/// A driver for the real firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// One chain, through the programs.
    Iptables,
    /// One table, over netlink.
    Nftables,
}

impl Driver {
    /// As the configuration calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// Which, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The driver.
    pub driver: Driver,
    /// Why, as the end of a sentence: `firewalld runs`.
    pub why: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, because {}", self.driver.name(), self.why)
    }
}

/// What the choice goes by.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// `inet spa` stands.
    table: bool,
    /// Our chain stands in iptables.
    chain: bool,
    /// What was chosen before.
    before: Option<Driver>,
    /// A mark is configured, which only one of the two can set.
    mark: bool,
    firewalld: bool,
    /// Why iptables cannot be used, if it cannot.
    no_iptables: Option<String>,
    /// Rules of others in the INPUT chain of iptables.
    input_rules: usize,
    /// A chain of others that filters what comes in and is not of iptables.
    native: Option<String>,
}

/// Chooses. Nothing is changed. `before` is what was chosen the last time, `marking` whether a mark is configured.
///
/// # Errors
/// If the firewall cannot be read for want of rights.
pub fn choose(variant: Variant, before: Option<Driver>, marking: bool) -> Result<Choice, Error> {
    let chains = input_chains().map_err(|source| match source.kind() {
        std::io::ErrorKind::PermissionDenied => {
            Error::NotPermitted { command: "listing nf_tables".into(), needs: "CAP_NET_ADMIN" }
        }
        _ => Error::Io { doing: "listing nf_tables", source },
    })?;
    let exists = |paths: &[&str]| paths.iter().any(|path| Path::new(path).symlink_metadata().is_ok());
    let mut seen = Seen {
        table: chains.iter().any(is_ours),
        before,
        mark: marking,
        firewalld: exists(&FIREWALLD)
            || exists(&FIREWALLD_ENABLED)
            || chains.iter().any(|chain| chain.table == "firewalld"),
        native: chains.iter().find(|chain| is_native(chain)).map(describe),
        ..Seen::default()
    };
    match look_at_iptables(variant) {
        Ok((chain, rules)) => (seen.chain, seen.input_rules) = (chain, rules),
        Err(error @ Error::NotPermitted { .. }) => return Err(error),
        Err(error) => seen.no_iptables = Some(error.to_string()),
    }
    Ok(decide(&seen))
}

/// Whether our chain stands in either family, and how many rules of others INPUT has.
fn look_at_iptables(variant: Variant) -> Result<(bool, usize), Error> {
    use crate::driver::Firewall as _;
    let kernel = Iptables::open(variant)?.read()?;
    let states = Family::BOTH.map(|family| kernel.family(family).clone());
    let stands = states.iter().any(|state| state.present);
    Ok((stands, states.iter().map(|state| state.ahead.len()).sum()))
}

fn is_ours(chain: &InputChain) -> bool {
    chain.family == "inet" && chain.table == nftables::TABLE
}

fn is_native(chain: &InputChain) -> bool {
    !is_ours(chain) && !chain.is_of_iptables() && chain.table != "firewalld"
}

fn describe(chain: &InputChain) -> String {
    format!("{} {} {}", chain.family, chain.table, chain.name)
}

fn decide(seen: &Seen) -> Choice {
    let choice = |driver, why: &str| Choice { driver, why: why.to_owned() };
    let (iptables, nftables) = (Driver::Iptables, Driver::Nftables);
    if seen.table {
        return choice(nftables, "the table inet spa stands already");
    }
    if seen.chain {
        return choice(iptables, "its chain SPA stands already");
    }
    if let Some(why) = &seen.no_iptables {
        return choice(nftables, &format!("iptables cannot be used ({why})"));
    }
    if let Some(driver) = seen.before {
        return choice(driver, "that was chosen before (\"spa-server unprotect\" forgets it)");
    }
    if seen.mark {
        return choice(nftables, "a mark is configured");
    }
    if seen.firewalld {
        return choice(nftables, "firewalld runs, or will at the next boot");
    }
    if seen.input_rules > 0 {
        return choice(iptables, "its INPUT chain has rules already, as ufw makes them");
    }
    if let Some(chain) = &seen.native {
        return choice(nftables, &format!("a native nft chain filters what comes in ({chain})"));
    }
    choice(iptables, "it is the default, and nothing else filters here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_in_its_order() {
        let seen = Seen::default();
        assert_eq!(decide(&seen).driver, Driver::Iptables, "the default");
        // From the last to the first: each overrules those before it.
        type Step = (fn(&mut Seen), Driver, &'static str);
        let steps: [Step; 8] = [
            (|seen| seen.native = Some("inet filter input".into()), Driver::Nftables, "inet filter input"),
            (|seen| seen.input_rules = 1, Driver::Iptables, "INPUT"),
            (|seen| seen.firewalld = true, Driver::Nftables, "firewalld"),
            (|seen| seen.mark = true, Driver::Nftables, "mark"),
            (|seen| seen.before = Some(Driver::Iptables), Driver::Iptables, "before"),
            (|seen| seen.no_iptables = Some("not installed".into()), Driver::Nftables, "not installed"),
            (|seen| seen.chain = true, Driver::Iptables, "SPA"),
            (|seen| seen.table = true, Driver::Nftables, "inet spa"),
        ];
        let mut seen = Seen::default();
        for (step, driver, why) in steps {
            step(&mut seen);
            let choice = decide(&seen);
            assert_eq!(choice.driver, driver, "{choice}");
            assert!(choice.why.contains(why), "{choice}");
        }
    }
}
