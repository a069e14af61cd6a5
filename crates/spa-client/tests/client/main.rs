//! Tests of the command as users run it.
#![cfg(unix)]

mod command;
mod common;
mod knock;
mod silence;
