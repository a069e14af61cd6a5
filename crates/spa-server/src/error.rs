//! What a command tells a person: what happened, where, what to try; and the exit code (sysexits.h).

use std::fmt;
use std::io;
use std::path::Path;

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

    /// The same, for what a key of a file names.
    #[must_use]
    pub fn within(self, path: &Path, key: &str) -> Self {
        Self { what: format!("{}: {key}: {}", path.display(), self.what), ..self }
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
            Some(hint) => write!(f, "\n  try: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// What commands return.
pub type Outcome<T = ()> = Result<T, Failure>;
