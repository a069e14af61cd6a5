//! The commands.

mod check;
mod client;
mod cloak;
mod doctor;
mod handover;
mod init;
mod keygen;
mod lifecycle;
mod man;
mod remote;

use std::io::Write as _;
use std::path::Path;

use clap::CommandFactory as _;

use crate::cli::{Cli, ClientCommand, CloakCommand, Command};
use crate::config::{Config, DEFAULT_PATH};
use crate::error::{Exit, Failure, Outcome};
use crate::log::say;
use crate::{control, log, warden};

/// Runs one command.
///
/// # Errors
/// Whatever it fails with.
pub fn run(cli: Cli) -> Outcome {
    let path = cli.config.as_path();
    match cli.command {
        Command::Run(options) => {
            log::start();
            warden::run(Config::load(path)?, &options)
        }
        Command::Init(options) => init::run(path, &options),
        Command::Check(options) => check::run(path, options.json),
        Command::Doctor(options) => doctor::run(path, options.source, options.json),
        Command::Keygen => keygen::run(&config_or_defaults(path)?),
        Command::Client(ClientCommand::Add(options)) => client::add(&Config::load(path)?, &options),
        Command::Client(ClientCommand::Remove { name }) => client::remove(&of_the_daemon(path)?, &name),
        Command::Client(ClientCommand::List(options)) => client::list(&Config::load(path)?, options.json),
        Command::Client(ClientCommand::Rotate(options)) => client::rotate(&Config::load(path)?, &options),
        Command::Client(ClientCommand::Invite(options)) => client::invite(&Config::load(path)?, &options),
        Command::Client(ClientCommand::Disable { name }) => client::disable(&of_the_daemon(path)?, &name),
        Command::Client(ClientCommand::Enable { name }) => client::enable(&Config::load(path)?, &name),
        Command::Cloak(CloakCommand::Add) => cloak::add(&Config::load(path)?),
        Command::Cloak(CloakCommand::List(options)) => cloak::list(&Config::load(path)?, options.json),
        Command::Cloak(CloakCommand::Retire { id, force }) => cloak::retire(&Config::load(path)?, &id, force),
        Command::Grants(options) => remote::grants(&of_the_daemon(path)?, options.json),
        Command::Revoke(options) => remote::revoke(&of_the_daemon(path)?, &options),
        Command::Status(options) => remote::status(&of_the_daemon(path)?, options.json),
        Command::Reload => remote::reload(&Config::load(path)?),
        Command::Confirm => remote::confirm(&of_the_daemon(path)?),
        Command::Protect => lifecycle::protect(path),
        Command::Unprotect => lifecycle::unprotect(path),
        Command::Recover => lifecycle::recover(&Config::load(path)?),
        Command::Completions { shell } => {
            let mut script = Vec::new(); // generate panics where it cannot write
            clap_complete::generate(shell, &mut Cli::command(), "spa-server", &mut script);
            print(String::from_utf8_lossy(&script).trim_end())
        }
        Command::Man { dir } => man::run(dir.as_deref()),
    }
}

/// For what is asked of a running daemon. Where the file is broken by now, the one that it last took: an emergency does not
/// wait for a comma.
fn of_the_daemon(path: &Path) -> Outcome<Config> {
    Config::load(path).or_else(|failure| {
        let last_good = Config::load_last_good(&lifecycle::state_dir(path)?);
        last_good
            .inspect(|_| {
                say!(
                    "spa-server: {failure}\nspa-server: going by the configuration that the daemon last took"
                )
            })
            .map_err(|_| failure)
    })
}

/// `keygen` comes before any configuration.
fn config_or_defaults(path: &Path) -> Outcome<Config> {
    if path == Path::new(DEFAULT_PATH) && !path.exists() { Config::defaults() } else { Config::load(path) }
}

/// A change of keys or clients holds at once where the daemon runs.
fn reload_if_running(config: &Config) -> Outcome {
    if !reload_one_that_runs(config)?
        && let Some(elsewhere) = control::runs_elsewhere(&config.state_dir)
    {
        say!("spa-server: the daemon has not heard of this: {elsewhere}");
    }
    Ok(())
}

/// The same; whether one runs.
fn reload_one_that_runs(config: &Config) -> Outcome<bool> {
    if !control::is_running(&config.state_dir) {
        return Ok(false);
    }
    control::ask(&config.state_dir, &control::Request::Reload)?;
    say!("the daemon has reloaded");
    Ok(true)
}

/// Prints a line on standard output.
///
/// # Errors
/// Where nobody reads it.
fn print(line: &str) -> Outcome {
    writeln!(std::io::stdout(), "{line}")
        .map_err(|error| Failure::new(Exit::Io, format_args!("standard output: {error}")))
}

/// Prints a value as JSON.
fn print_json(value: &serde_json::Value) -> Outcome {
    print(&format!("{value:#}"))
}
