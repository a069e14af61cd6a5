//! The daemon of single-packet authorization, and its commands.
//!
//! `run` is two processes: [`warden`] has the privileges, [`verifier`] reads the packets, and [`link`] is all that is
//! between them. `docs/ARCHITECTURE.md` shows a packet's way through both.
#![forbid(unsafe_code)]

mod cli;
mod cloak_use;
mod clock;
mod commands;
mod config;
mod control;
mod error;
mod files;
mod firewall;
mod journal;
mod link;
mod lock;
mod log;
mod reactor;
mod terminal;
mod verifier;
mod warden;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

/// The command line's definition, for what is generated from it or checked against it.
pub fn command() -> clap::Command {
    cli::Cli::command()
}

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.next().is_some_and(|name| name == verifier::PROGRAM) {
        return verifier(arguments.next());
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // nowhere else to say it
            let code = if error.use_stderr() { error::Exit::Usage as u8 } else { 0 };
            return ExitCode::from(code);
        }
    };
    let config = cli.config.clone();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let exit = failure.exit;
            log::say!("spa-server: {}", failure.for_config(&config));
            ExitCode::from(exit as u8)
        }
    }
}

/// The daemon's other half. The definition of the command line is not made for it.
fn verifier(threads: Option<OsString>) -> ExitCode {
    match verifier::run(threads) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::say!("{failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}
