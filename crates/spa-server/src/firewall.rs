//! From the configuration to a firewall driver.

use spa_firewall::Firewall;
use spa_firewall::iptables::{Iptables, Variant as Programs};
use spa_firewall::memory::Memory;
use spa_firewall::survey::{self, Finding};

use crate::config::{Backend, Config, Variant};
use crate::error::{Exit, Failure, Outcome};
use crate::warden::events::firewall_failure;

/// Opens the configured driver; in a dry run the one that only remembers.
///
/// # Errors
/// Where its programs or permissions are missing.
pub fn open(config: &Config, dry_run: bool) -> Outcome<Box<dyn Firewall>> {
    if dry_run {
        return Ok(Box::new(Memory::default()));
    }
    match config.backend {
        Backend::Iptables => Ok(Box::new(iptables(config)?)),
        Backend::Nftables => Err(Failure::new(
            Exit::Config,
            format_args!("{}: backend = \"nftables\" is not in this version yet", config.path.display()),
        )
        .hint("backend = \"iptables\"")),
    }
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
        Backend::Nftables => open(config, false).map(|_| Vec::new()),
    }
}

fn iptables(config: &Config) -> Outcome<Iptables> {
    let variant = match config.variant {
        Variant::System => Programs::System,
        Variant::Nft => Programs::Nft,
        Variant::Legacy => Programs::Legacy,
    };
    Iptables::open(variant).map_err(firewall_failure)
}
