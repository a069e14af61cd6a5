//! Questions to a person at a terminal. Nothing here asks where there is none.

use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use spa_proto::MAX_PASSPHRASE;
use zeroize::Zeroizing;

use crate::error::{Exit, Failure, Outcome};

/// The terminal of the process, whatever its standard input is.
const TTY: &str = "/dev/tty";

/// Whether somebody can be asked: questions go to standard error, answers come from standard input.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and returns the answer without white space around it; the default where that is empty.
///
/// # Errors
/// At the end of the input: whoever presses Ctrl-D wants out.
pub fn ask(question: &str, default: &str) -> Outcome<String> {
    let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
    let _ = write!(io::stderr(), "{question}{shown}: "); // it is a terminal
    let mut answer = String::new();
    let length = io::stdin().lock().read_line(&mut answer);
    let length = length.map_err(|error| Failure::io("cannot read", Path::new("standard input"), &error))?;
    if length == 0 {
        return Err(Failure::new(Exit::Usage, "no answer; nothing was changed"));
    }
    let answer = answer.trim();
    Ok(if answer.is_empty() { default } else { answer }.to_owned())
}

/// Asks until the answer is one.
///
/// # Errors
/// As [`ask`].
pub fn ask_until<T>(
    question: &str,
    default: &str,
    mut read: impl FnMut(&str) -> Result<T, String>,
) -> Outcome<T> {
    loop {
        match read(&ask(question, default)?) {
            Ok(value) => return Ok(value),
            Err(why) => crate::log::say!("  {why}"),
        }
    }
}

/// Reads a passphrase twice from the terminal, without showing it.
///
/// # Errors
/// Where there is no terminal, or nothing is typed, or the two differ.
pub fn new_passphrase() -> Outcome<Zeroizing<String>> {
    let mut tty = Tty::open()?;
    let first = tty.secret("Passphrase for the invite: ")?;
    if first.is_empty() {
        return Err(Failure::new(Exit::Usage, "no passphrase; nothing was changed"));
    }
    let second = tty.secret("The same again: ")?;
    if first != second {
        return Err(Failure::new(Exit::Usage, "the two passphrases differ; nothing was changed"));
    }
    Ok(first)
}

/// The terminal, as it was before when this is dropped.
struct Tty {
    file: File,
    before: Termios,
}

impl Tty {
    fn open() -> Outcome<Self> {
        let none = |_| {
            Failure::new(Exit::Usage, "there is no terminal to type a passphrase on")
                .hint("--passphrase-file FILE, readable by you alone")
        };
        let file = File::options().read(true).write(true).open(TTY).map_err(none)?;
        let before = tcgetattr(&file).map_err(|error| none(io::Error::from(error)))?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL); // the line feed alone is shown
        tcsetattr(&file, OptionalActions::Flush, &silent).map_err(|error| none(error.into()))?;
        Ok(Self { file, before })
    }

    fn secret(&mut self, prompt: &str) -> Outcome<Zeroizing<String>> {
        let failed = |error: io::Error| Failure::io("cannot read", Path::new(TTY), &error);
        self.file.write_all(prompt.as_bytes()).map_err(failed)?;
        // Room for all of it: growing would leave copies behind that nobody wipes.
        let mut line = Zeroizing::new(String::with_capacity(2 * MAX_PASSPHRASE));
        io::BufReader::new(&self.file).read_line(&mut line).map_err(failed)?;
        let length = line.trim_end_matches(['\n', '\r']).len();
        line.truncate(length);
        Ok(line)
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.file, OptionalActions::Flush, &self.before); // the terminal may be gone
    }
}
