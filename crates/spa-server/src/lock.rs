//! One writer: whoever changes the firewall holds the lock of the state directory.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::control;
use crate::error::{Exit, Failure, Outcome};

const NAME: &str = "lock";
const PATIENCE: Duration = Duration::from_secs(1);

/// Held until it is dropped, or the process ends, however it ends; and until every process has ended that was given a
/// copy. Its clones are the same lock.
#[derive(Clone, Debug)]
pub struct Lock(Arc<File>);

impl Lock {
    /// A copy for processes that write for this one.
    ///
    /// # Errors
    /// Without a free descriptor.
    pub fn share(&self) -> Outcome<OwnedFd> {
        let failed = |error| Failure::new(Exit::System, format_args!("cannot share the lock: {error}"));
        self.0.try_clone().map(OwnedFd::from).map_err(failed)
    }
}

/// The abstract address, which belongs to the network namespace, of the one daemon that may run there.
const ONLY_DAEMON: &str = "spa-server";

/// Two daemons in one network namespace would undo each other's rules. Any local user can take an abstract address, so
/// one that is not root's (or ours) is no reason not to start. Waits a moment: a daemon that was killed, and a child that
/// it was starting, give up their descriptors one after the other, the lock before this.
///
/// # Errors
/// [`Exit::Unavailable`] where another daemon runs, whatever its state directory.
pub fn only_daemon() -> Outcome<Option<UnixListener>> {
    let failed = |error: std::io::Error| Failure::new(Exit::System, format_args!("abstract socket: {error}"));
    let address = only_daemon_address().map_err(failed)?;
    let deadline = Instant::now() + PATIENCE;
    let is_taken = |bound: &std::io::Result<_>| {
        bound.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
    };
    let mut bound = UnixListener::bind_addr(&address);
    while is_taken(&bound) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10)); // nothing tells when it is free
        bound = UnixListener::bind_addr(&address);
    }
    match bound {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => Err(failed(error)),
        Err(_) => match daemon_of_this_host() {
            Some(pid) => {
                let what = format_args!("another spa-server runs in this network namespace (pid {pid})");
                Err(Failure::new(Exit::Unavailable, what).hint(format_args!(
                    "one daemon protects all services of a host; to stop that one: {}",
                    control::how_to_end(pid)
                )))
            }
            None => Ok(None),
        },
    }
}

fn only_daemon_address() -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(ONLY_DAEMON)
}

/// The process id of the daemon of this network namespace, whatever its state directory; `None` where none runs, or the
/// address is somebody's who is not root (nor us).
pub fn daemon_of_this_host() -> Option<i32> {
    let stream = UnixStream::connect_addr(&only_daemon_address().ok()?).ok()?;
    let holder = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    let is_ours = holder.uid.is_root() || holder.uid == rustix::process::geteuid();
    is_ours.then(|| holder.pid.as_raw_nonzero().get())
}

/// Takes the lock. Waits a moment: what writes rules for a daemon that was killed holds it until it has ended.
///
/// # Errors
/// [`Exit::Unavailable`] where another process has it.
pub fn exclusive(state_dir: &Path) -> Outcome<Lock> {
    let path = state_dir.join(NAME);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
        .map_err(|error| Failure::io("cannot open", &path, &error.into()))?;
    let deadline = Instant::now() + PATIENCE;
    let mut locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
    while locked == Err(rustix::io::Errno::WOULDBLOCK) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10)); // flock has no time-out of its own
        locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
    }
    match locked {
        Ok(()) => Ok(Lock(Arc::new(File::from(file)))),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let what = format_args!("another spa-server runs with {}", state_dir.display());
            Err(Failure::new(Exit::Unavailable, what)
                .hint(format_args!("stop it first: {}", control::how_to_stop(state_dir))))
        }
        Err(error) => Err(Failure::io("cannot lock", &path, &error.into())),
    }
}
