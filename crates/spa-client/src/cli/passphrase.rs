//! The passphrase of an encrypted invite: from a file, or typed on the terminal without being shown.

use std::path::Path;

use spa_proto::{Invite, InviteError, MAX_PASSPHRASE, SealedInvite};
use zeroize::Zeroizing;

use super::failure::{DATA, Failure, USAGE};
use super::say::warn;
use crate::secret_file;

/// How often one may mistype it.
const TRIES: usize = 3;

/// Opens an encrypted invite.
pub(super) fn open(text: &str, file: Option<&Path>) -> Result<Invite, Failure> {
    let sealed = SealedInvite::parse(text).map_err(malformed)?;
    if let Some(file) = file {
        let passphrase = from_file(file)?;
        return sealed.open(&passphrase).map_err(|error| wrong(error, &format!(" in {}", file.display())));
    }
    let mut tries = 1;
    loop {
        let passphrase = terminal::ask("Passphrase of the invite: ").map_err(|_| {
            Failure::new(USAGE, "the invite is encrypted, and there is no terminal to type its passphrase on")
                .hint("--passphrase-file FILE, readable by you alone")
        })?;
        match sealed.open(&passphrase) {
            Err(InviteError::Passphrase) if tries < TRIES && !passphrase.is_empty() => {
                warn("that is not the passphrase of this invite; once more:");
            }
            result => return result.map_err(|error| wrong(error, "")),
        }
        tries += 1;
    }
}

fn wrong(error: InviteError, place: &str) -> Failure {
    match error {
        InviteError::Passphrase => Failure::new(DATA, format!("{error}{place}; nothing was changed"))
            .hint("ask whoever made the invite; capitals and spaces count"),
        other => malformed(other),
    }
}

/// A text that is no whole invite.
pub(super) fn malformed(error: InviteError) -> Failure {
    let failure = Failure::new(DATA, error.to_string());
    match error {
        InviteError::NotAnInvite
        | InviteError::Character(_)
        | InviteError::Truncated(_)
        | InviteError::Extended(_)
        | InviteError::TooLong => {
            failure.hint("copy the one line that spa-server client add printed, whole and with nothing else")
        }
        _ => failure,
    }
}

/// The first line, which is the only one.
fn from_file(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let text = secret_file::read(file)?;
    if text.lines().count() > 1 {
        return Err(Failure::new(DATA, format!("{} has more than one line", file.display()))
            .hint("the passphrase alone, on one line"));
    }
    let mut passphrase = Zeroizing::new(String::with_capacity(2 * MAX_PASSPHRASE));
    passphrase.push_str(text.lines().next().unwrap_or_default());
    Ok(passphrase)
}

#[cfg(unix)]
mod terminal {
    use std::fs::File;
    use std::io::{self, BufRead as _, Write as _};

    use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
    use spa_proto::MAX_PASSPHRASE;
    use zeroize::Zeroizing;

    /// The terminal of the process: standard input may be the invite.
    const TTY: &str = "/dev/tty";

    /// Puts the terminal back as it was, however this ends.
    struct Silent<'a> {
        tty: &'a File,
        before: Termios,
    }

    impl Drop for Silent<'_> {
        fn drop(&mut self) {
            let _ = tcsetattr(self.tty, OptionalActions::Flush, &self.before); // the terminal may be gone
        }
    }

    /// One line, not shown.
    pub(super) fn ask(prompt: &str) -> io::Result<Zeroizing<String>> {
        let mut tty = File::options().read(true).write(true).open(TTY)?;
        let before = tcgetattr(&tty)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL); // the line feed alone is shown
        tcsetattr(&tty, OptionalActions::Flush, &silent)?;
        tty.write_all(prompt.as_bytes())?;
        let _silent = Silent { tty: &tty, before };
        // Room for all of it: growing would leave copies behind that nobody wipes.
        let mut line = Zeroizing::new(String::with_capacity(2 * MAX_PASSPHRASE));
        io::BufReader::new(&tty).read_line(&mut line)?;
        let length = line.trim_end_matches(['\n', '\r']).len();
        line.truncate(length);
        Ok(line)
    }
}

#[cfg(not(unix))]
mod terminal {
    use std::io;

    use zeroize::Zeroizing;

    pub(super) fn ask(_prompt: &str) -> io::Result<Zeroizing<String>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
