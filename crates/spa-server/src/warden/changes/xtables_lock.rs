//! The lock of iptables-legacy, the only sign of what that changes: every change takes it. inotify tells when it was
//! given back, also where the file is only made, or made anew, while we watch.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::{files, reactor};

/// Where it is.
pub const PATH: &str = "/run/xtables.lock";
/// Somebody gave it back, or it is not the same file any more.
const OF_THE_LOCK: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CLOSE_NOWRITE)
    .union(WatchFlags::ATTRIB) // also: its name is gone
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DELETE_SELF);
/// Something is there that was not.
const OF_ITS_DIRECTORY: WatchFlags =
    WatchFlags::CREATE.union(WatchFlags::MOVED_TO).union(WatchFlags::ONLYDIR);

/// Watches the lock; while there is none, its directory for one.
pub struct LockWatch {
    inotify: AsyncFd<OwnedFd>,
    path: PathBuf,
    lock: Option<i32>,
    directory: Option<i32>,
}

impl LockWatch {
    /// Watches from now on.
    ///
    /// # Errors
    /// As `inotify_init1(2)` and `inotify_add_watch(2)`.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let inotify = reactor::register(inotify)?;
        let mut watch = Self { inotify, path: path.to_owned(), lock: None, directory: None };
        watch.follow()?;
        Ok(watch)
    }

    /// Watches the file that has the name now; while none has, the directory.
    fn follow(&mut self) -> std::io::Result<()> {
        let add = |path: &Path, what| match inotify::add_watch(self.inotify.get_ref(), path, what) {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some),
        };
        let mut lock = add(&self.path, OF_THE_LOCK)?;
        let mut directory = None;
        if lock.is_none() {
            directory = add(files::directory_of(&self.path), OF_ITS_DIRECTORY)?;
            lock = add(&self.path, OF_THE_LOCK)?; // it may have come in between
        }
        if lock.is_some() {
            self.drop_watch(directory.or(self.directory));
            directory = None;
        } else if directory.is_none() {
            return Err(Errno::NOENT.into());
        }
        self.drop_watch(self.lock.filter(|old| lock != Some(*old)));
        (self.lock, self.directory) = (lock, directory);
        Ok(())
    }

    fn drop_watch(&self, watch: Option<i32>) {
        // It may have gone with its file.
        let _ = watch.map(|watch| inotify::remove_watch(self.inotify.get_ref(), watch));
    }

    /// Returns when somebody had the lock.
    ///
    /// # Errors
    /// As `read(2)` and `inotify_add_watch(2)`: this watch tells no more.
    pub async fn next(&mut self) -> std::io::Result<()> {
        loop {
            let what = self.inotify.async_io(Interest::READABLE, |fd| self.read(fd)).await?;
            if what == Happened::Elsewhere {
                continue;
            }
            if what == Happened::Moved {
                self.follow()?;
            }
            return Ok(());
        }
    }

    /// Takes the events that wait, in one.
    fn read(&self, fd: &OwnedFd) -> std::io::Result<Happened> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(fd, &mut buffer);
        let mut what = Happened::Elsewhere;
        loop {
            let event = events.next()?;
            let is_name =
                event.file_name().map(|name| OsStr::from_bytes(name.to_bytes())) == self.path.file_name();
            what = what.max(match event.wd() {
                wd if Some(wd) == self.lock => {
                    let closed = ReadFlags::CLOSE_WRITE | ReadFlags::CLOSE_NOWRITE;
                    if closed.contains(event.events()) { Happened::Released } else { Happened::Moved }
                }
                wd if Some(wd) == self.directory && is_name => Happened::Moved,
                _ if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => Happened::Moved,
                _ => Happened::Elsewhere,
            });
            if events.is_buffer_empty() {
                return Ok(what);
            }
        }
    }
}

/// What the events say, the gravest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happened {
    /// Nothing to the lock.
    Elsewhere,
    /// Somebody had it.
    Released,
    /// It is another file, or none, or a new one; somebody may have had it as well.
    Moved,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    async fn hears(watch: &mut LockWatch, what: &str) {
        let next = tokio::time::timeout(Duration::from_secs(10), watch.next());
        next.await.unwrap_or_else(|_| panic!("{what} is not heard")).unwrap();
    }

    async fn is_quiet(watch: &mut LockWatch) -> bool {
        tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err()
    }

    /// As iptables-legacy takes it.
    fn take(path: &Path) {
        let lock =
            fs::File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        lock.lock().unwrap();
    }

    #[test]
    fn the_lock_is_heard_whenever_it_is_made() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("xtables.lock");
            let mut watch = LockWatch::open(&path).unwrap();
            fs::write(directory.path().join("other.lock"), "").unwrap();
            assert!(is_quiet(&mut watch).await, "another file");
            take(&path);
            hears(&mut watch, "the first lock").await;
            while !is_quiet(&mut watch).await {}
            take(&path);
            hears(&mut watch, "the second").await;
            while !is_quiet(&mut watch).await {}
            fs::write(directory.path().join("other.lock"), "").unwrap();
            assert!(is_quiet(&mut watch).await, "the directory is left alone while there is a lock");
            // Removed and made again; and another put in its place.
            for round in 0..2 {
                fs::remove_file(&path).unwrap();
                hears(&mut watch, "its removal").await;
                while !is_quiet(&mut watch).await {}
                take(&path);
                hears(&mut watch, &format!("a new one, round {round}")).await;
                while !is_quiet(&mut watch).await {}
            }
            fs::rename(directory.path().join("other.lock"), &path).unwrap();
            hears(&mut watch, "another in its place").await;
            while !is_quiet(&mut watch).await {}
            take(&path);
            hears(&mut watch, "that one").await;
        });
    }

    #[test]
    fn without_a_directory_it_is_an_error() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            assert!(LockWatch::open(Path::new("/nonexistent/xtables.lock")).is_err());
        });
    }
}
