//! From the configuration to a firewall driver.

use spa_firewall::Firewall;
use spa_firewall::iptables::{Iptables, Variant as Programs};
use spa_firewall::memory::Memory;
use spa_firewall::nftables::Nftables;
use spa_firewall::survey::{self, Finding};

use crate::config::{Backend, Config, Variant};
use crate::error::Outcome;
use crate::warden::events::firewall_failure;

/// Opens the configured driver; in a dry run the one that only remembers.
///
/// # Errors
/// Where its programs or permissions are missing.
pub fn open(config: &Config, dry_run: bool) -> Outcome<Box<dyn Firewall>> {
    Ok(match config.backend {
        Backend::Iptables if dry_run => Box::new(Memory::new()),
        Backend::Nftables if dry_run => Box::new(Memory::with_sets()),
        Backend::Iptables => Box::new(iptables(config)?),
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
