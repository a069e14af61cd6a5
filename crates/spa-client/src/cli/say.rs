//! What a command says besides its result: to standard error, and only where someone reads it.

use std::io::{self, IsTerminal as _, Write as _};

use spa_proto::Address;

use crate::knocker::{Report, Sent};

/// Whether to speak.
#[derive(Clone, Copy, Debug)]
pub(super) struct Say {
    progress: bool,
    detail: bool,
}

impl Say {
    pub(super) fn new(verbose: bool, quiet: bool) -> Self {
        Self { progress: verbose || (!quiet && io::stderr().is_terminal()), detail: verbose }
    }

    /// For `connect`, whose standard error is the user's ssh session: nothing unless asked for.
    pub(super) fn only_if_asked(self) -> Self {
        Self { progress: self.detail, ..self }
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
            self.progress(&format!("knocked {} ({})", sent.to, mode(sent)));
            if self.detail {
                warn(&format!("  it left from {}", sent.from));
            }
        }
        for (address, error) in &report.failed {
            // One family without a route is usual, and the other does.
            self.progress(&format!("could not knock {address}: {error}"));
        }
        if let Some(error) = &report.state_trouble {
            warn(&format!(
                "spa-client: the packet counter cannot be kept: {error}; going by the clock alone"
            ));
        }
    }
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

/// A line to standard output, for scripts. That its reader went away is not an error.
pub(super) fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
