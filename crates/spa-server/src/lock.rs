//! One writer: whoever changes the firewall holds the lock of the state directory.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::error::{Exit, Failure, Outcome};

const NAME: &str = "lock";

/// Held until it is dropped, or the process ends, however it ends.
pub struct Lock(#[expect(dead_code, reason = "held for its descriptor")] File);

/// Takes the lock.
///
/// # Errors
/// [`Exit::Unavailable`] where another process has it.
pub fn exclusive(state_dir: &Path) -> Outcome<Lock> {
    let path = state_dir.join(NAME);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
        .map_err(|error| Failure::io("cannot open", &path, &error.into()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(File::from(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let what = format_args!("another spa-server runs with {}", state_dir.display());
            Err(Failure::new(Exit::Unavailable, what).hint("stop it first (systemctl stop spa-server)"))
        }
        Err(error) => Err(Failure::io("cannot lock", &path, &error.into())),
    }
}
