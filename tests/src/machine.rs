//! A whole Debian machine on the network of a test: systemd, ssh, packages. `tests/machine.sh` has how.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::probe::eventually;
use crate::process::Process;
use crate::{skip, succeeded};

/// How long a machine may take to boot, and a command of a document to end, where the tests share a busy computer.
const BOOT: Duration = Duration::from_secs(90);
const COMMAND_SECONDS: &str = "90";

/// A booted machine; ends when dropped.
pub struct Machine {
    name: String,
    process: Process,
}

impl Machine {
    /// Boots it in the network namespace of the same name; call it inside [`crate::in_namespace`].
    ///
    /// # Panics
    /// If systemd does not get all of its units up.
    pub fn boot(name: &str) -> Self {
        let process = Process::start(name, script().args(["boot", name]));
        let machine = Self { name: name.into(), process };
        eventually(format_args!("{name} boots"), BOOT, || {
            let output = machine.command().args(["systemctl", "is-system-running"]).output();
            output.is_ok_and(|output| output.stdout == b"running\n")
        });
        machine
    }

    /// A command that runs its arguments as root on the machine, in its home directory, in an almost empty environment.
    pub fn command(&self) -> Command {
        let mut command = script();
        command.args(["run", &self.name]);
        command
    }

    /// Runs lines of shell, the first that fails being the last, with something on standard input.
    ///
    /// # Panics
    /// If the machine is gone.
    pub fn call(&self, lines: &str, environment: &[(&str, String)], input: &[u8]) -> Output {
        let mut command = self.command();
        command.arg("env").args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.args(["timeout", COMMAND_SECONDS, "bash", "-euo", "pipefail", "-c", lines]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bash runs");
        // A program that does not read it breaks the pipe, which is as well.
        let _ = child.stdin.take().expect("piped").write_all(input);
        child.wait_with_output().expect("it is our child")
    }

    /// Runs lines of shell that have to succeed; returns standard output.
    ///
    /// # Panics
    /// If they fail.
    pub fn sh(&self, lines: &str) -> String {
        succeeded(&format!("on {}: {lines}", self.name), &self.call(lines, &[], b""))
    }

    /// Writes a file, and its directory if that lacks.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, path: &str, text: &str) {
        let lines = format!("umask 077; mkdir -p \"$(dirname {path})\"; cat >{path}");
        succeeded(&format!("writing {path} on {}", self.name), &self.call(&lines, &[], text.as_bytes()));
    }

    /// What systemd and the machine's start said.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// The root directory that machines are booted from, made if it lacks. Where this machine cannot, the test is reported as
/// skipped.
///
/// # Panics
/// If it cannot be made.
pub fn root_or_skip(test: &str) -> Option<PathBuf> {
    let able = script().arg("able").output().expect("bash runs");
    if !able.status.success() {
        skip(test, String::from_utf8_lossy(&able.stdout).trim());
        return None;
    }
    let root = succeeded("tests/machine.sh root", &script().arg("root").output().expect("bash runs"));
    Some(PathBuf::from(root.trim()))
}

fn script() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("machine.sh"))
}
