//! What a command says besides its result: to standard error, and only where someone reads it.

use std::io::{self, IsTerminal as _, Write as _};
use std::pin::pin;
use std::time::Duration;

use spa_proto::{Address, NANOS_PER_SECOND};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::failure::{Failure, io_failure};
use crate::knocker::{Report, Sent};

/// What takes less is over before anybody could read of it.
const WORTH_SHOWING: Duration = Duration::from_millis(200);
/// Between two versions of the live line.
const REFRESH: Duration = Duration::from_millis(100);
/// Longest live line, in columns: it has to stay one line on a terminal of 80.
const WIDTH: usize = 79;

/// Whether to speak.
#[derive(Clone, Copy, Debug)]
pub(super) struct Say {
    progress: bool,
    detail: bool,
    /// Standard error is a terminal, on which a line can be overwritten.
    live: bool,
}

impl Say {
    pub(super) fn new(verbose: bool, quiet: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { progress: verbose || (!quiet && terminal), detail: verbose, live: terminal && !quiet }
    }

    /// For `connect`, whose standard error is the user's ssh session: nothing unless asked for.
    pub(super) fn only_if_asked(self) -> Self {
        Self { progress: self.detail, live: false, ..self }
    }

    /// What a person at a terminal wants to know.
    pub(super) fn progress(self, line: &str) {
        if self.progress {
            warn(line);
        }
    }

    /// What was sent, and what stood in the way.
    pub(super) fn report(self, report: &Report) {
        for sent in &report.sent {
            self.progress(&format!("knocked at {} ({})", sent.to, mode(sent)));
            if self.detail {
                warn(&format!("  from {}, {}: {}", sent.from, mode(sent), sent.reason));
                let (seconds, nanos) = (sent.counter / NANOS_PER_SECOND, sent.counter % NANOS_PER_SECOND);
                warn(&format!("  {} bytes; time by this clock {seconds}.{nanos:09}", sent.length));
            }
        }
        for (address, error) in &report.failed {
            // One family without a route is usual, and the other does.
            self.progress(&format!("could not knock at {address}: {error}"));
        }
        if let Some(error) = &report.state_trouble {
            warn(&format!(
                "spa-client: the packet counter cannot be kept: {error}; going by the clock alone"
            ));
        }
    }

    /// Runs something, and shows on a terminal, in one line that goes away, what is being done.
    pub(super) async fn meanwhile<T>(
        self,
        work: impl Future<Output = T>,
        line: impl Fn(Duration) -> String,
    ) -> T {
        if !self.live {
            return work.await;
        }
        let mut work = pin!(work);
        let start = Instant::now();
        let mut ticks = interval_at(start + WORTH_SHOWING, REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut shown = 0;
        let result = loop {
            tokio::select! {
                biased;
                result = &mut work => break result,
                _ = ticks.tick() => shown = overwrite(&line(start.elapsed()), shown),
            }
        };
        if shown > 0 {
            overwrite("", shown);
            let _ = write!(io::stderr(), "\r");
        }
        result
    }
}

/// Writes a line over one of so many columns, without escape sequences, which not every terminal knows. Its columns.
fn overwrite(line: &str, before: usize) -> usize {
    let line: String = line.chars().take(WIDTH).collect();
    let width = line.chars().count();
    // That nobody reads it is no reason to fail.
    let _ = write!(io::stderr(), "\r{line:before$}");
    let _ = io::stderr().flush();
    width
}

/// The address mode of a packet, with the address that it carries.
pub(super) fn mode(sent: &Sent) -> String {
    match sent.address {
        Address::Observed => "observed".to_owned(),
        Address::Bound(address) => format!("bound to {address}"),
        Address::Explicit(address) => format!("for {address}"),
    }
}

/// A line to standard error. That nobody reads it is no reason to fail.
pub(super) fn warn(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A line to standard output, for scripts. That its reader has read enough and went away is not an error; a full disk is.
pub(super) fn print(line: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(io_failure("cannot write to standard output")(error))
        }
        _ => Ok(()),
    }
}
