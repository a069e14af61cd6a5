//! The unprivileged half of the daemon: a process of its own that reads hostile bytes and can do nothing with them
//! but hand over what passed. One thread, unless `capture-threads` asks for [`sieves`] beside it.

mod confine;
mod mailbox;
mod reader;
mod sieves;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use spa_capture::{BATCH, Capture, Datagram, Family};
use spa_gate::{Candidate, Now, Reason, Refusal, Verifier, VerifierSettings};
use spa_proto::{GateKeys, PublicKey};

use self::mailbox::{Mail, Mailbox};
use self::reader::{Looked, Reader, Woken};
use self::sieves::{Order, Sieves};
use crate::clock;
use crate::error::{Exit, Failure, Outcome};
use crate::link::{Counts, FromVerifier, FromWarden, Handover, Link};

/// A right tag with a wrong clock is reported this often at most.
const SKEW_INTERVAL: Duration = Duration::from_secs(10);
/// What was refused is reported this often at most, and only where something came.
const COUNTS_INTERVAL: Duration = Duration::from_secs(60);

/// By this name the program is the verifier; the one argument is the number of threads that read packets.
pub const PROGRAM: &str = "spa-verifier";

/// Runs the verifier on the link that its parent passed as standard input, until the parent is gone.
///
/// # Errors
/// Where it was not started by the daemon, or the link fails or says what it must not.
pub fn run(threads: Option<OsString>) -> Outcome {
    let threads: u8 = threads.and_then(|threads| threads.to_str()?.parse().ok()).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format_args!("{PROGRAM} is a part of the daemon, which starts it: spa-server run"),
        )
    })?;
    let failed = |what: &str, error: std::io::Error| {
        Failure::new(Exit::Software, format_args!("verifier: {what}: {error}"))
    };
    // Out of the terminal's reach: Ctrl-C there is for the warden, which ends us. It fails for a leader of a process
    // group alone, whose group is its own already.
    let _ = rustix::process::setsid();
    let link = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| failed("no link", error))?;
    let (confinement, sieves) = confine::confine(|| match threads {
        0 | 1 => Ok(None),
        more => Sieves::start(usize::from(more) - 1).map(Some),
    })?;
    let mut process = Process::new(Link::new(link), sieves);
    let mut ready = false;
    loop {
        let woken = process.wait().map_err(|error| failed("poll", error))?;
        if woken.control && !process.read_link().map_err(|error| failed("link", error))? {
            return Ok(()); // the warden is gone, and with it our purpose
        }
        if !ready && process.verifier.is_some() {
            ready = true;
            process.send(&FromVerifier::Ready(confinement)).map_err(|error| failed("link", error))?;
        }
        process.look(woken).map_err(|error| failed("capture", error))?;
    }
}

/// Settings under way: all messages from `Begin` to `Commit`.
type Incoming = (VerifierSettings, Vec<(PublicKey, GateKeys)>);

/// A count of the whole process under way: sieves answer in their own time.
struct Counting {
    awaited: usize,
    /// The warden asked for it; else it is a report, which only comes where more was refused.
    is_asked: bool,
    sum: Counts,
}

struct Process {
    link: Link,
    reader: Reader,
    sieves: Option<Sieves>,
    /// What sieves let through comes before the captures the next time.
    mail_first: bool,
    incoming: Option<Incoming>,
    verifier: Option<Verifier>,
    counting: Option<Counting>,
    skew_reported: Option<Duration>,
    counts_reported: Duration,
    refused_reported: u64,
}

impl Process {
    fn new(link: Link, sieves: Option<Sieves>) -> Self {
        Self {
            link,
            reader: Reader::default(),
            sieves,
            mail_first: false,
            incoming: None,
            verifier: None,
            counting: None,
            skew_reported: None,
            counts_reported: clock::boot(),
            refused_reported: 0,
        }
    }

    fn wait(&self) -> std::io::Result<Woken> {
        let bell = self.sieves.as_ref().map(|sieves| sieves.mailbox.bell());
        self.reader.wait(&self.link, bell)
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
                    if let (Some(sieves), Some(verifier)) = (&self.sieves, &self.verifier) {
                        sieves.tell(|| Order::Sieve(verifier.sieve().clone()));
                    }
                }
            }
            FromWarden::Capture { family, port, thread, fd } => {
                self.take_capture(family, port, thread, fd)?
            }
            FromWarden::Interfaces(indexes) => {
                if let Some(sieves) = &self.sieves {
                    sieves.tell(|| Order::Interfaces(indexes.clone()));
                }
                self.reader.set_interfaces(indexes);
            }
            FromWarden::Settle(tag, outcome) => {
                if let Some(verifier) = &mut self.verifier {
                    verifier.settle(&tag, outcome);
                }
            }
            FromWarden::Count => self.count(true)?,
        }
        Ok(())
    }

    /// Gives a capture to the thread that reads it; the first is this one.
    fn take_capture(&mut self, family: Family, port: u16, thread: u8, fd: OwnedFd) -> std::io::Result<()> {
        let capture = Capture::from_fd(fd, family, port, None).map_err(std::io::Error::other)?;
        match (&self.sieves, usize::from(thread).checked_sub(1)) {
            (_, None) => self.reader.replace_capture(capture),
            (Some(sieves), Some(place)) => sieves.give(place, capture)?,
            (None, Some(_)) => return Err(std::io::Error::other("a capture socket for another thread")),
        }
        Ok(())
    }

    /// Judges what each socket has and what the sieves let through; and where something is handed over, no more than that
    /// batch before the link is read. Each end of the link has room for twice a batch: with more under way both queues
    /// could be full at once, while the warden waits to ask for the counts and this half to hand over.
    fn look(&mut self, woken: Woken) -> std::io::Result<()> {
        if woken.captures == [false; 2] && !woken.mail {
            return Ok(());
        }
        let Self { link, reader, sieves, verifier, skew_reported, .. } = self;
        if let Some(sieves) = sieves {
            sieves.mailbox.begin(woken.mail);
        }
        let Some(verifier) = verifier else { return self.finish_counting() };
        let now = reader.begin();
        let mut desk = Desk { link, verifier, now, skew_reported, sent: Ok(()) };
        let mut looked = Looked::default();
        let mailbox = sieves.as_ref().map(|sieves| &sieves.mailbox);
        let mail_first = std::mem::take(&mut self.mail_first);
        if let Some(mailbox) = mailbox.filter(|_| mail_first) {
            looked.add(desk.read_mail(mailbox));
        }
        if looked.stopped {
            looked.more = true;
        } else {
            looked.add(
                reader
                    .read(woken.captures, |datagram| desk.judge(datagram))
                    .map_err(std::io::Error::other)?,
            );
        }
        if let Some(mailbox) = mailbox.filter(|_| !mail_first) {
            if looked.stopped {
                (looked.more, self.mail_first) = (true, true);
            } else {
                looked.add(desk.read_mail(mailbox));
            }
        }
        desk.sent?;
        if looked.more {
            reader.do_not_sleep();
        }
        if looked.stale || sieves.as_ref().is_some_and(Sieves::saw_stale) {
            self.send(&FromVerifier::StaleInterfaces)?;
        }
        if looked.any && now.boot.saturating_sub(self.counts_reported) >= COUNTS_INTERVAL {
            // Only in the wake of a packet: nothing wakes an idle machine.
            self.counts_reported = now.boot;
            self.count(false)?;
        }
        self.finish_counting()
    }

    /// Begins to count, or joins the count that is under way.
    fn count(&mut self, is_asked: bool) -> std::io::Result<()> {
        match &mut self.counting {
            Some(counting) => counting.is_asked |= is_asked,
            None => {
                let awaited = self.sieves.as_ref().map_or(0, Sieves::count);
                self.counting = Some(Counting { awaited, is_asked, sum: Counts::default() });
            }
        }
        self.finish_counting()
    }

    /// Sends the counts that are under way, when every thread's are in them.
    fn finish_counting(&mut self) -> std::io::Result<()> {
        let Some(mut counting) = self.counting.take() else { return Ok(()) };
        while let Some(counts) = self.sieves.as_ref().and_then(Sieves::answer) {
            counting.sum.add(&counts);
            counting.awaited -= 1;
        }
        if counting.awaited > 0 {
            self.counting = Some(counting);
            return Ok(());
        }
        let Counting { is_asked, mut sum, .. } = counting;
        if let Some(verifier) = &self.verifier {
            sum.add(&Counts::new(verifier.counters(), self.reader.drops(), verifier.diffie_hellmans()));
        }
        let refused = sum.all_refused();
        if is_asked {
            self.send(&FromVerifier::Counts(sum))
        } else if refused != self.refused_reported {
            self.refused_reported = refused;
            self.send(&FromVerifier::Counts(sum))
        } else {
            Ok(())
        }
    }
}

/// What judges the packets of one look.
struct Desk<'a> {
    link: &'a Link,
    verifier: &'a mut Verifier,
    now: Now,
    skew_reported: &'a mut Option<Duration>,
    sent: std::io::Result<()>,
}

impl Desk<'_> {
    /// Whether something was handed over.
    fn judge(&mut self, datagram: &Datagram<'_>) -> bool {
        let judged = self.verifier.verify(self.now, datagram.source, datagram.payload);
        self.pass_on(judged, datagram.source, datagram.destination)
    }

    /// As [`Reader::read`], of what sieves let through: one batch. It stops where something went to the warden.
    fn read_mail(&mut self, mailbox: &Mailbox) -> Looked {
        let mut looked = Looked::default();
        for taken in 1..=BATCH {
            let Some(Mail { tagged, source, destination }) = mailbox.take() else { break };
            let judged = self.verifier.verify_tagged(self.now, source, &tagged);
            looked.stopped |= self.pass_on(judged, source, destination);
            (looked.any, looked.more) = (true, taken == BATCH);
        }
        looked
    }

    fn pass_on(
        &mut self,
        judged: Result<Candidate, Refusal>,
        source: SocketAddr,
        destination: IpAddr,
    ) -> bool {
        let message = match judged {
            Ok(candidate) => FromVerifier::Candidate(Box::new(Handover { candidate, destination })),
            Err(refusal) if refusal.reason() == Reason::Stale => {
                let boot = self.now.boot;
                if self.skew_reported.is_some_and(|last| boot.saturating_sub(last) < SKEW_INTERVAL) {
                    return false;
                }
                *self.skew_reported = Some(boot);
                FromVerifier::Skew { source, seconds: refusal.skew().unwrap_or(0) }
            }
            Err(_) => return false,
        };
        let sent = self.link.send_to_warden(&message);
        self.sent = std::mem::replace(&mut self.sent, Ok(())).and(sent);
        true
    }
}
