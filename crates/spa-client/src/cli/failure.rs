//! How a command fails: what happened, what to try, and the exit code, after BSD's sysexits.h.

use std::io;

use crate::error::Error;

pub(super) const USAGE: u8 = 64;
pub(super) const DATA: u8 = 65;
pub(super) const NO_INPUT: u8 = 66;
pub(super) const UNAVAILABLE: u8 = 69;
pub(super) const IO: u8 = 74;
/// "Temporary failure": could not tell whether the port opened. Trying again may.
pub(super) const COULD_NOT_TELL: u8 = 75;
pub(super) const NO_PERMISSION: u8 = 77;
pub(super) const CONFIG: u8 = 78;

/// A failure on its way to standard error.
#[derive(Debug)]
pub(super) struct Failure {
    pub code: u8,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Turns an I/O error of a command itself into a failure.
pub(super) fn io_failure(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::new(IO, format!("{what}: {error}"))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: code(&error), message: error.to_string(), hint: error.hint() }
    }
}

fn code(error: &Error) -> u8 {
    match error {
        Error::Config(_) | Error::NoResolver { .. } => CONFIG,
        Error::File { source, .. } => match source.kind() {
            io::ErrorKind::NotFound => NO_INPUT,
            io::ErrorKind::PermissionDenied => NO_PERMISSION,
            _ => IO,
        },
        Error::Exposed(_) => NO_PERMISSION,
        Error::KeyFile { .. } | Error::UselessKeys { .. } => DATA,
        Error::UnknownHost { .. }
        | Error::WhichHost { .. }
        | Error::AmbiguousAddress { .. }
        | Error::UnknownService { .. }
        | Error::RequestCount => USAGE,
        Error::Resolve { .. } | Error::NotSent { .. } | Error::Clock | Error::Refused { .. } => UNAVAILABLE,
        Error::Random(_) => IO,
        Error::NoAnswer { .. } => COULD_NOT_TELL,
    }
}
