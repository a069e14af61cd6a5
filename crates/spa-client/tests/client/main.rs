//! Tests of the command as users run it.
#![cfg(unix)]

// Each is marked as a test, though the whole is one, for clippy to know its helpers as such.
#[cfg(test)]
mod command;
#[cfg(test)]
mod common;
#[cfg(test)]
mod knock;
#[cfg(test)]
mod silence;
