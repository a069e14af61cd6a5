//! The commands that work without the daemon: `protect`, `unprotect`, `recover`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use spa_firewall::{Enforcer, Family, Wanted};

use crate::config::Config;
use crate::error::{Exit, Failure, Outcome, counted};
use crate::journal::Journal;
use crate::log::say;
use crate::warden::{self, events::firewall_failure, set_back::ClockNote};
use crate::{clock, control, files, firewall, lock};

/// Closes the protected ports, with the grants that still run. Where the configuration is broken, from the last good
/// one: a typing error must not open a machine at its next boot.
pub fn protect(path: &Path) -> Outcome {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(failure) => {
            let last_good = Config::load_last_good(&state_dir(path)?).map_err(|_| failure)?;
            say!(
                "spa-server: {} is wrong or missing; protecting from {}",
                path.display(),
                last_good.path.display()
            );
            last_good
        }
    };
    files::make_private_directory(&config.state_dir)?;
    // One that is starting may yet fail, with nothing protected.
    if control::serves(&config.state_dir) {
        say!("the daemon runs, and protects already");
        return Ok(());
    }
    let lock = lock::exclusive(&config.state_dir)?;
    let firewall::Opened { driver, choice, .. } = firewall::open(&config, false, Some(&lock))?;
    if let Some(choice) = &choice {
        say!("backend \"auto\": {choice}");
    }
    let mut enforcer = Enforcer::new(driver);
    firewall::refuse_chain_of_others(&mut enforcer, &config)?;
    let mut found = enforcer.adopt().map_err(firewall_failure)?;
    let before = warden::standing(&mut enforcer, &config.state_dir, &found)?;
    let kept = before.map_or_else(BTreeSet::new, |protection| protection.services);
    warden::keep_connections(&(&config.endpoints() - &kept))?;
    let mut clock_note = ClockNote::read(&config.state_dir);
    let clocks = clock::now();
    clock_note.undo(clocks, &enforcer.name(), &mut found);
    // What is found keeps its dates where the clock was set forward, so a failure may wait until the ports are closed.
    let noted = clock_note.before_dating(clocks);
    let now = SystemTime::now();
    let grants = found.into_iter().filter(|(_, lifetime)| lifetime.until > now).collect();
    enforcer.enforce(&Wanted { protection: Some(config.protection()), grants }).map_err(firewall_failure)?;
    noted?;
    clock_note.all_dated(clocks);
    clock_note.all_written()?;
    firewall::retire_others(&enforcer.name(), Some(&lock));
    begin_record(&config);
    config.keep_as_last_good()?;
    firewall::keep_choice(&config, choice.as_ref())?;
    say!("protected: {}", list(&config));
    Ok(())
}

/// Makes the replay record where nothing of ours ever ran: a last good configuration without one means to the daemon
/// that it was lost, and that it must refuse whatever is made until max-age from now.
fn begin_record(config: &Config) {
    let path = config.state_dir.join(warden::RECORD);
    if path.exists() || Config::load_last_good(&config.state_dir).is_ok() {
        return;
    }
    if let Err(failure) = warden::Record::open(&path, clock::now().wall) {
        // The ports are closed, which is what was asked for; the daemon will wait for max-age.
        say!("spa-server: the replay record is not begun: {failure}");
    }
}

/// Where the last good configuration is, if the present one cannot be read as a whole: where its own line says, else in
/// the usual place.
pub(super) fn state_dir(path: &Path) -> Outcome<PathBuf> {
    let text = files::read_config(path).unwrap_or_default(); // missing, perhaps
    let value = |line: &str| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "state-dir").then(|| value.split('"').nth(1).map(PathBuf::from))?
    };
    match text.lines().find_map(value) {
        Some(found) => Ok(files::directory_of(path).join(found)),
        None => Ok(Config::defaults()?.state_dir),
    }
}

fn list(config: &Config) -> String {
    let endpoints = config.endpoints();
    if endpoints.is_empty() || !config.protect {
        return "no service, only the port that knocks come to".to_owned();
    }
    endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Removes every trace from the firewall.
pub fn unprotect(path: &Path) -> Outcome {
    // A package is purged with whatever configuration is left of it.
    let config = Config::load(path).or_else(|_| {
        let state_dir = state_dir(path)?;
        Config::load_last_good(&state_dir).or_else(|_| {
            let mut defaults = Config::defaults()?;
            defaults.state_dir = state_dir;
            Ok(defaults)
        })
    })?;
    if control::is_running(&config.state_dir) {
        return Err(Failure::new(Exit::Unavailable, "the daemon runs, and would protect again")
            .hint(format_args!("{}, then spa-server unprotect", control::how_to_stop(&config.state_dir))));
    }
    let lock = if config.state_dir.is_dir() { Some(lock::exclusive(&config.state_dir)?) } else { None };
    let mut enforcer = Enforcer::new(firewall::open(&config, false, lock.as_ref())?.driver);
    let spared = match firewall::refuse_chain_of_others(&mut enforcer, &config) {
        Ok(()) => Vec::new(),
        Err(_) => enforcer.chains_of_others().map_err(firewall_failure)?,
    };
    let mut failures = Vec::new();
    if spared.is_empty() {
        failures.extend(enforcer.remove_all().err());
    } else {
        say!("spa-server: the chain SPA has rules that spa-server did not lay; it is left as it is");
        let own: Vec<_> = Family::BOTH.into_iter().filter(|family| !spared.contains(family)).collect();
        failures.extend(enforcer.remove_from(&own).err());
    }
    for mut other in firewall::left_behind(&enforcer.name(), lock.as_ref()) {
        failures.extend(other.remove_ours().err());
    }
    if failures.is_empty() {
        firewall::forget_choice(&config)?;
        say!("nothing of spa-server is left in the firewall");
        return Ok(());
    }
    let all = failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(Failure::new(Exit::System, format_args!("firewall: {all}"))
        .hint("put that right, and run spa-server unprotect again"))
}

/// Makes every packet made until now worthless.
pub fn recover(config: &Config) -> Outcome {
    files::make_private_directory(&config.state_dir)?;
    let _lock = lock::exclusive(&config.state_dir)?;
    match clock::timesyncd() {
        Some(true) => {}
        Some(false) => say!(
            "spa-server: this machine's clock is not synchronized; if it is behind, packets made before now stay good. \
             Set it, and run this again."
        ),
        None => {
            say!("spa-server: whether this machine's clock is right is not known here; make sure of it")
        }
    }
    let now = clock::now().wall;
    let floor = now.saturating_add(u64::try_from(config.max_age.as_nanos()).unwrap_or(u64::MAX));
    let path = config.state_dir.join(warden::RECORD);
    let journal = Journal::recover(&path, floor, now).map_err(|error| Failure::new(Exit::Io, error))?;
    say!(
        "recovered {}: {} on record; no packet made before {} s from now is accepted",
        path.display(),
        counted(journal.content().clients().count(), "client"),
        config.max_age.as_secs()
    );
    Ok(())
}
