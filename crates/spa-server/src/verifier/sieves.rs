//! Further threads of the verifier, where `capture-threads` asks for them. Each reads sockets of its own and lets through what
//! was made with a live cloak key; all else is the business of the one thread that judges. They begin confined: they
//! are made after all was given up and before the filter of system calls, which then holds for every thread.

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};

use spa_capture::Capture;
use spa_gate::{Counters, Sieve};

use super::mailbox::{Bell, Mail, Mailbox, Slot, mailbox};
use super::reader::Reader;
use crate::error::Exit;
use crate::link::Counts;

/// What a sieve is told.
pub enum Order {
    /// The cloak keys that are live from now on.
    Sieve(Sieve),
    /// The interfaces that count; `None` for all.
    Interfaces(Option<Vec<u32>>),
    /// A socket to read, in place of that of the same family.
    Capture(Box<Capture>),
    /// Say what was counted.
    Count,
}

/// The threads, as the one that judges has them.
pub struct Sieves {
    threads: Vec<(Sender<Order>, Bell)>,
    /// What they let through.
    pub mailbox: Mailbox,
    answers: Receiver<Counts>,
    stale: Arc<AtomicBool>,
}

impl Sieves {
    /// Starts so many threads, and waits until each has begun: then they make no system call any more but those of
    /// their loop.
    ///
    /// # Errors
    /// As `pthread_create(3)` and `eventfd(2)`.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let (slot, mailbox) = mailbox()?;
        let (answer, answers) = channel();
        let stale = Arc::new(AtomicBool::new(false));
        let all_began = Arc::new(Barrier::new(count + 1));
        let mut threads = Vec::with_capacity(count);
        for number in 1..=count {
            let (orders, inbox) = channel();
            let bell = Bell::new()?;
            let thread = Thread {
                orders: inbox,
                bell: bell.clone(),
                slot: slot.clone(),
                answer: answer.clone(),
                stale: Arc::clone(&stale),
                sieve: None,
                reader: Reader::default(),
                counters: Counters::default(),
                lost: 0,
            };
            let began = Arc::clone(&all_began);
            let body = move || {
                let _end = EndsAll;
                // A thread's first use of the heap makes system calls that later ones do not.
                std::hint::black_box(Vec::<u8>::with_capacity(1));
                began.wait();
                let Err(error) = thread.run();
                eprintln!("spa-server: verifier: sieve {number}: {error}");
            };
            std::thread::Builder::new().name(format!("sieve-{number}")).spawn(body)?;
            threads.push((orders, bell));
        }
        all_began.wait();
        Ok(Self { threads, mailbox, answers, stale })
    }

    /// Tells all of them.
    pub fn tell(&self, order: impl Fn() -> Order) {
        (0..self.threads.len()).for_each(|place| self.tell_one(place, order()));
    }

    /// Gives a socket to one of them, counted from 0.
    ///
    /// # Errors
    /// Where there are not so many.
    pub fn give(&self, place: usize, capture: Capture) -> std::io::Result<()> {
        if place >= self.threads.len() {
            return Err(std::io::Error::other("a capture socket for a thread that is not there"));
        }
        self.tell_one(place, Order::Capture(Box::new(capture)));
        Ok(())
    }

    /// Asks all what they counted; returns how many [answers](Self::answer) will come.
    pub fn count(&self) -> usize {
        self.tell(|| Order::Count);
        self.threads.len()
    }

    /// What one of them answered, if an answer is there.
    pub fn answer(&self) -> Option<Counts> {
        self.answers.try_recv().ok()
    }

    /// Whether a datagram came from an interface that was not known, since this was last asked.
    pub fn saw_stale(&self) -> bool {
        self.stale.swap(false, Ordering::AcqRel)
    }

    fn tell_one(&self, place: usize, order: Order) {
        let (orders, bell) = &self.threads[place];
        let _ = orders.send(order); // a thread that ended has ended the process
        bell.ring();
    }
}

/// Ends the process with the thread, whatever ends that: half a verifier would be deaf to a part of all knocks, and the
/// warden replaces a whole one.
struct EndsAll;

impl Drop for EndsAll {
    fn drop(&mut self) {
        exit(Exit::Software as i32);
    }
}

struct Thread {
    orders: Receiver<Order>,
    bell: Bell,
    slot: Slot,
    answer: Sender<Counts>,
    stale: Arc<AtomicBool>,
    /// There is one before there is anything to read.
    sieve: Option<Sieve>,
    reader: Reader,
    /// What was refused here.
    counters: Counters,
    /// What passed and found the mailbox full.
    lost: u64,
}

impl Thread {
    fn run(mut self) -> Result<std::convert::Infallible, std::io::Error> {
        loop {
            let woken = self.reader.wait(&self.bell, None)?;
            if woken.control {
                self.bell.silence();
                while let Ok(order) = self.orders.try_recv() {
                    self.follow(order);
                }
            }
            if woken.captures != [false; 2] {
                self.look(woken.captures).map_err(std::io::Error::other)?;
            }
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Sieve(sieve) => self.sieve = Some(sieve),
            Order::Interfaces(indexes) => self.reader.set_interfaces(indexes),
            Order::Capture(capture) => self.reader.replace_capture(*capture),
            Order::Count => {
                let counts = Counts::new(&self.counters, self.reader.drops().saturating_add(self.lost), 0);
                let _ = self.answer.send(counts); // who asked is there as long as the process
                self.slot.tell();
            }
        }
    }

    fn look(&mut self, readable: [bool; 2]) -> Result<(), spa_capture::CaptureError> {
        let Self { sieve: Some(sieve), reader, slot, counters, lost, .. } = self else { return Ok(()) };
        reader.begin();
        let looked = reader.read(readable, |datagram| match sieve.sift(datagram.payload) {
            Ok(tagged) => {
                let (source, destination) = (datagram.source, datagram.destination);
                let is_full = !slot.put(Mail { tagged, source, destination });
                *lost += u64::from(is_full);
                is_full
            }
            Err(refusal) => {
                counters.count::<()>(&Err(refusal));
                false
            }
        })?;
        if looked.stopped {
            reader.rest(); // the thread that judges may need this processor
        } else if looked.more {
            reader.do_not_sleep();
        }
        if looked.stale {
            self.stale.store(true, Ordering::Release);
            self.slot.tell();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn every_sieve_answers_and_rings() {
        let sieves = Sieves::start(3).unwrap();
        for _ in 0..2 {
            let mut awaited = sieves.count();
            assert_eq!(awaited, 3);
            while awaited > 0 {
                let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
                let bell = sieves.mailbox.bell();
                let rang =
                    poll(&mut [PollFd::from_borrowed_fd(bell, PollFlags::IN)], Some(&patience)).unwrap();
                assert_eq!(rang, 1, "{awaited} did not answer");
                sieves.mailbox.begin(true);
                awaited -= std::iter::from_fn(|| sieves.answer()).count();
            }
        }
    }

    /// Runs itself again, since it ends the process.
    #[test]
    fn a_thread_that_panics_ends_the_process() {
        const AGAIN: &str = "SPA_TEST_ENDS_ALL";
        if std::env::var_os(AGAIN).is_some() {
            let thread = std::thread::spawn(|| {
                let _end = EndsAll;
                panic!("as a sieve might");
            });
            let _ = thread.join(); // it does not come back
            return;
        }
        let name = "verifier::sieves::tests::a_thread_that_panics_ends_the_process";
        let mut again = Command::new(std::env::current_exe().unwrap());
        let status = again.args(["--exact", name]).env(AGAIN, "").status().unwrap();
        assert_eq!(status.code(), Some(Exit::Software as i32));
    }
}
