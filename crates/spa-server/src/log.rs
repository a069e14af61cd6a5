//! The log: one structured line an event on standard error, which systemd keeps. Whether anybody reads it is no
//! concern of the daemon's: the terminal that it was started from may be gone.

use std::io::{self, IsTerminal as _, Write};

use tracing::Level;

/// Standard error, whose failures are nobody's.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging. Under systemd's journal, which has its own, lines have no time.
pub fn start() {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_writer(|| Stderr)
        .log_internal_errors(false)
        .with_max_level(Level::INFO)
        .with_target(false)
        .with_ansi(colour);
    if journal { builder.without_time().init() } else { builder.init() }
}

/// Prints a line for a person on standard error, formatted as by `format!`.
macro_rules! say {
    ($($line:tt)*) => {
        $crate::log::tell(format_args!($($line)*))
    };
}
pub(crate) use say;

/// See [`say!`].
pub fn tell(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(Stderr, "{line}"); // it never fails
}
