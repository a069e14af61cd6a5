//! `exec`: keeps services open while a command runs.

use std::io;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use spa_proto::Requests;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

use super::args::ExecArgs;
use super::failure::{Failure, USAGE, io_failure};
use super::open::{endpoints, knock, wait};
use super::say::{Say, warn};
use crate::config::Config;
use crate::knocker::Knocker;

/// Renews when this part of the time is over: two renewals in a row may be lost.
const RENEW_PART: u32 = 3;
/// What env(1) and shells say of a command that is there and cannot be run, and of one that is not there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
/// What shells add to the number of the signal that ended a command.
#[cfg(unix)]
const SIGNALLED: i32 = 128;

pub(super) async fn run(args: ExecArgs, config: &Config, say: Say) -> Result<ExitCode, Failure> {
    let host = config.host(args.host.as_deref())?;
    let requests = host.requests(&args.services)?;
    let endpoints = endpoints(host, &requests);
    let mut knocker = Knocker::new(host.clone(), args.path.options())?;
    let opened = Instant::now();
    say.report(&knock(&mut knocker, &requests, Some(args.time), say).await?);
    let code = match wait(&mut knocker, &endpoints, args.timeout, say).await {
        Ok(_) => run_command(&args, &mut knocker, &requests, opened).await,
        Err(error) => Err(error.into()),
    };
    // Also where nothing answered: it may be open all the same.
    if !args.keep
        && let Err(error) = knocker.close(requests).await
    {
        warn(&format!("spa-client: could not ask to close: {error}"));
    }
    code
}

async fn run_command(
    args: &ExecArgs,
    knocker: &mut Knocker,
    requests: &Requests,
    opened: Instant,
) -> Result<ExitCode, Failure> {
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err(Failure::new(USAGE, "no command"));
    };
    // Before the command runs, so that no signal finds us unprepared.
    let signals = Signals::new().map_err(io_failure("cannot watch for signals"))?;
    match Command::new(program).args(arguments).spawn() {
        Ok(child) => attend(child, signals, knocker, requests, (args.time, opened)).await,
        Err(error) => {
            let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
            Err(Failure::new(code, format!("cannot run {}: {error}", program.display())))
        }
    }
}

/// Renews the grant and passes signals on until the command ends.
async fn attend(
    mut child: Child,
    mut signals: Signals,
    knocker: &mut Knocker,
    requests: &Requests,
    (time, opened): (Duration, Instant),
) -> Result<ExitCode, Failure> {
    let every = time / RENEW_PART;
    let mut renewal = opened + every;
    loop {
        tokio::select! {
            status = child.wait() => {
                return Ok(exit_code(status.map_err(io_failure("cannot wait for the command"))?));
            }
            signal = signals.next() => signals.pass(signal, &child),
            () = sleep_until(renewal) => {
                // Late and many renewals, after a suspend, become one.
                renewal = Instant::now() + every;
                if let Err(error) = knocker.open(requests.clone(), Some(time)).await {
                    warn(&format!("spa-client: could not renew: {error}"));
                }
            }
        }
    }
}

#[cfg(unix)]
fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(not(unix))]
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The signals that a user sends to us and means for the command.
#[cfg(unix)]
struct Signals {
    hangup: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> rustix::process::Signal {
        use rustix::process::Signal;
        tokio::select! {
            _ = self.hangup.recv() => Signal::HUP,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.quit.recv() => Signal::QUIT,
            _ = self.terminate.recv() => Signal::TERM,
        }
    }

    /// The terminal sends its interrupt and quit keys to the command as well: once is enough.
    fn pass(&self, signal: rustix::process::Signal, child: &Child) {
        use rustix::process::{Pid, Signal, getpgrp, kill_process};
        let foreground = rustix::termios::tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp());
        if foreground && matches!(signal, Signal::INT | Signal::QUIT) {
            return;
        }
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        // It may have ended in this moment; then there is nobody to tell.
        let _ = pid.map(|pid| kill_process(pid, signal));
    }
}

/// Elsewhere the console tells every process on it.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        // An interrupt ends the command, and its end ends us.
        while tokio::signal::ctrl_c().await.is_ok() {}
        std::future::pending().await
    }

    fn pass(&self, _: (), _: &Child) {}
}
