//! From the configuration to a firewall driver.

use spa_firewall::iptables::{CHAIN, Iptables, Variant as Programs};
use spa_firewall::memory::Memory;
use spa_firewall::nftables::Nftables;
use spa_firewall::survey::{self, Finding, Holder};
use spa_firewall::{Choice, Driver, Enforcer, Family, Firewall};

use crate::config::{Backend, Config, Variant};
use crate::error::{Exit, Failure, Outcome};
use crate::files;
use crate::lock::Lock;
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

/// Opens the configured driver; in a dry run the one that only remembers. What writes for it holds `lock`.
///
/// # Errors
/// Where its programs or permissions are missing.
pub fn open(config: &Config, dry_run: bool, lock: Option<&Lock>) -> Outcome<Opened> {
    let (kind, choice) = settle(config)?;
    let driver: Box<dyn Firewall> = match kind {
        Driver::Iptables if dry_run => Box::new(Memory::new()),
        Driver::Nftables if dry_run => Box::new(Memory::with_sets()),
        Driver::Iptables => match lock {
            Some(lock) => Box::new(iptables(config)?.holding(lock.share()?)),
            None => Box::new(iptables(config)?),
        },
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
/// `iptables` was changed in the configuration. Their drops would outlive every grant. What writes for them holds
/// `lock`, as for [`open`]; only who changes nothing needs none.
pub fn left_behind(in_use: &str, lock: Option<&Lock>) -> Vec<Enforcer> {
    let open = |holder| -> Option<Box<dyn Firewall>> {
        Some(match (holder, lock) {
            (Holder::Nftables, _) => Box::new(Nftables::open().ok()?),
            (Holder::Iptables(variant), Some(lock)) => {
                Box::new(Iptables::open(variant).ok()?.holding(lock.share().ok()?))
            }
            (Holder::Iptables(variant), None) => Box::new(Iptables::open(variant).ok()?),
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
pub fn retire_others(in_use: &str, lock: Option<&Lock>) {
    for mut enforcer in left_behind(in_use, lock) {
        let name = enforcer.name();
        match enforcer.remove_ours() {
            Ok(()) => tracing::warn!(
                "{in_use} protects now; the rules that {name} had from an earlier configuration are removed"
            ),
            Err(error) => tracing::error!(
                "rules from an earlier configuration still stand in {name}, and drop what a grant in {in_use} opens: \
                 {error}"
            ),
        }
    }
}

/// Whether the configured iptables has all that our rules need.
///
/// # Errors
/// As [`spa_firewall::iptables::rehearse`].
pub fn rehearse(config: &Config) -> Result<(), spa_firewall::Error> {
    spa_firewall::iptables::rehearse(programs(config))
}

/// The iptables driver, as configured.
///
/// # Errors
/// As [`open`].
pub fn iptables(config: &Config) -> Outcome<Iptables> {
    Iptables::open(programs(config)).map_err(firewall_failure)
}
