//! The shipped spa-client, on a machine of the topology.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::ns::Namespace;
use crate::server::succeeded;
use crate::topology::Host;
use crate::{WORK, binary};

/// A client with a configuration of its own.
pub struct Client {
    ns: Namespace,
    directory: PathBuf,
}

impl Client {
    /// Without any host yet.
    ///
    /// # Panics
    /// If its directory cannot be made.
    pub fn new(on: &Host, name: &str) -> Self {
        use std::os::unix::fs::DirBuilderExt;
        let directory = Path::new(WORK).join(format!("client-{name}"));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).expect("a tmpfs directory");
        Self { ns: on.ns.clone(), directory }
    }

    /// With one host, `bastion`, from an invite.
    ///
    /// # Panics
    /// If the import fails.
    pub fn invited(on: &Host, name: &str, invite: &str) -> Self {
        let client = Self::new(on, name);
        client.import("bastion", invite);
        client
    }

    /// The same client, with its keys and its record, on another machine.
    pub fn moved_to(&self, host: &Host) -> Self {
        Self { ns: host.ns.clone(), directory: self.directory.clone() }
    }

    /// `client.toml`.
    pub fn config(&self) -> PathBuf {
        self.directory.join("client.toml")
    }

    /// A file beside it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Imports an invite under a name.
    ///
    /// # Panics
    /// If that fails.
    pub fn import(&self, name: &str, invite: &str) {
        let output = self.call_with(&["import", "--name", name], invite.as_bytes());
        succeeded("spa-client import", &output);
    }

    /// A command of spa-client, on this configuration, in the machine's namespace.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.ns.command(binary("spa-client"));
        // What it keeps beside its configuration stays in this test.
        command.env("HOME", &self.directory).env_remove("XDG_STATE_HOME").env_remove("XDG_CONFIG_HOME");
        command.arg("--config").arg(self.config()).args(arguments);
        command
    }

    /// Runs a command of spa-client.
    pub fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("nsenter runs")
    }

    /// Runs a command of spa-client with something on standard input.
    pub fn call_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let piped = Stdio::piped;
        let mut command = self.command(arguments);
        let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().expect("nsenter runs");
        // A program that does not read to the end breaks the pipe; what it says about it is in the output.
        let _ = child.stdin.take().expect("piped").write_all(input);
        child.wait_with_output().expect("it is our child")
    }

    /// Runs a command of spa-client that has to succeed; returns its standard output.
    ///
    /// # Panics
    /// If it fails.
    pub fn must(&self, arguments: &[&str]) -> String {
        succeeded(&format!("spa-client {}", arguments.join(" ")), &self.call(arguments))
    }

    /// Knocks.
    ///
    /// # Panics
    /// If `spa-client open` fails.
    pub fn open(&self, service: &str) {
        self.must(&["open", service]);
    }
}
