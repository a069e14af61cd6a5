//! Notices that somebody changed the firewall. nf_tables announces each change on netlink, with the process that made it
//! ([`nf_tables`]); iptables-legacy announces nothing, but takes its lock for each ([`xtables_lock`]).
//!
//! Our own changes are announced as well. Of nf_tables' announcements those are left out that name one of our processes
//! or came through a netlink socket of our own, and those that are about other tables than we use. Of the lock it is
//! not known who took it (and in a container no process is known by its number), so what comes while we write may be
//! ours: it counts as well, but is looked after later, and then a run of knocks does not wait for a look at each.
//!
//! A source that fails is opened anew ([`source`]); whatever it did not tell meanwhile is found by looking.

mod culprits;
mod nf_tables;
mod source;
mod xtables_lock;

use std::path::Path;
use std::time::Duration;

use spa_firewall::{Authors, Whose};
use tokio::time::{Instant, sleep_until};

pub use self::culprits::Culprits;
pub use self::source::Deaf;

use self::culprits::Author;
use self::nf_tables::Announcements;
use self::source::Source;
use self::xtables_lock::LockWatch;

/// Changes that come together are looked at together, after this time.
const SETTLE: Duration = Duration::from_millis(50);
/// And after this time where it may have been us alone. With the repair it is to be less than a second.
const SETTLE_OURS: Duration = Duration::from_millis(400);

/// What tells of changes.
pub struct Watch {
    announcements: Source<Announcements>,
    /// Of iptables-legacy; with the other drivers nobody's lock tells anything about our rules.
    lock: Option<Source<LockWatch>>,
    own: Authors,
}

impl Watch {
    /// Watches from now on; the lock of iptables-legacy only where that is what we use. `own` are the authors that are
    /// not told of; `deaf` is told what cannot be watched.
    pub fn new(own: Authors, uses_lock: bool, deaf: &Deaf) -> Self {
        let lock = || LockWatch::open(Path::new(xtables_lock::PATH));
        Self {
            announcements: Source::new("nf_tables", Announcements::open, deaf),
            lock: uses_lock.then(|| Source::new("iptables-legacy", lock, deaf)),
            own,
        }
    }

    /// Returns some time after a change that may be somebody else's, with whoever made one until then.
    pub async fn changed(&mut self) -> Culprits {
        let mut culprits = Culprits::default();
        let mut due: Option<Instant> = None;
        loop {
            let settled = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let author = tokio::select! {
                author = self.announcements.next() => author,
                author = next_locking(self.lock.as_mut()) => author,
                () = settled => return culprits,
            };
            let settle = match self.own.whose(author.notice()) {
                Whose::Ours => continue,
                Whose::PerhapsOurs => SETTLE_OURS,
                Whose::Others => {
                    culprits.add(Author { port: None, ..author }); // the same program by another socket is the same
                    SETTLE
                }
            };
            let at = Instant::now() + settle;
            due = Some(due.map_or(at, |due| due.min(at)));
        }
    }
}

async fn next_locking(lock: Option<&mut Source<LockWatch>>) -> Author {
    match lock {
        Some(lock) => lock.next().await,
        None => std::future::pending().await,
    }
}
