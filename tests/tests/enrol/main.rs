//! Enrolment as people do it: `init`, invites and how they travel, new keys, clients that are shut out, cloak keys.
#![allow(clippy::unwrap_used)] // tests

mod cloak;
mod init;
mod invite;
mod manage;
mod qr;
mod remedies;

use std::process::Output;

/// Standard error of a program.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Has it failed with this code, and said all of this?
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "\"{word}\" is not in: {said}");
    }
    assert!(output.stdout.is_empty(), "a failure prints nothing on standard output");
}
