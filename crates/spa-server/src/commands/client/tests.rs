//! What is said of a client that was shut out, with a daemon that answers as it is told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

use super::*;
use crate::control::socket_path;

const TROUBLE: &str = r#"{"ok":{"clients":["alice"],"closed":0,"trouble":"the rules could not be removed"}}"#;
const SHUT_OUT: &str = r#"{"ok":{"clients":["alice"],"closed":1,"trouble":null}}"#;
const OLD: &str = r#"{"error":{"exit":64,"text":"malformed request"}}"#;
const REFUSED: &str = r#"{"error":{"exit":78,"text":"server.toml: line 7\n  try: spa-server check"}}"#;
const DONE: &str = r#"{"ok":null}"#;

fn config(directory: &Path) -> Config {
    let path = directory.join("server.toml");
    std::fs::write(&path, format!("[server]\nstate-dir = \"{}\"\n", directory.display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    Config::load(&path).unwrap()
}

/// Answers shut-out and reload so, until both were asked.
fn daemon(directory: &Path, shut_out: &'static str, reload: &'static str) -> JoinHandle<()> {
    let listener = UnixListener::bind(socket_path(directory)).unwrap();
    std::thread::spawn(move || {
        let mut asked = 0;
        while asked < 2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap(); // nothing, of who asks whether it runs
            if !line.is_empty() {
                asked += 1;
                let answer = if line.contains("shut-out") { shut_out } else { reload };
                writeln!(stream, "{answer}").unwrap();
            }
        }
    })
}

fn settled(shut_out_answer: &'static str, reload: &'static str) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let daemon = daemon(directory.path(), shut_out_answer, reload);
    let alice = "alice".parse().unwrap();
    let told = shut_out(&config, &alice, None);
    let settled = settle(&config, &alice, told);
    daemon.join().unwrap();
    settled
}

#[test]
fn a_client_that_is_still_let_in_is_said_to_be() {
    let said = settled(OLD, REFUSED).unwrap_err();
    assert_eq!(said.exit, Exit::Config);
    let said = said.to_string();
    for part in [
        "alice is let in with what it had until `spa-server reload` succeeds",
        "server.toml: line 7",
        "malformed request",
        "\n  try: spa-server check; then spa-server reload",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
    assert_eq!(said.matches("try:").count(), 1, "{said}");
}

#[test]
fn one_of_the_two_is_enough() {
    for (shut_out, reload) in [(SHUT_OUT, DONE), (SHUT_OUT, REFUSED), (OLD, DONE)] {
        assert!(settled(shut_out, reload).is_ok(), "{shut_out} {reload}");
    }
}

/// A reload that succeeds has written the firewall anew, and read it back.
#[test]
fn what_is_still_open_is_told_unless_the_reload_closed_it() {
    assert!(settled(TROUBLE, DONE).is_ok());
    let said = settled(TROUBLE, REFUSED).unwrap_err();
    assert_eq!(said.exit, Exit::System);
    assert_eq!(said.to_string(), "alice is let in no more, but the rules could not be removed");
}

/// It goes without an answer, as one that is stopping; then none runs.
#[test]
fn a_daemon_that_ends_meanwhile_is_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let listener = UnixListener::bind(socket_path(directory.path())).unwrap();
    let daemon = std::thread::spawn(move || (0..2).for_each(|_| drop(listener.accept().unwrap())));
    let alice = "alice".parse().unwrap();
    let told = shut_out(&config, &alice, None);
    daemon.join().unwrap();
    assert!(!told.answered && told.complete.is_err());
    assert!(settle(&config, &alice, told).is_ok());
}

/// Trouble of the firewall makes no client of a misspelt name.
#[test]
fn a_name_that_nobody_has_is_a_missing_file() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    const ELSEWHERE: &str =
        r#"{"ok":{"clients":[],"closed":0,"trouble":"the firewall is not as it should be"}}"#;
    let listener = UnixListener::bind(socket_path(directory.path())).unwrap();
    let daemon = std::thread::spawn(move || {
        for answer in ["", ELSEWHERE] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            if !answer.is_empty() {
                writeln!(stream, "{answer}").unwrap();
            }
        }
    });
    let said = remove(&config, &"alcie".parse().unwrap()).unwrap_err();
    daemon.join().unwrap();
    assert_eq!(said.exit, Exit::NoInput);
    assert!(said.to_string().starts_with("there is no client alcie in "), "{said}");
}

#[test]
fn files_that_cannot_be_written_leave_one_remedy() {
    let alice: ClientName = "alice".parse().unwrap();
    let full = || Failure::new(Exit::Io, "cannot remove alice.toml: read-only").hint("run it as root");
    let told = ShutOut {
        answered: true,
        was_let_in: true,
        complete: Err(Failure::new(
            Exit::System,
            "alice is let in no more, but the rules could not be removed",
        )),
    };
    let said = told.unwritten(full(), &alice, "spa-server client remove alice again").to_string();
    assert_eq!(
        said,
        "cannot remove alice.toml: read-only; alice is let in no more, but the rules could not be removed; the daemon shuts \
         alice out until its next reload or start\n  try: run it as root; then spa-server client remove alice again"
    );
    let nobody = ShutOut { answered: false, was_let_in: false, complete: Ok(()) };
    assert_eq!(nobody.unwritten(full(), &alice, "").to_string(), full().to_string());
}
