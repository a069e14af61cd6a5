//! Named network namespaces, entered by a thread or by a program.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sh;

/// A network namespace of the running test; ends with it.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with `lo` up.
    ///
    /// # Panics
    /// If `ip` fails; call it inside [`crate::in_namespace`].
    pub fn new(name: &str) -> Self {
        sh(&format!("ip netns add {name} && ip -n {name} link set lo up"));
        Self { name: name.into() }
    }

    /// The name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `body` on a thread in this namespace. Sockets and processes that it makes stay there.
    ///
    /// # Panics
    /// If `body` does.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let run = || {
            let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace exists");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
            body()
        };
        std::thread::scope(|scope| match scope.spawn(run).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// A command that runs `program` in this namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    /// [`sh`] in this namespace.
    ///
    /// # Panics
    /// If the command line fails.
    pub fn sh(&self, line: &str) -> String {
        self.enter(|| sh(line))
    }
}
