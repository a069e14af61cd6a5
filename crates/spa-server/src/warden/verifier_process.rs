//! The verifier as the warden sees it: a child process, the link to it, and the capture sockets it reads.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use spa_capture::{Capture, CaptureError, Family, Fanout, Interfaces, Method};
use spa_gate::Outcome as Settlement;
use spa_proto::Tag;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::events;
use super::settings::VerifierSettings;
use crate::config::Config;
use crate::error::{Exit, Failure, Outcome};
use crate::link::{self, FromVerifier, FromWarden, Link};
use crate::{reactor, verifier};

/// The user that the verifier becomes where `server.user` is not set and it exists.
const DEFAULT_USER: &str = "spa";
/// The user `nobody` of Debian and others, where there is no user of our own.
const NOBODY: u32 = 65_534;

/// How long a verifier has to make room in its queue.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a verifier has to end by itself.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// The capture sockets. The warden keeps them, so a verifier that is started anew misses nothing. It never reads them:
/// of a socket's ring there is one reader, so one verifier has to end before the next begins.
pub struct Captures {
    sockets: Vec<Socket>,
    port: u16,
    interfaces: Interfaces,
}

struct Socket {
    family: Family,
    method: Method,
    /// Which of the verifier's threads reads it.
    thread: u8,
    fd: OwnedFd,
}

impl Captures {
    /// Opens a socket for each family that the kernel has, and each thread.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, or where a socket cannot be set up.
    pub fn open(config: &Config) -> Outcome<Self> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::NotPermitted, error);
        let interfaces = match &config.interfaces {
            None => Interfaces::all(),
            Some(names) => {
                Interfaces::named(names.iter().map(String::as_str)).map_err(|error| failed(&error))?
            }
        };
        let mut sockets = Vec::new();
        for family in [Family::V4, Family::V6] {
            sockets.extend(open_family(family, config, &interfaces).map_err(|error| failed(&error))?);
        }
        Ok(Self { sockets, port: config.port, interfaces })
    }

    /// How packets come, for people: the families and their methods, and the threads where there are several.
    pub fn methods(&self) -> String {
        let mut words: Vec<String> =
            self.sockets.iter().map(|Socket { family, method, .. }| format!("{family} {method}")).collect();
        words.dedup();
        match self.sockets.iter().map(|socket| socket.thread).max() {
            None | Some(0) => {}
            Some(last) => words.push(format!("{} threads", last + 1)),
        }
        words.join(", ")
    }
}

/// The sockets of one family, one a thread, which share its packets.
fn open_family(
    family: Family,
    config: &Config,
    interfaces: &Interfaces,
) -> Result<Vec<Socket>, CaptureError> {
    let mut fanout = Fanout::default();
    let open = |thread| {
        let capture = Capture::open(family, config.port, interfaces)?;
        if let Some(error) = capture.ring_refused() {
            events::no_ring(family, error);
        }
        if config.capture_threads > 1 {
            capture.join(&mut fanout)?;
        }
        Ok(Socket { family, method: capture.method(), thread, fd: capture.into_fd() })
    };
    (0..config.capture_threads).map(open).collect()
}

/// The child and the link to it. Killed on drop: only the warden's verifier holds keys.
pub struct VerifierProcess {
    child: Child,
    link: AsyncFd<Link>,
}

impl VerifierProcess {
    /// Starts a verifier and gives it its settings and sockets.
    ///
    /// # Errors
    /// Where the process cannot be made, or does not listen.
    pub async fn start(config: &Config, settings: &VerifierSettings, captures: &Captures) -> Outcome<Self> {
        let failed =
            |error: io::Error| Failure::new(Exit::System, format_args!("cannot start the verifier: {error}"));
        let (ours, theirs) = link::pair().map_err(failed)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(verifier::PROGRAM).arg(config.capture_threads.to_string()).env_clear();
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit());
        if let Some(user) = user(config)? {
            command.uid(user.uid).gid(user.gid);
        }
        // It must not inherit what the firewall's programs are given.
        let child = spa_firewall::iptables::start_alone(|| command.spawn()).map_err(failed)?;
        let process = Self { child, link: reactor::register(ours).map_err(failed)? };
        process.configure(settings).await.map_err(failed)?;
        process.resolve_interfaces(captures).await.map_err(failed)?;
        for Socket { family, thread, fd, .. } in &captures.sockets {
            let (family, port, thread) = (*family, captures.port, *thread);
            let fd = fd.as_fd().try_clone_to_owned().map_err(failed)?;
            process.send(FromWarden::Capture { family, port, thread, fd }).await.map_err(failed)?;
        }
        Ok(process)
    }

    /// Gives it new settings.
    ///
    /// # Errors
    /// Where it does not listen.
    pub async fn configure(&self, settings: &VerifierSettings) -> io::Result<()> {
        let VerifierSettings { server, cloaks, max_age, clients } = settings;
        let begin = FromWarden::Begin { server: server.clone(), cloaks: cloaks.clone(), max_age: *max_age };
        self.send(begin).await?;
        for (key, gate) in clients {
            self.send(FromWarden::Client(*key, gate.clone())).await?;
        }
        self.send(FromWarden::Commit).await
    }

    /// Tells it the indexes that the configured interfaces have now.
    ///
    /// # Errors
    /// Where they cannot be looked up, or it does not listen.
    pub async fn resolve_interfaces(&self, captures: &Captures) -> io::Result<()> {
        let indexes = captures.interfaces.resolve().map_err(io::Error::other)?;
        self.send(FromWarden::Interfaces(indexes)).await
    }

    async fn send(&self, message: FromWarden) -> io::Result<()> {
        let sent = self.link.async_io(Interest::WRITABLE, |link| link.send_to_verifier(&message));
        // A verifier that is stuck, or taken over, must not hold up the warden.
        tokio::time::timeout(SEND_TIMEOUT, sent).await?
    }

    /// Tells it what became of a candidate. Where its queue is full the word is lost, and it goes on refusing copies
    /// by the candidate's first sources.
    pub fn settle(&self, tag: Tag, outcome: Settlement) {
        let _ = self.link.get_ref().send_to_verifier(&FromWarden::Settle(tag, outcome)); // see above
    }

    /// Asks for its counts; the answer is a message.
    ///
    /// # Errors
    /// Where it does not listen.
    pub async fn ask_counts(&self) -> io::Result<()> {
        self.send(FromWarden::Count).await
    }

    /// The next message; `None` where it is gone.
    ///
    /// # Errors
    /// Where the link fails or carries something malformed.
    pub async fn receive(&self) -> io::Result<Option<FromVerifier>> {
        self.link.async_io(Interest::READABLE, Link::receive_from_verifier).await
    }

    /// The next message if it is there already; otherwise as [`Self::receive`].
    pub fn try_receive(&self) -> Option<io::Result<Option<FromVerifier>>> {
        match self.link.get_ref().receive_from_verifier() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            received => Some(received),
        }
    }

    /// Ends it, and says how it ended. It ends by itself when the link is shut, and is killed where it does not.
    pub fn end(&mut self) -> String {
        let _ = rustix::net::shutdown(self.link.get_ref(), rustix::net::Shutdown::Both); // it may be gone already
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return describe(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) => break,
                Err(error) => return error.to_string(),
            }
        }
        match self.child.kill() {
            Ok(()) => self.child.wait().map_or_else(|error| error.to_string(), describe),
            Err(error) => format!("cannot be killed: {error}"),
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(31) => "killed by seccomp (SIGSYS): it made a system call that it must not".to_owned(),
        _ => status.to_string(),
    }
}

impl Drop for VerifierProcess {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whom the verifier becomes.
#[derive(Clone, Copy, Debug)]
pub struct User {
    uid: u32,
    gid: u32,
}

/// Whom the verifier becomes: `server.user`, else `spa`, else `nobody`. `None` where this process is not root, or
/// where that user is not mapped in its user namespace.
pub fn user(config: &Config) -> Outcome<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = match &config.user {
        Some(name) => lookup(&passwd, name).ok_or_else(|| {
            Failure::new(
                Exit::Config,
                format_args!("{}: server.user: there is no user {name}", config.path.display()),
            )
        })?,
        None => lookup(&passwd, DEFAULT_USER).unwrap_or(User { uid: NOBODY, gid: NOBODY }),
    };
    let is_mapped = |map: &str, id| std::fs::read_to_string(map).is_ok_and(|text| maps(&text, id));
    let mapped = is_mapped("/proc/self/uid_map", user.uid) && is_mapped("/proc/self/gid_map", user.gid);
    Ok(mapped.then_some(user))
}

/// A user's ids in the format of passwd(5).
fn lookup(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let matches = fields.next() == Some(name);
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        (matches && uid != 0).then_some(User { uid, gid })
    })
}

/// Whether an id is inside a map of user_namespaces(7): lines of first inside, first outside, count.
fn maps(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let (first, count) = (numbers.next().unwrap_or(0), numbers.nth(1).unwrap_or(0));
        (first..first + count).contains(&u64::from(id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_in_passwd() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nspa:x:998:997::/nonexistent:/usr/sbin/nologin\nbroken\n";
        assert!(lookup(passwd, "spa").is_some_and(|user| (user.uid, user.gid) == (998, 997)));
        assert!(lookup(passwd, "root").is_none(), "root is no confinement");
        assert!(lookup(passwd, "broken").is_none() && lookup(passwd, "nobody").is_none());
    }

    #[test]
    fn ids_are_found_in_maps() {
        assert!(maps("         0          0 4294967295\n", 65_534));
        assert!(maps("0 1000 1\n", 0) && !maps("0 1000 1\n", 998));
        assert!(!maps("", 0));
    }
}
