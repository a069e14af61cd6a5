//! Completions for shells. What a shell loads is a few lines that ask this program, so that it also knows the
//! hosts and services of the configuration.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};

use super::args::Args;
use super::failure::{Failure, USAGE, io_failure};
use crate::config::{Config, Host};

/// Set by those lines when they ask.
const VARIABLE: &str = "SPA_CLIENT_COMPLETE";
/// What is completed, and asked; in the shell's PATH.
const PROGRAM: &str = "spa-client";

/// Answers a shell, and ends; does nothing where no shell asks.
pub(super) fn answer() {
    CompleteEnv::with_factory(Args::command).var(VARIABLE).complete();
}

/// Prints what a shell has to load.
pub(super) fn print(shell: clap_complete::Shell) -> Result<(), Failure> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let completer =
        shells.completer(&name).ok_or_else(|| Failure::new(USAGE, format!("no completions for {name}")))?;
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)
        .and_then(|()| std::io::stdout().write_all(&script))
        .map_err(io_failure("cannot write"))
}

/// The names of the host entries.
pub(super) fn hosts(current: &OsStr) -> Vec<CompletionCandidate> {
    let config = config();
    let hosts = config.iter().flat_map(|config| config.hosts());
    let candidates = hosts.map(|host| (host.name.clone(), host.address.clone()));
    starting_with(current, candidates)
}

/// The services of all entries: which entry is meant may come later on the line.
pub(super) fn services(current: &OsStr) -> Vec<CompletionCandidate> {
    let config = config();
    let mut names: Vec<(String, String)> = Vec::new();
    for Host { name: host, services, .. } in config.iter().flat_map(|config| config.hosts()) {
        for service in services.keys().map(ToString::to_string) {
            match names.iter_mut().find(|(name, _)| *name == service) {
                Some((_, of)) => *of = format!("{of}, {host}"),
                None => names.push((service, format!("of {host}"))),
            }
        }
    }
    starting_with(current, names.into_iter())
}

fn starting_with(
    current: &OsStr,
    candidates: impl Iterator<Item = (String, String)>,
) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    candidates
        .filter(|(name, _)| name.starts_with(&*current))
        .map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into())))
        .collect()
}

/// The configuration that the line names, else the usual one. What is wrong with it, the command itself will say.
fn config() -> Option<Config> {
    let words: Vec<_> = std::env::args_os().collect();
    let named = words.windows(2).find(|pair| pair[0] == "--config").map(|pair| PathBuf::from(&pair[1]));
    Config::load(&named.or_else(crate::paths::default_config)?).ok()
}
