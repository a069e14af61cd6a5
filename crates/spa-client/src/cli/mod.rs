//! The command `spa-client`. Present with the feature `cli`.

mod args;
mod check;
mod clock;
mod completions;
mod connect;
mod edit;
mod examples;
mod exec;
mod failure;
#[cfg(unix)]
mod fdpass;
mod hosts;
mod import;
mod keygen;
mod man;
mod open;
mod passphrase;
mod relay;
mod say;
mod ssh_config;
mod staged;
mod update;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::config::Config;
use crate::error::Error;
use args::{Args, Command};
use failure::{CONFIG, Failure, IO, USAGE, io_failure};
use say::{Say, warn};

/// The command line's definition, for what is generated from it or checked against it.
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    completions::answer();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let wrong = error.use_stderr(); // else it is --help or --version
            return if error.print().is_err() {
                ExitCode::from(IO)
            } else if wrong {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    // ssh's user sees these in the middle of a session: connect as ProxyCommand, --quiet open as Match exec.
    let one_line = args.quiet || matches!(args.command, Command::Connect(_));
    match run(args) {
        Ok(code) => code,
        Err(failure) => {
            let Failure { code, message, hint } = failure;
            match hint {
                Some(hint) if one_line => {
                    warn(&format!("spa-client: {} ({hint})", message.replace('\n', " ")))
                }
                Some(hint) => warn(&format!("spa-client: {message}\n  hint: {hint}")),
                None => warn(&format!("spa-client: {message}")),
            }
            ExitCode::from(code)
        }
    }
}

fn run(args: Args) -> Result<ExitCode, Failure> {
    let say = Say::new(args.verbose, args.quiet);
    let path = || config_path(args.config.clone());
    match args.command {
        Command::Open(command) => block_on(open::open(command, &load(&path()?)?, say))??,
        Command::Close(command) => block_on(open::close(command, &load(&path()?)?, say))??,
        Command::Connect(command) => return connect::run(command, &load(&path()?)?, say),
        Command::Exec(command) => return block_on(exec::run(command, &load(&path()?)?, say))?,
        Command::Keygen(command) => keygen::run(&command, &path()?, say)?,
        Command::Import(command) => import::run(&command, &path()?, say)?,
        Command::Hosts { json } => hosts::run(&load(&path()?)?, json)?,
        Command::Check { host, json } => {
            let path = path()?;
            return block_on(check::run(&load(&path)?, &path, host.as_deref(), json))?;
        }
        Command::SshConfig(command) => {
            ssh_config::run(&command, &load(&path()?)?, args.config.as_deref())?;
        }
        Command::Completions { shell } => completions::print(shell)?,
        Command::Man { dir } => man::run(dir.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn config_path(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    named.or_else(crate::paths::default_config).ok_or_else(|| {
        Failure::new(CONFIG, "the environment names no home directory")
            .hint("name the configuration with --config")
    })
}

fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| {
        let missing =
            matches!(&error, Error::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
        let failure = Failure::from(error);
        if missing {
            failure.hint("\"spa-client import --name NAME\" makes it from an invite")
        } else {
            failure
        }
    })
}

/// Runs a future on one thread. A name look-up that still hangs in the resolver is left behind.
fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io_failure("cannot start the event loop"))?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }
}
