//! The unprivileged half of the daemon: a process of its own that reads hostile bytes and can do nothing with them
//! but hand over what passed.

mod confine;

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use spa_capture::{Capture, CaptureError, Datagram, Family, Pace, Received};
use spa_gate::{Now, Reason, Verifier, VerifierSettings};
use spa_proto::{GateKeys, PublicKey};

use crate::clock;
use crate::error::{Exit, Failure, Outcome};
use crate::link::{Counts, FromVerifier, FromWarden, Handover, Link};

/// A right tag with a wrong clock is reported this often at most.
const SKEW_INTERVAL: Duration = Duration::from_secs(10);
/// What was refused is reported this often at most, and only where something came.
const COUNTS_INTERVAL: Duration = Duration::from_secs(60);
/// Batches taken from one socket before the link and the other socket are looked at.
const BATCHES: usize = 16;
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Runs the verifier on the link that its parent passed as standard input, until the parent is gone.
///
/// # Errors
/// Where the link fails or says what it must not.
pub fn run() -> Outcome {
    let failed = |what: &str, error: std::io::Error| {
        Failure::new(Exit::Software, format_args!("verifier: {what}: {error}"))
    };
    // Out of the terminal's reach: Ctrl-C there is for the warden, which ends us. It fails for a leader of a process
    // group alone, whose group is its own already.
    let _ = rustix::process::setsid();
    let link = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| failed("no link", error))?;
    let confinement = confine::confine()?;
    let mut process = Process::new(Link::new(link));
    let mut ready = false;
    loop {
        let [link, captures @ ..] = process.wait().map_err(|error| failed("poll", error))?;
        if link && !process.read_link().map_err(|error| failed("link", error))? {
            return Ok(()); // the warden is gone, and with it our purpose
        }
        if !ready && process.verifier.is_some() {
            ready = true;
            process.send(&FromVerifier::Ready(confinement)).map_err(|error| failed("link", error))?;
        }
        process.read_captures(captures).map_err(|error| failed("capture", error))?;
    }
}

/// Settings under way: all messages from `Begin` to `Commit`.
type Incoming = (VerifierSettings, Vec<(PublicKey, GateKeys)>);

struct Process {
    link: Link,
    captures: Vec<Capture>,
    pace: Pace,
    /// While flooded: how long packets gather before the next look.
    gather: Option<Timespec>,
    interfaces: Option<Vec<u32>>,
    incoming: Option<Incoming>,
    verifier: Option<Verifier>,
    skew_reported: Option<Duration>,
    counts_reported: Duration,
    refused_reported: u64,
}

impl Process {
    fn new(link: Link) -> Self {
        Self {
            link,
            captures: Vec::new(),
            pace: Pace::default(),
            gather: None,
            interfaces: None,
            incoming: None,
            verifier: None,
            skew_reported: None,
            counts_reported: clock::boot(),
            refused_reported: 0,
        }
    }

    /// Sleeps until there is something to read, and says where: on the link, and on each capture. Under a flood no
    /// packet wakes it, only the end of a short time, after which it looks at each capture. Allocates nothing.
    fn wait(&self) -> std::io::Result<[bool; 3]> {
        if let Some(time) = &self.gather {
            let mut link = [PollFd::new(&self.link, PollFlags::IN)];
            return match poll(&mut link, Some(time)) {
                Ok(ready) => Ok([ready > 0, true, true]),
                Err(rustix::io::Errno::INTR) => Ok([false; 3]),
                Err(error) => Err(error.into()),
            };
        }
        let link = || PollFd::new(&self.link, PollFlags::IN);
        // The link stands in for a capture that is not there (yet).
        let capture = |place: usize| {
            self.captures.get(place).map_or_else(link, |capture| PollFd::new(capture, PollFlags::IN))
        };
        let mut fds = [link(), capture(0), capture(1)];
        match poll(&mut fds, None) {
            Ok(_) => Ok(fds.map(|fd| !fd.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => Ok([false; 3]),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&self, message: &FromVerifier) -> std::io::Result<()> {
        self.link.send_to_warden(message)
    }

    /// Takes what the warden said; false where it is gone.
    fn read_link(&mut self) -> std::io::Result<bool> {
        loop {
            match self.link.receive_from_warden() {
                Ok(Some(message)) => self.follow(message)?,
                Ok(None) => return Ok(false),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn follow(&mut self, message: FromWarden) -> std::io::Result<()> {
        match message {
            FromWarden::Begin { server, cloaks, max_age } => {
                self.incoming =
                    Some((VerifierSettings { server, cloaks, max_age, clients: Vec::new() }, Vec::new()));
            }
            FromWarden::Client(key, gate) => {
                if let Some((_, clients)) = &mut self.incoming {
                    clients.push((key, gate));
                }
            }
            FromWarden::Commit => {
                if let Some((settings, clients)) = self.incoming.take() {
                    let settings = VerifierSettings { clients, ..settings };
                    match &mut self.verifier {
                        Some(verifier) => verifier.reconfigure(settings),
                        None => self.verifier = Some(Verifier::new(settings)),
                    }
                }
            }
            FromWarden::Capture(family, port, fd) => {
                self.replace_capture(family, port, fd).map_err(std::io::Error::other)?
            }
            FromWarden::Interfaces(indexes) => {
                for capture in &mut self.captures {
                    capture.set_interfaces(indexes.clone());
                }
                self.interfaces = indexes;
            }
            FromWarden::Settle(tag, outcome) => {
                if let Some(verifier) = &mut self.verifier {
                    verifier.settle(&tag, outcome);
                }
            }
            FromWarden::Count => {
                let counts = self.counts();
                self.send(&FromVerifier::Counts(counts))?;
            }
        }
        Ok(())
    }

    fn replace_capture(&mut self, family: Family, port: u16, fd: OwnedFd) -> Result<(), CaptureError> {
        let capture = Capture::from_fd(fd, family, port, self.interfaces.clone())?;
        self.captures.retain(|old| old.family() != family);
        self.captures.push(capture);
        Ok(())
    }

    /// Judges what each socket has, but no more than [`BATCHES`]; and where something is handed over, no more than that
    /// batch before the link is read. Each end of the link has room for twice a batch: with more under way both queues
    /// could be full at once, while the warden waits to ask for the counts and this half to hand over.
    fn read_captures(&mut self, readable: [bool; 2]) -> std::io::Result<()> {
        if readable == [false; 2] {
            return Ok(());
        }
        let Self { link, captures, verifier: Some(verifier), skew_reported, pace, gather, .. } = self else {
            return Ok(());
        };
        let now = clock::now();
        if gather.is_none() {
            pace.woken(now.boot);
        }
        *gather = pace.gather(now.boot).and_then(|time| Timespec::try_from(time).ok());
        let mut result = Ok(());
        let mut stale = false;
        let mut received_any = false;
        let mut more = false;
        let mut handed_over = false;
        let captures = captures.iter_mut().zip(readable);
        for (capture, _) in captures.filter(|(_, readable)| *readable) {
            if handed_over {
                more = true; // this one's turn comes at once
                break;
            }
            let mut receive = || {
                let mut handed_over = false;
                let received = capture.receive(&mut |datagram| {
                    if let Some(message) = judge(verifier, now, &datagram, skew_reported) {
                        result = link.send_to_warden(&message);
                        handed_over = true;
                    }
                });
                received.map(|received| (received, handed_over))
            };
            let mut batches = 0;
            let is_cut_short = loop {
                let (received, handed): (Received, bool) = receive().map_err(std::io::Error::other)?;
                handed_over |= handed;
                stale |= received.stale;
                received_any |= received.accepted + received.refused > 0;
                batches += 1;
                if !received.more() || batches == BATCHES || handed {
                    break received.more();
                }
            };
            more |= is_cut_short;
        }
        if more {
            *gather = Some(AT_ONCE);
        }
        result?;
        if stale {
            self.send(&FromVerifier::StaleInterfaces)?;
        }
        if received_any && now.boot.saturating_sub(self.counts_reported) >= COUNTS_INTERVAL {
            self.report_counts(now)?;
        }
        Ok(())
    }

    /// Only in the wake of a packet: nothing wakes an idle machine.
    fn report_counts(&mut self, now: Now) -> std::io::Result<()> {
        let counts = self.counts();
        self.counts_reported = now.boot;
        if counts.all_refused() != self.refused_reported {
            self.refused_reported = counts.all_refused();
            self.send(&FromVerifier::Counts(counts))?;
        }
        Ok(())
    }

    fn counts(&mut self) -> Counts {
        let dropped = self.captures.iter_mut().map(|capture| capture.drops().unwrap_or(0)).sum();
        self.verifier.as_ref().map_or(Counts::default(), |verifier| {
            Counts::new(verifier.counters(), dropped, verifier.diffie_hellmans())
        })
    }
}

/// What the warden is to hear of a datagram, if anything.
fn judge(
    verifier: &mut Verifier,
    now: Now,
    datagram: &Datagram<'_>,
    skew_reported: &mut Option<Duration>,
) -> Option<FromVerifier> {
    match verifier.verify(now, datagram.source, datagram.payload) {
        Ok(candidate) => {
            let handover = Handover { candidate, destination: datagram.destination };
            Some(FromVerifier::Candidate(Box::new(handover)))
        }
        Err(refusal) if refusal.reason() == Reason::Stale => {
            let due = skew_reported.is_none_or(|last| now.boot.saturating_sub(last) >= SKEW_INTERVAL);
            if !due {
                return None;
            }
            *skew_reported = Some(now.boot);
            Some(FromVerifier::Skew { source: datagram.source, seconds: refusal.skew().unwrap_or(0) })
        }
        Err(_) => None,
    }
}
