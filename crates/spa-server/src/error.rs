//! What a command tells a person: what happened, where, what to try; and the exit code (sysexits.h).

use std::fmt;
use std::io;
use std::path::Path;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::config::DEFAULT_PATH;

/// The exit codes of this program, from BSD's sysexits.h, and two of `doctor`'s own below them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// `doctor` found warnings, and no errors.
    DoctorWarnings = 1,
    /// `doctor` found errors.
    DoctorErrors = 2,
    /// The command line was wrong (`EX_USAGE`).
    Usage = 64,
    /// A file's content was wrong (`EX_DATAERR`).
    Data = 65,
    /// An input file is missing or cannot be read (`EX_NOINPUT`).
    NoInput = 66,
    /// Something needed is not there: the daemon, iptables (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// The program or the system failed (`EX_SOFTWARE`).
    Software = 70,
    /// The system refused: a resource, a fork (`EX_OSERR`).
    System = 71,
    /// A file could not be written (`EX_CANTCREAT`).
    CannotCreate = 73,
    /// Reading or writing failed (`EX_IOERR`).
    Io = 74,
    /// Not now; `--confirm` ran out (`EX_TEMPFAIL`).
    TryAgain = 75,
    /// Not permitted (`EX_NOPERM`).
    NotPermitted = 77,
    /// The configuration is wrong (`EX_CONFIG`).
    Config = 78,
}

impl Exit {
    const ALL: [Self; 11] = [
        Self::Usage,
        Self::Data,
        Self::NoInput,
        Self::Unavailable,
        Self::Software,
        Self::System,
        Self::CannotCreate,
        Self::Io,
        Self::TryAgain,
        Self::NotPermitted,
        Self::Config,
    ];

    /// The exit code that the daemon sent; [`Self::Software`] for any other number.
    pub fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Self::Software)
    }
}

/// Before what to try.
const TRY: &str = "\n  try: ";

/// A failure as a person reads it.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// What happened, in one line that says where.
    pub fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self { exit, what: what.to_string(), hint: None }
    }

    /// What to try.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// A failure that was sent as text: what to try is told apart, so that more can be said.
    pub fn from_text(exit: Exit, text: &str) -> Self {
        match text.split_once(TRY) {
            Some((what, hint)) => Self::new(exit, what).hint(hint),
            None => Self::new(exit, text),
        }
    }

    /// The same, with more to know of what happened.
    #[must_use]
    pub fn also(self, what: impl fmt::Display) -> Self {
        Self { what: format!("{}; {what}", self.what), ..self }
    }

    /// The same, with what to do once that is done which is to be tried already.
    #[must_use]
    pub fn then(self, hint: impl fmt::Display) -> Self {
        let first = self.hint.as_deref().unwrap_or("put that right");
        Self { hint: Some(format!("{first}; then {hint}")), ..self }
    }

    /// The same, for what a key of a file names.
    #[must_use]
    pub fn within(self, path: &Path, key: &str) -> Self {
        Self { what: format!("{}: {key}: {}", path.display(), self.what), ..self }
    }

    /// The same, where what to try are commands of ours that want `--config` to mean this configuration.
    #[must_use]
    pub fn for_config(self, config: &Path) -> Self {
        Self { hint: self.hint.map(|hint| with_config(&hint, config)), ..self }
    }

    /// What happened, and what to try.
    pub fn parts(&self) -> (&str, Option<&str>) {
        (&self.what, self.hint.as_deref())
    }

    /// An I/O error on a path.
    pub fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        let failure = match error.kind() {
            io::ErrorKind::NotFound => Self::new(
                Exit::NoInput,
                format_args!("{action} {}: no such file or directory", path.display()),
            ),
            io::ErrorKind::PermissionDenied => {
                Self::new(Exit::NotPermitted, format_args!("{action} {}: permission denied", path.display()))
            }
            _ => Self::new(Exit::Io, format_args!("{action} {}: {error}", path.display())),
        };
        match error.kind() {
            io::ErrorKind::PermissionDenied => failure.hint("run it as root"),
            _ => failure,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "{TRY}{hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// The text with `--config` in the commands of ours that read a configuration, where it is not in its usual place.
pub fn with_config(text: &str, config: &Path) -> String {
    const PROGRAM: &str = "spa-server ";
    if config == Path::new(DEFAULT_PATH) {
        return text.to_owned();
    }
    let command = Cli::command();
    let reads_it = |word: &str| {
        let found = command.find_subcommand(word);
        found.is_some_and(|found| !found.is_hide_set() && !["completions", "man"].contains(&found.get_name()))
    };
    let mut parts = text.split(PROGRAM);
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|character: char| !character.is_ascii_lowercase()).unwrap_or(part.len());
        whole += PROGRAM;
        if reads_it(&part[..end]) {
            whole += &format!("--config {} ", config.display());
        }
        whole += part;
    }
    whole
}

/// A number of things: "1 client", "2 clients".
pub fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// What commands return.
pub type Outcome<T = ()> = Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_name_the_configuration_that_is_meant() {
        let other = Path::new("/srv/spa.toml");
        for (text, wanted) in [
            ("spa-server client list", "spa-server --config /srv/spa.toml client list"),
            ("run spa-server keygen", "run spa-server --config /srv/spa.toml keygen"),
            (
                "systemctl stop spa-server, then spa-server unprotect",
                "systemctl stop spa-server, then spa-server --config /srv/spa.toml unprotect",
            ),
            ("spa-server --config x check", "spa-server --config x check"),
            ("no spa-server protects it", "no spa-server protects it"),
            ("spa-server man", "spa-server man"),
        ] {
            assert_eq!(with_config(text, other), wanted);
            assert_eq!(with_config(text, Path::new(DEFAULT_PATH)), text);
        }
        let failure = Failure::new(Exit::NoInput, "no spa-server run").hint("spa-server run");
        let said = failure.for_config(other).to_string();
        assert_eq!(said, "no spa-server run\n  try: spa-server --config /srv/spa.toml run");
    }

    #[test]
    fn one_remedy_is_told_whatever_is_added() {
        let sent = Failure::new(Exit::Config, "line 7 is wrong").hint("spa-server check").to_string();
        let failure = Failure::from_text(Exit::Config, &sent);
        assert_eq!(failure.to_string(), sent);
        assert_eq!(failure.parts(), ("line 7 is wrong", Some("spa-server check")));
        let said = failure.also("all is as it was").then("spa-server reload").to_string();
        let wanted = "line 7 is wrong; all is as it was\n  try: spa-server check; then spa-server reload";
        assert_eq!(said, wanted);
        let said = Failure::from_text(Exit::Io, "the disk is full").then("again").to_string();
        assert_eq!(said, "the disk is full\n  try: put that right; then again");
    }

    #[test]
    fn numbers_agree_with_what_they_count() {
        assert_eq!((counted(0, "client"), counted(1, "client")), ("0 clients".into(), "1 client".into()));
    }
}
