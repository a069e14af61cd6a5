//! The log: one structured line an event on standard error, which systemd keeps.

use std::io::IsTerminal as _;

use tracing::Level;

/// Starts logging. Under systemd's journal, which has its own, lines have no time.
pub fn start() {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(Level::INFO)
        .with_target(false)
        .with_ansi(colour);
    if journal { builder.without_time().init() } else { builder.init() }
}
