//! What commands ask of the daemon: one JSON object a line over a Unix socket in the state directory, one answer.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Exit, Failure, Outcome};
use crate::lock;

/// Longest line either way, in bytes: 1,000 grants in JSON are a fifth of it.
pub const MAX_LINE: u64 = 16 * 1024 * 1024;
/// How long a command waits for the daemon's answer. The firewall's own time-outs are below it, and so is the start of a
/// daemon with as many clients as there can be.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The socket's path.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// A request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Request {
    /// What the daemon does.
    Status,
    /// The open grants.
    Grants,
    /// Close grants: those that match all that is given.
    Revoke {
        /// Of this client.
        client: Option<String>,
        /// For this source.
        source: Option<IpAddr>,
        /// To this endpoint.
        endpoint: Option<String>,
        /// End their connections too.
        #[serde(default)]
        cut: bool,
    },
    /// Let a client in no more, and close what is open for it, until the next reload that succeeds, or start.
    #[serde(rename = "shut-out")]
    ShutOut {
        /// Whoever goes by this name,
        client: String,
        /// and whoever has this public key.
        key: Option<String>,
    },
    /// Read the configuration anew.
    Reload,
    /// Keep what `run --confirm` laid.
    Confirm,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// What was asked for.
    Ok(serde_json::Value),
    /// What went wrong.
    Error {
        /// The exit code.
        exit: u8,
        /// The text for a person.
        text: String,
    },
}

impl Response {
    /// A failure as an answer.
    pub fn error(failure: &Failure) -> Self {
        Self::Error { exit: failure.exit as u8, text: failure.to_string() }
    }
}

/// An open grant, as `grants` and `revoke` print it.
#[derive(Debug, Serialize, Deserialize)]
pub struct GrantView {
    /// The client's name.
    pub client: String,
    /// The address it is open for.
    pub source: IpAddr,
    /// What it opens, as `tcp/22`.
    pub endpoint: String,
    /// Seconds until it closes.
    pub remaining: u64,
    /// Packets let in by its rule: the first of each connection.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What `shut-out` did.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShutOutView {
    /// Whom the daemon let in until then, and does no more.
    pub clients: Vec<String>,
    /// How many grants were closed.
    pub closed: usize,
    /// Why their rules may still stand, if so; it is tried again.
    pub trouble: Option<String>,
}

/// Why every packet is refused, as `status` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusing {
    /// Until this moment, UTC, RFC 3339, by this machine's clock.
    pub until: String,
    /// For people.
    pub why: String,
}

impl Refusing {
    /// No record says what was accepted before.
    pub const RECORD: &str =
        "the replay record was lost or recovered, so whatever was made before then may be a copy";
    /// Time has gone backwards.
    pub const CLOCK: &str = "this machine's clock is behind the newest entry of the replay record; set it right, or, if it \
                             is right now, run spa-server recover";
}

impl Refusing {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self.why.as_str() {
            Self::CLOCK => {
                "set the clock right; if it is right now: stop the daemon, spa-server recover, start it"
            }
            _ => "wait: the daemon goes on by itself",
        }
    }
}

impl std::fmt::Display for Refusing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "packets are refused until {}: {}", self.until, self.why)
    }
}

/// What `revoke --cut` did, as it prints it.
#[derive(Debug, Serialize, Deserialize)]
pub struct CutView {
    /// The grants that were closed.
    pub closed: Vec<GrantView>,
    /// Connections that conntrack has forgotten.
    pub connections: usize,
    /// Sockets that were destroyed.
    pub sockets: usize,
    /// Left alone: another client's grant covers the same source and endpoint.
    pub spared: Vec<String>,
    /// What could not be ended, and why.
    pub refused: Vec<String>,
}

/// Whether a daemon listens on the socket. It may be starting: what it is asked then it does when it serves.
pub fn is_running(state_dir: &Path) -> bool {
    UnixStream::connect(socket_path(state_dir)).is_ok()
}

/// Waits for a daemon that is starting. False where none runs, or where it ended instead, or did not answer in time.
pub fn serves(state_dir: &Path) -> bool {
    exchange(state_dir, &Request::Status).is_ok()
}

/// Where nothing answers in a state directory: that a daemon runs all the same, with another one, as after `state-dir` was
/// edited. `None` where none runs.
pub fn runs_elsewhere(state_dir: &Path) -> Option<Failure> {
    let pid = lock::daemon_of_this_host().filter(|_| !is_running(state_dir))?;
    let path = socket_path(state_dir);
    let what = format_args!(
        "nothing answers on {}, but a daemon runs (pid {pid}): it was started with another state-dir",
        path.display()
    );
    Some(Failure::new(Exit::Unavailable, what).hint(format_args!(
        "set server.state-dir back to what it was, or have the daemon take the new one: end it ({}) and start it again",
        how_to_end(pid)
    )))
}

/// The command that stops the daemon of a state directory.
pub fn how_to_stop(state_dir: &Path) -> String {
    let stream = UnixStream::connect(socket_path(state_dir)).ok();
    let daemon = stream.and_then(|stream| rustix::net::sockopt::socket_peercred(&stream).ok());
    daemon.map_or_else(|| UNIT_STOP.to_owned(), |daemon| how_to_end(daemon.pid.as_raw_nonzero().get()))
}

/// The command that ends a daemon by its process id: systemd's, where it is one of its units.
pub fn how_to_end(pid: i32) -> String {
    let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if group.contains("spa-server.service") {
        format!("{UNIT_STOP} (pid {pid})")
    } else {
        format!("kill {pid}, or Ctrl-C where it runs")
    }
}

const UNIT_STOP: &str = "systemctl stop spa-server";

/// Asks the daemon.
///
/// # Errors
/// Where it does not run, does not answer, or answers with an error.
pub fn ask(state_dir: &Path, request: &Request) -> Outcome<serde_json::Value> {
    match exchange(state_dir, request)? {
        Response::Ok(value) => Ok(value),
        Response::Error { exit, text } => Err(Failure::from_text(Exit::from_code(exit), &text)),
    }
}

fn exchange(state_dir: &Path, request: &Request) -> Outcome<Response> {
    let path = socket_path(state_dir);
    let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => Failure::io("cannot connect to", &path, &error),
        _ => runs_elsewhere(state_dir).unwrap_or_else(|| {
            let what = format_args!("the daemon does not run (nothing answers on {})", path.display());
            Failure::new(Exit::Unavailable, what).hint("systemctl start spa-server, or spa-server run")
        }),
    })?;
    let failed = |error: io::Error| no_answer(&path, &error);
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_LINE)).read_line(&mut answer).map_err(failed)?;
    if answer.is_empty() {
        return Err(failed(ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_str(&answer).map_err(|error| failed(error.into()))
}

fn no_answer(path: &Path, error: &io::Error) -> Failure {
    const LOG: &str = "journalctl -u spa-server; then ask again";
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            let seconds = ANSWER_TIMEOUT.as_secs();
            let what = format_args!(
                "the daemon has not answered within {seconds} s: it is starting, or waits for the disk or the firewall"
            );
            Failure::new(Exit::TryAgain, what).hint(LOG)
        }
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            Failure::new(Exit::Unavailable, "the daemon ended before it answered").hint(LOG)
        }
        _ => Failure::io("no answer from", path, error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// As one whose start fails: it listened, and goes without an answer.
    #[test]
    fn a_daemon_that_ends_does_not_serve() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!serves(directory.path()), "none runs");
        let listener = UnixListener::bind(socket_path(directory.path())).unwrap();
        let daemon = std::thread::spawn(move || (0..2).for_each(|_| drop(listener.accept().unwrap())));
        assert!(!serves(directory.path()));
        let failure = ask(directory.path(), &Request::Confirm).unwrap_err();
        assert!(failure.to_string().contains("ended before it answered"), "{failure}");
        daemon.join().unwrap();
    }

    /// A clock behind the record may be so for years: nobody is to wait for that.
    #[test]
    fn the_remedy_fits_the_cause() {
        let remedy = |why: &str| Refusing { until: "2030-01-01".into(), why: why.into() }.remedy();
        assert!(remedy(Refusing::RECORD).starts_with("wait:"));
        let clock = remedy(Refusing::CLOCK);
        assert!(clock.contains("set the clock right") && clock.contains("spa-server recover"), "{clock}");
        assert!(!clock.contains("wait"), "{clock}");
    }
}
