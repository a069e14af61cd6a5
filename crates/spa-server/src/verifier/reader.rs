//! What each thread of the verifier does: sleep until packets come, and take them from its own sockets.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use spa_capture::{Capture, CaptureError, Datagram, Pace, Received};
use spa_gate::Now;

use crate::clock;

/// Batches taken from one socket before anything else is looked at.
const BATCHES: usize = 16;
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The sockets of one thread, one a family, and when to look at them.
#[derive(Default)]
pub struct Reader {
    captures: Vec<Capture>,
    interfaces: Option<Vec<u32>>,
    pace: Pace,
    /// While flooded: how long packets gather before the next look.
    gather: Option<Timespec>,
}

/// Where there is something to read, or may be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Woken {
    /// On the descriptor by which the thread is told what to do.
    pub control: bool,
    /// On each capture.
    pub captures: [bool; 2],
    /// The bell of the mailbox rings. Whoever looks at the captures looks there as well.
    pub mail: bool,
}

/// What one look brought.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looked {
    /// Anything at all.
    pub any: bool,
    /// A datagram of an interface that is not known.
    pub stale: bool,
    /// Whoever was given the packets had it stop.
    pub stopped: bool,
    /// There may be more: look again [before sleeping](Reader::do_not_sleep).
    pub more: bool,
}

impl Looked {
    /// Takes in what another look brought.
    pub fn add(&mut self, other: Self) {
        self.any |= other.any;
        self.stale |= other.stale;
        self.stopped |= other.stopped;
        self.more |= other.more;
    }
}

impl Reader {
    /// Sleeps until there is something to read, and says where. Under a flood no packet wakes it, only the end of a
    /// short time, after which it looks everywhere. Allocates nothing.
    pub fn wait(&self, control: impl AsFd, mail: Option<BorrowedFd<'_>>) -> std::io::Result<Woken> {
        if let Some(time) = &self.gather {
            let mut control = [PollFd::new(&control, PollFlags::IN)];
            return match poll(&mut control, Some(time)) {
                Ok(ready) => Ok(Woken { control: ready > 0, captures: [true; 2], mail: false }),
                Err(rustix::io::Errno::INTR) => Ok(Woken::default()),
                Err(error) => Err(error.into()),
            };
        }
        let stand_in = || PollFd::new(&control, PollFlags::IN);
        // It stands in for a capture that is not there (yet).
        let capture = |place: usize| {
            self.captures.get(place).map_or_else(stand_in, |capture| PollFd::new(capture, PollFlags::IN))
        };
        let others = mail.map_or_else(stand_in, |mail| PollFd::from_borrowed_fd(mail, PollFlags::IN));
        let mut fds = [stand_in(), capture(0), capture(1), others];
        let count = if mail.is_some() { 4 } else { 3 };
        match poll(&mut fds[..count], None) {
            Ok(_) => {
                let [control, first, second, mail] = fds.map(|fd| !fd.revents().is_empty());
                Ok(Woken { control, captures: [first, second], mail })
            }
            Err(rustix::io::Errno::INTR) => Ok(Woken::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Begins a look at packets: notes what woke the thread, and decides how it waits next.
    pub fn begin(&mut self) -> Now {
        let now = clock::now();
        if self.gather.is_none() {
            self.pace.woken(now.boot);
        }
        self.gather = self.pace.gather(now.boot).and_then(|time| Timespec::try_from(time).ok());
        now
    }

    /// The next wait only looks whether the thread was told anything.
    pub fn do_not_sleep(&mut self) {
        self.gather = Some(AT_ONCE);
    }

    /// The next look comes after packets have gathered for a moment.
    pub fn rest(&mut self) {
        self.gather = Timespec::try_from(Pace::GATHER).ok();
    }

    /// Gives `each` what each socket has, but no more than [`BATCHES`]. Where `each` says so it stops after that batch, and
    /// the other socket comes first the next time.
    ///
    /// # Errors
    /// Where a socket cannot be read.
    pub fn read(
        &mut self,
        readable: [bool; 2],
        mut each: impl FnMut(&Datagram<'_>) -> bool,
    ) -> Result<Looked, CaptureError> {
        let mut looked = Looked::default();
        let captures = self.captures.iter_mut().zip(readable);
        for (capture, _) in captures.filter(|(_, readable)| *readable) {
            if looked.stopped {
                looked.more = true; // this one's turn comes at once
                break;
            }
            let mut batches = 0;
            let is_cut_short = loop {
                let mut stopped = false;
                let received: Received = capture.receive(&mut |datagram| stopped |= each(&datagram))?;
                looked.stopped |= stopped;
                looked.stale |= received.stale;
                looked.any |= received.accepted + received.refused > 0;
                batches += 1;
                if !received.more() || batches == BATCHES || stopped {
                    break received.more();
                }
            };
            looked.more |= is_cut_short;
        }
        if looked.stopped {
            self.captures.reverse();
        }
        Ok(looked)
    }

    /// Reads this capture from now on, in place of that of the same family.
    pub fn replace_capture(&mut self, mut capture: Capture) {
        capture.set_interfaces(self.interfaces.clone());
        self.captures.retain(|old| old.family() != capture.family());
        self.captures.push(capture);
    }

    /// Only datagrams of these interfaces count from now on; `None`: of all.
    pub fn set_interfaces(&mut self, indexes: Option<Vec<u32>>) {
        for capture in &mut self.captures {
            capture.set_interfaces(indexes.clone());
        }
        self.interfaces = indexes;
    }

    /// Packets that the kernel dropped since rings or buffers were full.
    pub fn drops(&mut self) -> u64 {
        self.captures.iter_mut().map(|capture| capture.drops().unwrap_or(0)).sum()
    }
}
