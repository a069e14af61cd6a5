//! `check`: reads everything as `run` would, looks at the machine, and changes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use spa_firewall::survey::Severity;
use spa_firewall::{Choice, Except};
use spa_proto::Network;

use super::{print, print_json};
use crate::config::Config;
use crate::error::{Exit, Failure, Outcome, counted, with_config};
use crate::warden::settings::Settings;
use crate::{files, firewall, warden};

/// Checks the configuration, the keys, the clients and the firewall.
pub fn run(path: &Path, as_json: bool) -> Outcome {
    let config = Config::load(path)?;
    let mut problems = Vec::new();
    let mut notes = Vec::new();
    if config.services.is_empty() {
        notes.push("no service is configured: nothing is protected, and nobody can open anything".to_owned());
    }
    if !config.key_file.exists() {
        problems.extend(config.keys().err());
    }
    let clients = if problems.is_empty() {
        match Settings::load(config.clone()) {
            Ok(settings) => settings.verifier.clients.len(),
            Err(failure) => {
                // All files that are wrong, not the first alone; what is wrong elsewhere is that failure itself.
                match config.clients_and_failures() {
                    Ok((_, failures)) if !failures.is_empty() => problems.extend(failures),
                    _ => problems.push(failure),
                }
                0
            }
        }
    } else {
        0
    };
    notes.extend(super::doctor::too_wide(&config.except));
    problems.extend(look_at_state(&config).err());
    problems.extend(warden::user(&config).err());
    look_at_exceptions(&config, &mut notes);
    let choice = look_at_firewall(&config, &mut problems, &mut notes);
    let problems: Vec<_> = problems.into_iter().map(|problem| problem.for_config(path)).collect();
    let notes: Vec<_> = notes.iter().map(|note| with_config(note, path)).collect();
    report(&config, clients, choice, (&problems, &notes), as_json)?;
    problems
        .into_iter()
        .next()
        .map_or(Ok(()), |failure| Err(Failure::new(failure.exit, "check failed; the problems are above")))
}

/// The state directory and the record, as far as they are there: `run` makes what is missing.
pub(super) fn look_at_state(config: &Config) -> Outcome {
    if !config.state_dir.exists() {
        return Ok(());
    }
    files::check_private_directory(&config.state_dir)?;
    let record = config.state_dir.join(warden::RECORD);
    if record.exists() { warden::Record::verify(&record) } else { Ok(()) }
}

/// Networks that hold so large a part of all addresses of their family are hardly one's own: one in so many.
const WIDE: u128 = 16;

fn look_at_exceptions(config: &Config, notes: &mut Vec<String>) {
    for (family, bits) in [("IPv4", 32), ("IPv6", 128)] {
        let networks: Vec<_> = config
            .except
            .iter()
            .filter_map(|except| match except {
                Except::Network(network) if network.address().is_ipv4() == (bits == 32) => Some(*network),
                _ => None,
            })
            .collect();
        // Those within another are not counted again. In 2^-64ths of all addresses, so that /1 and /1 fit.
        let within = |network: &Network| {
            networks.iter().any(|other| other.prefix() < network.prefix() && other.covers(network))
        };
        let distinct: BTreeSet<_> = networks.iter().filter(|network| !within(network)).collect();
        let share: u128 = distinct.iter().map(|network| (1u128 << 64) >> network.prefix().min(64)).sum();
        if share > (1u128 << 64) / WIDE {
            let percent = share * 100 / (1u128 << 64);
            notes.push(format!(
                "firewall.except takes {percent} % of all {family} addresses out of the protection: the ports are open \
                 to them\n  try: name your own networks alone; to leave the ports to your own rules, protect = false"
            ));
        }
    }
}

/// Returns what `backend = "auto"` would choose, or has chosen.
fn look_at_firewall(config: &Config, problems: &mut Vec<Failure>, notes: &mut Vec<String>) -> Option<Choice> {
    let (driver, choice) = match firewall::settle(config) {
        Ok(settled) => settled,
        Err(failure) => {
            problems.push(failure);
            return None;
        }
    };
    let findings = firewall::survey(config, driver);
    for finding in findings.unwrap_or_else(|failure| {
        problems.push(failure);
        Vec::new()
    }) {
        match finding.severity {
            Severity::Error => problems.push(Failure::new(Exit::Config, finding.what).hint(finding.remedy)),
            Severity::Warning => notes.push(format!("{}\n  try: {}", finding.what, finding.remedy)),
        }
    }
    choice
}

fn report(
    config: &Config,
    clients: usize,
    choice: Option<Choice>,
    (problems, notes): (&[Failure], &[String]),
    as_json: bool,
) -> Outcome {
    let choice = choice.map(|choice| choice.to_string());
    if as_json {
        return print_json(&serde_json::json!({
            "config": config.path,
            "clients": clients,
            "services": config.services.len(),
            "backend": choice,
            "problems": problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "warnings": notes,
        }));
    }
    if let Some(choice) = choice {
        print(&format!("backend \"auto\": {choice}"))?;
    }
    for problem in problems {
        print(&format!("problem: {problem}"))?;
    }
    for note in notes {
        print(&format!("warning: {note}"))?;
    }
    if problems.is_empty() {
        print(&format!(
            "{}: good ({}, {})",
            config.path.display(),
            counted(config.services.len(), "service"),
            counted(clients, "client")
        ))?;
    }
    Ok(())
}
