//! From the configuration to a firewall driver.

use spa_firewall::iptables::{Iptables, Variant as Programs};
use spa_firewall::memory::Memory;
use spa_firewall::nftables::Nftables;
use spa_firewall::survey::{self, Finding};
use spa_firewall::{Choice, Driver, Firewall};

use crate::config::{Backend, Config, Variant};
use crate::error::Outcome;
use crate::files;
use crate::warden::events::firewall_failure;

/// What `backend = "auto"` chose, in the state directory: one word.
const CHOSEN: &str = "backend";

/// A driver, and, where that was left to us, why it is this one.
pub struct Opened {
    /// The driver.
    pub driver: Box<dyn Firewall>,
    /// Which it is, or in a dry run would be.
    pub kind: Driver,
    /// Of `backend = "auto"`.
    pub choice: Option<Choice>,
}

/// Opens the configured driver; in a dry run the one that only remembers.
///
/// # Errors
/// Where its programs or permissions are missing.
pub fn open(config: &Config, dry_run: bool) -> Outcome<Opened> {
    let (kind, choice) = settle(config)?;
    let driver: Box<dyn Firewall> = match kind {
        Driver::Iptables if dry_run => Box::new(Memory::new()),
        Driver::Nftables if dry_run => Box::new(Memory::with_sets()),
        Driver::Iptables => Box::new(iptables(config)?),
        Driver::Nftables => Box::new(Nftables::open_marking(config.mark).map_err(firewall_failure)?),
    };
    Ok(Opened { driver, kind, choice })
}

/// Which driver the configuration means, and why, if it leaves the choice.
///
/// # Errors
/// Where the firewall cannot be looked at.
pub fn settle(config: &Config) -> Outcome<(Driver, Option<Choice>)> {
    match config.backend {
        Backend::Iptables => Ok((Driver::Iptables, None)),
        Backend::Nftables => Ok((Driver::Nftables, None)),
        Backend::Auto => {
            let choice = spa_firewall::choose(programs(config), before(config), config.mark.is_some());
            let choice = choice.map_err(firewall_failure)?;
            Ok((choice.driver, Some(choice)))
        }
    }
}

/// Keeps a choice for the next start, which may come before what it goes by (firewalld, at boot).
///
/// # Errors
/// Where the file cannot be written.
pub fn keep_choice(config: &Config, choice: Option<&Choice>) -> Outcome {
    let Some(choice) = choice.filter(|choice| before(config) != Some(choice.driver)) else { return Ok(()) };
    let (path, text) = (config.state_dir.join(CHOSEN), format!("{}\n", choice.driver.name()));
    files::write_atomically(&path, text.as_bytes(), 0o600, files::Existing::Replace)
}

/// Forgets it.
///
/// # Errors
/// Where the file cannot be removed.
pub fn forget_choice(config: &Config) -> Outcome {
    let path = config.state_dir.join(CHOSEN);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(crate::error::Failure::io("cannot remove", &path, &error))
        }
        _ => Ok(()),
    }
}

/// What was chosen before. A file that is missing or not ours is no choice.
fn before(config: &Config) -> Option<Driver> {
    let text = files::read_config(&config.state_dir.join(CHOSEN)).ok()?;
    [Driver::Iptables, Driver::Nftables].into_iter().find(|driver| text.trim() == driver.name())
}

/// What on this machine works against the firewall.
///
/// # Errors
/// Where the firewall cannot be used or read.
pub fn survey(config: &Config, driver: Driver) -> Outcome<Vec<Finding>> {
    match driver {
        Driver::Iptables => {
            survey::look(&config.protection(), &mut iptables(config)?).map_err(firewall_failure)
        }
        Driver::Nftables => survey::look_for_nftables().map_err(firewall_failure),
    }
}

fn programs(config: &Config) -> Programs {
    match config.variant {
        Variant::System => Programs::System,
        Variant::Nft => Programs::Nft,
        Variant::Legacy => Programs::Legacy,
    }
}

fn iptables(config: &Config) -> Outcome<Iptables> {
    Iptables::open(programs(config)).map_err(firewall_failure)
}
