//! The counter of a client key: Unix nanoseconds, strictly increasing over all the processes that use the key.
//!
//! The greatest one used is kept in a file for each key, under a lock. It need not survive a power cut: after one
//! the clock has moved on. The server keeps its own record and is not fooled by a lost file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use spa_proto::PublicKey;

use crate::error::Error;

/// How far ahead of the clock a counter may be: the server's default `max-age`. Past that the server would refuse
/// it, so the clock was stepped back, and the clock is right.
const WINDOW: Duration = Duration::from_secs(60);

/// The next counter after `last`: the clock, or one more than the last while that is within the window.
fn next(last: u64, now: u64) -> u64 {
    let window = WINDOW.as_nanos() as u64; // 60 s fit
    match last.checked_add(1) {
        Some(after) if after <= now.saturating_add(window) => now.max(after),
        _ => now,
    }
}

/// Gives out the counters of one client key.
#[derive(Debug)]
pub(crate) struct Counter {
    file: Option<PathBuf>,
    /// The last one given out here, for when the file cannot be used.
    last: u64,
    trouble: Option<io::Error>,
}

impl Counter {
    /// For this key, kept in this directory.
    pub(crate) fn new(directory: Option<&Path>, client: &PublicKey) -> Self {
        let trouble = directory.is_none().then(|| io::Error::other("no home directory in the environment"));
        Self { file: directory.map(|directory| directory.join(file_name(client))), last: 0, trouble }
    }

    /// A counter greater than all before. Where the file cannot be used, greater than all before in this process.
    pub(crate) fn next(&mut self) -> Result<u64, Error> {
        let now = unix_nanos().ok_or(Error::Clock)?;
        let last = self.last;
        let stored = self.file.as_deref().map(|file| update(file, last, now)).transpose();
        self.last = match stored {
            Ok(counter) => counter.unwrap_or_else(|| next(last, now)),
            Err(error) => {
                (self.trouble, self.file) = (Some(error), None);
                next(last, now)
            }
        };
        Ok(self.last)
    }

    /// Why the file could not be used, told once.
    pub(crate) fn take_trouble(&mut self) -> Option<io::Error> {
        self.trouble.take()
    }

    /// How far the last counter used is ahead of the clock, where it is: the clock was stepped back by as much.
    pub(crate) fn ahead(&self) -> Option<Duration> {
        let file = self.file.as_deref()?;
        if !std::fs::symlink_metadata(file).ok()?.is_file() {
            return None; // a pipe would be waited for
        }
        let last = parse(&std::fs::read_to_string(file).ok()?)?;
        last.checked_sub(unix_nanos()?).filter(|ahead| *ahead > 0).map(Duration::from_nanos)
    }
}

/// The public key in hexadecimal: base64 has characters that file names do not.
fn file_name(client: &PublicKey) -> String {
    let hex: String = client.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("counter-{hex}")
}

fn unix_nanos() -> Option<u64> {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos().try_into().ok()
}

fn parse(text: &str) -> Option<u64> {
    text.trim_end().parse().ok()
}

fn update(path: &Path, last: u64, now: u64) -> io::Result<u64> {
    if let Some(directory) = path.parent() {
        create_private(directory)?;
    }
    let mut file = private().open(path)?;
    // Reading and writing a pipe or a device would wait for ever, or do what nobody meant.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    lock(&file)?; // until the file is closed
    let mut text = String::new();
    // A file that is not a number was cut short by a power cut: the clock has moved on since.
    let stored = (&mut file).take(32).read_to_string(&mut text).ok().and_then(|_| parse(&text)).unwrap_or(0);
    let counter = next(last.max(stored), now);
    file.rewind()?;
    // Always of one length, so that no moment has a mix of two numbers of different lengths.
    file.write_all(format!("{counter:020}\n").as_bytes())?;
    Ok(counter)
}

/// Opens without waiting for the other end of a pipe, and follows no link: the directory is the user's own, so whatever
/// is there instead of the file was not meant.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;

        options.mode(0o600).custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed());
    }
    options
}

/// Makes a directory, and those above it, for the user alone.
pub(crate) fn create_private(directory: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

#[cfg(unix)]
fn lock(file: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(file, rustix::fs::FlockOperation::LockExclusive)?)
}

/// Without a lock two processes in the same 100 ns could draw one counter; the server would refuse the second.
#[cfg(not(unix))]
fn lock(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1_766_361_600 * SECOND;

    #[test]
    fn counters_increase_while_the_window_allows_it() {
        assert_eq!(next(0, NOW), NOW);
        assert_eq!(next(NOW - 1, NOW), NOW);
        assert_eq!(next(NOW, NOW), NOW + 1);
        assert_eq!(next(NOW + 59 * SECOND, NOW), NOW + 59 * SECOND + 1, "the clock went back a little");
        assert_eq!(next(NOW + 60 * SECOND - 1, NOW), NOW + 60 * SECOND);
        assert_eq!(next(NOW + 60 * SECOND, NOW), NOW, "it went back further than the server would take");
        assert_eq!(next(u64::MAX, NOW), NOW);
    }

    fn key() -> PublicKey {
        spa_proto::SecretKey::from_bytes([3; 32]).public_key()
    }

    #[test]
    fn processes_share_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("new/spa");
        let mut counters = [Counter::new(Some(&state), &key()), Counter::new(Some(&state), &key())];
        let mut last = 0;
        for turn in 0..100 {
            let counter = counters[turn % 2].next().unwrap();
            assert!(counter > last);
            last = counter;
        }
        let file = state.join(file_name(&key()));
        std::fs::write(&file, format!("{:020}\n", last + 30 * SECOND)).unwrap();
        assert_eq!(counters[0].next().unwrap(), last + 30 * SECOND + 1);
        assert!(counters[0].ahead().unwrap() > Duration::from_secs(20));
        std::fs::write(&file, "torn").unwrap();
        assert!(counters[1].next().is_ok_and(|counter| counter > last));
    }

    #[test]
    fn threads_never_draw_the_same_counter() {
        let directory = tempfile::tempdir().unwrap();
        let draw = || {
            let mut counter = Counter::new(Some(directory.path()), &key());
            (0..200).map(|_| counter.next().unwrap()).collect::<Vec<_>>()
        };
        let mut all = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 800);
    }

    /// A pipe in the place of the file holds nobody up, and a link is not followed.
    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(file_name(&key()));
        let target = directory.path().join("elsewhere");
        std::fs::write(&target, "precious").unwrap();
        let fifo = || {
            rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RWXU).unwrap();
        };
        let link = || std::os::unix::fs::symlink(&target, &file).unwrap();
        for (put, why) in [(&fifo as &dyn Fn(), "not a regular file"), (&link, "symbolic link")] {
            put();
            let mut counter = Counter::new(Some(directory.path()), &key());
            assert!(counter.ahead().is_none());
            let first = counter.next().unwrap();
            let trouble = counter.take_trouble().unwrap().to_string();
            assert!(trouble.contains(why), "{trouble}");
            assert!(counter.next().unwrap() > first);
            std::fs::remove_file(&file).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    }

    #[test]
    fn without_a_file_it_goes_on_and_says_so_once() {
        let directory = tempfile::tempdir().unwrap();
        let blocked = directory.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        let mut counter = Counter::new(Some(&blocked), &key());
        let first = counter.next().unwrap();
        assert!(counter.take_trouble().is_some());
        assert!(counter.next().unwrap() > first);
        assert!(counter.take_trouble().is_none());
    }
}
