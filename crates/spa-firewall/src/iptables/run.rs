//! Runs one program: no shell, an almost empty environment, an end in time.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::error::Error;

/// What the programs may print, in bytes: some 300,000 rules.
const MAX_OUTPUT: u64 = 64 << 20;
/// What is kept of standard error, in characters.
const MAX_STDERR: usize = 1024;
/// How long a killed child may take to be gone. One that hangs in the kernel is left behind.
const KILL_GRACE: Duration = Duration::from_secs(1);
/// For what the programs run themselves: modprobe.
pub const CHILD_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What a program did.
#[derive(Debug)]
pub struct Output {
    /// It ended with status 0.
    pub success: bool,
    /// `exit status: 1`, `signal: 9 (SIGKILL)`.
    pub status: String,
    /// What it printed.
    pub stdout: String,
    /// What it said of errors, escaped and shortened.
    pub stderr: String,
}

impl Output {
    /// It did what it was asked, and said nothing.
    pub fn success() -> Self {
        Self { success: true, status: String::new(), stdout: String::new(), stderr: String::new() }
    }
}

/// `iptables-restore -w 5 --noflush`, for messages.
pub fn describe(program: &Path, args: &[&str]) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    std::iter::once(name.as_ref()).chain(args.iter().copied()).collect::<Vec<_>>().join(" ")
}

/// Runs `program` with `input` on standard input and waits for its end, at most `limit`.
///
/// All three streams are files in memory: nobody has to read while the other writes, so neither can block the other,
/// and a grandchild that keeps them open holds nobody up.
///
/// # Errors
/// If it cannot be started, or did not end in time and was killed. A failure of the program is not an error here.
pub fn run(program: &Path, args: &[&str], input: Option<&str>, limit: Duration) -> Result<Output, Error> {
    let (stdout, stderr) = (memory_file()?, memory_file()?);
    let stdin = match input {
        None => Stdio::null(),
        Some(text) => {
            let mut file = memory_file()?;
            file.write_all(text.as_bytes()).map_err(|source| Error::Io { doing: "writing rules", source })?;
            std::io::Seek::rewind(&mut file)
                .map_err(|source| Error::Io { doing: "writing rules", source })?;
            file.into()
        }
    };
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .envs([("LC_ALL", "C"), ("PATH", CHILD_PATH)])
        .stdin(stdin)
        .stdout(share(&stdout)?)
        .stderr(share(&stderr)?)
        .process_group(0)
        .spawn()
        .map_err(|source| not_started(program, source))?;
    match wait(&mut child, limit) {
        Ok(Some(status)) => Ok(Output {
            success: status.success(),
            status: status.to_string(),
            stdout: contents(&stdout)?,
            stderr: escape(&contents(&stderr)?),
        }),
        Ok(None) => {
            kill(&mut child);
            Err(Error::TimedOut { command: describe(program, args), after: limit })
        }
        Err(source) => {
            kill(&mut child);
            Err(Error::Io { doing: "waiting for iptables", source })
        }
    }
}

/// The error for a program that could not be started.
pub fn not_started(program: &Path, source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::NotFound => {
            Error::NotInstalled { program: program.display().to_string(), unsafe_at: None }
        }
        _ => Error::Io { doing: "starting iptables", source },
    }
}

fn memory_file() -> Result<File, Error> {
    const NAME: &str = "spa-iptables";
    // Kernels before 6.3 do not know the second flag; later ones may be set to insist on it (vm.memfd_noexec).
    let file = memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create(NAME, MemfdFlags::CLOEXEC));
    file.map(File::from).map_err(|errno| Error::Io { doing: "making a file in memory", source: errno.into() })
}

fn share(file: &File) -> Result<Stdio, Error> {
    let copy = file.try_clone().map_err(|source| Error::Io { doing: "sharing a file in memory", source })?;
    Ok(copy.into())
}

/// Read by offset: the child's writes moved the shared position.
fn contents(file: &File) -> Result<String, Error> {
    let read = || {
        let length = file.metadata()?.len();
        if length > MAX_OUTPUT {
            return Err(std::io::Error::other("more output than any firewall has"));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map_err(|source| Error::Io { doing: "reading what iptables printed", source })
}

/// The status, or `None` when the time is over.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut ended, Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(None),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return child.wait().map(Some),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Kills the child and what it started, and reaps the child.
pub fn kill(child: &mut Child) {
    // Its own group since before exec; if it is gone already there is nothing to kill.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = wait(child, KILL_GRACE);
}

/// One line, printable, of bounded length.
pub fn escape(text: &str) -> String {
    let mut characters = text.trim().chars().flat_map(char::escape_debug);
    let mut line: String = characters.by_ref().take(MAX_STDERR).collect();
    if characters.next().is_some() {
        line.push_str("...");
    }
    line.replace("\\n", "; ").replace("\\'", "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, input: Option<&str>, limit: Duration) -> Result<Output, Error> {
        run(Path::new("/bin/sh"), &["-c", script], input, limit)
    }

    #[test]
    fn streams_and_status() {
        let long = "x".repeat(1 << 20);
        let output = sh("cat; echo bad >&2; exit 3", Some(&long), TIME).expect("it runs");
        assert!(!output.success);
        assert_eq!((output.status.as_str(), output.stderr.as_str()), ("exit status: 3", "bad"));
        assert_eq!(output.stdout, long);
    }

    #[test]
    fn environment_is_bare() {
        let output = run(Path::new("/usr/bin/env"), &[], None, TIME).expect("it runs");
        assert_eq!(output.stdout, "LC_ALL=C\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n");
    }

    #[test]
    fn a_hanging_child_is_killed_with_its_children() {
        let started = Instant::now();
        let short = Duration::from_millis(100);
        let error = sh("sleep 1000 & sleep 1000; true", None, short).expect_err("it hangs");
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[test]
    fn a_grandchild_that_stays_holds_nobody_up() {
        let started = Instant::now();
        assert!(sh("sleep 3 & true", None, TIME).expect("it runs").success);
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn what_is_said_is_one_bounded_line() {
        assert_eq!(escape("a\nb\u{1b}[1m'c'\n"), "a; b\\u{1b}[1m'c'");
        assert_eq!(escape(&"é".repeat(5000)).chars().count(), MAX_STDERR + 3);
    }

    const TIME: Duration = Duration::from_secs(20);
}
