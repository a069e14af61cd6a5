//! From the configuration to a firewall driver.

use spa_firewall::iptables::{CHAIN, Iptables, Variant as Programs};
use spa_firewall::memory::Memory;
use spa_firewall::nftables::Nftables;
use spa_firewall::survey::{self, Finding, Holder};
use spa_firewall::{Enforcer, Family, Firewall};

use crate::config::{Backend, Config, Variant};
use crate::error::{Exit, Failure, Outcome};
use crate::lock::Lock;
use crate::warden::events::firewall_failure;

/// Opens the configured driver; in a dry run the one that only remembers. What writes for it holds `lock`.
///
/// # Errors
/// Where its programs or permissions are missing.
pub fn open(config: &Config, dry_run: bool, lock: Option<&Lock>) -> Outcome<Box<dyn Firewall>> {
    Ok(match config.backend {
        Backend::Iptables if dry_run => Box::new(Memory::new()),
        Backend::Nftables if dry_run => Box::new(Memory::with_sets()),
        Backend::Iptables => match lock {
            Some(lock) => Box::new(iptables(config)?.holding(lock.share()?)),
            None => Box::new(iptables(config)?),
        },
        Backend::Nftables => Box::new(Nftables::open().map_err(firewall_failure)?),
    })
}

/// What on this machine works against the configured firewall.
///
/// # Errors
/// Where the firewall cannot be used or read.
pub fn survey(config: &Config) -> Outcome<Vec<Finding>> {
    match config.backend {
        Backend::Iptables => {
            survey::look(&config.protection(), &mut iptables(config)?).map_err(firewall_failure)
        }
        Backend::Nftables => survey::look_for_nftables().map_err(firewall_failure),
    }
}

/// Refuses to take over a chain of our name that is somebody else's. Where this state directory has seen the daemon
/// work, whatever is in that chain now is a change of what was ours, and is put right.
///
/// # Errors
/// Such a chain, with what to do; or where the firewall cannot be read.
pub fn refuse_chain_of_others(enforcer: &mut Enforcer, config: &Config) -> Outcome {
    if Config::load_last_good(&config.state_dir).is_ok() {
        return Ok(());
    }
    match enforcer.chains_of_others().map_err(firewall_failure)?.first() {
        None => Ok(()),
        Some(family) => {
            let program = if *family == Family::V6 { "ip6tables" } else { "iptables" };
            Err(Failure::new(
                Exit::Config,
                format_args!("firewall: the {family} chain {CHAIN} has rules that spa-server did not lay"),
            )
            .hint(format_args!(
                "look at \"{program} -S {CHAIN}\"; rename it (\"{program} -E {CHAIN} OTHER\"), or remove it if \
                 nothing needs it"
            )))
        }
    }
}

/// Backends other than the one in use (by its driver's name) that still hold rules of ours, from before `backend` or
/// `iptables` was changed in the configuration. Their drops would outlive every grant.
pub fn left_behind(in_use: &str) -> Vec<Enforcer> {
    let open = |holder| -> Option<Box<dyn Firewall>> {
        Some(match holder {
            Holder::Nftables => Box::new(Nftables::open().ok()?),
            Holder::Iptables(variant) => Box::new(Iptables::open(variant).ok()?),
        })
    };
    let enforcers = survey::holders().into_iter().filter_map(open).map(Enforcer::new);
    enforcers
        .filter(|enforcer| enforcer.name() != in_use)
        .filter_map(|mut enforcer| enforcer.stands().is_ok_and(|stands| stands).then_some(enforcer))
        .collect()
}

/// Removes what other backends still hold, now that this one protects, and says so. Failure leaves more closed than is
/// wanted, and is said.
pub fn retire_others(in_use: &str) {
    for mut enforcer in left_behind(in_use) {
        let name = enforcer.name();
        match enforcer.remove_all() {
            Ok(_) => tracing::warn!(
                "{in_use} protects now; the rules that {name} had from an earlier configuration are removed"
            ),
            Err(error) => tracing::error!(
                "rules from an earlier configuration still stand in {name}, and drop what a grant in {in_use} opens: \
                 {error}"
            ),
        }
    }
}

/// The iptables driver, as configured.
///
/// # Errors
/// As [`open`].
pub fn iptables(config: &Config) -> Outcome<Iptables> {
    let variant = match config.variant {
        Variant::System => Programs::System,
        Variant::Nft => Programs::Nft,
        Variant::Legacy => Programs::Legacy,
    };
    Iptables::open(variant).map_err(firewall_failure)
}
