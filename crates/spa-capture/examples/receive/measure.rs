//! One receiver, one sender, and what both cost.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use rustix::thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_setaffinity};
use spa_capture::{Capture, Family, Interfaces, Method, Pace};
use spa_tests::short::full_or;

use crate::block::Blocks;

const PORT: u16 = 62_201;
/// The middle of what version 1 allows.
const LENGTH: usize = 400;
const FLOOD: Duration = Duration::from_millis(700);
const SAMPLES: usize = 500;

/// Where the kernel works for the flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// With the sender.
    Apart,
    /// On the receiver's core.
    Together,
    /// One sender on each core.
    Both,
}

/// A way to receive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Nothing,
    DropAll,
    Calls,
    CallsPaced,
    Ring,
    RingPaced,
    Blocks,
}

impl Way {
    pub const ALL: [Self; 7] = [
        Self::Nothing,
        Self::DropAll,
        Self::Calls,
        Self::CallsPaced,
        Self::Ring,
        Self::RingPaced,
        Self::Blocks,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no socket",
            Self::DropAll => "filter drops all",
            Self::Calls => "recvmmsg(64)",
            Self::CallsPaced => "recvmmsg(64), paced",
            Self::Ring => "TPACKET_V2",
            Self::RingPaced => "TPACKET_V2, paced",
            Self::Blocks => "TPACKET_V3, 1 ms",
        }
    }

    /// Whether packets get to the receiver.
    pub fn receives(self) -> bool {
        !matches!(self, Self::Nothing | Self::DropAll)
    }

    fn open(self) -> Option<Receiver> {
        let open = |method, port| Capture::open_with(method, Family::V4, port, &Interfaces::all()).unwrap();
        match self {
            Self::Nothing => None,
            Self::DropAll => Some(Receiver::Capture(open(Method::Calls, PORT + 1), false)),
            Self::Calls => Some(Receiver::Capture(open(Method::Calls, PORT), false)),
            Self::CallsPaced => Some(Receiver::Capture(open(Method::Calls, PORT), true)),
            Self::Ring => Some(Receiver::Capture(open(Method::Ring, PORT), false)),
            Self::RingPaced => Some(Receiver::Capture(open(Method::Ring, PORT), true)),
            Self::Blocks => Some(Receiver::Blocks(Blocks::new(open(Method::Calls, PORT).into_fd()))),
        }
    }
}

enum Receiver {
    Capture(Capture, bool),
    Blocks(Blocks),
}

/// What the receiver did.
#[derive(Default)]
struct Work {
    packets: u64,
    waits: u64,
    cpu: Duration,
}

impl Receiver {
    /// Receives until `stop`, then what is left; waits as the verifier does. The callback gets each payload.
    fn run(&mut self, stop: &AtomicBool, mut each: impl FnMut(&[u8])) -> Work {
        let cpu = thread_cpu();
        let mut work = Work::default();
        let mut pace = Pace::default();
        let clock = Instant::now();
        loop {
            let gather = match self {
                Self::Capture(_, true) => pace.gather(clock.elapsed()),
                _ => None,
            };
            // A time limit so that it sees `stop`; the verifier has none.
            let time = Timespec::try_from(gather.unwrap_or(Duration::from_millis(50))).unwrap();
            let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::IN)];
            let fds = if gather.is_some() { &mut fds[..0] } else { &mut fds[..] };
            let readable = poll(fds, Some(&time)).unwrap_or(0) > 0;
            work.waits += 1;
            if readable {
                pace.woken(clock.elapsed());
            }
            let before = work.packets;
            match self {
                Self::Capture(capture, _) => {
                    let mut one = |datagram: spa_capture::Datagram<'_>| {
                        work.packets += 1;
                        each(datagram.payload);
                    };
                    while capture.receive(&mut one).unwrap().more() {}
                }
                Self::Blocks(blocks) => blocks.take(|payload| {
                    work.packets += 1;
                    each(payload);
                }),
            }
            if stop.load(Relaxed) && work.packets == before {
                break;
            }
        }
        work.cpu = thread_cpu().saturating_sub(cpu);
        work
    }

    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Capture(capture, _) => capture.as_fd(),
            Self::Blocks(blocks) => blocks.as_fd(),
        }
    }
}

/// What a junk packet cost.
pub struct Cost {
    /// Sender, receiver and softirq threads, ns.
    pub all: f64,
    /// The receiver alone, ns.
    pub own: f64,
    pub rate: f64,
    pub wakes: f64,
    /// Of those sent.
    pub lost: f64,
}

pub fn flood(way: Way, place: Place, rate: Option<u64>) -> Cost {
    let (stop, done, sent) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let softirq = softirq_cpu();
    let began = Instant::now();
    let (work, sender) = std::thread::scope(|scope| {
        let mut receiver = way.open();
        let receiving = scope.spawn({
            let done = &done;
            move || {
                pin(1);
                receiver
                    .as_mut()
                    .map(|receiver| receiver.run(done, |payload| assert_eq!(payload.len(), LENGTH)))
            }
        });
        let cores = if place == Place::Both { 2 } else { 1 };
        let (stop, sent) = (&stop, &sent);
        let senders: Vec<_> = (0..cores)
            .map(|core| {
                scope.spawn(move || {
                    let socket = sender();
                    pin(core);
                    send(&socket, rate, stop, sent)
                })
            })
            .collect();
        std::thread::sleep(full_or(FLOOD, FLOOD / 14));
        stop.store(true, Relaxed);
        let sender = senders.into_iter().map(|sender| sender.join().unwrap()).sum::<Duration>();
        done.store(true, Relaxed);
        (receiving.join().unwrap().unwrap_or_default(), sender)
    });
    let softirq = softirq_cpu().saturating_sub(softirq);
    let sent = sent.into_inner() as f64;
    let each = |time: Duration| time.as_nanos() as f64 / sent;
    Cost {
        all: each(sender + work.cpu + softirq),
        own: each(work.cpu),
        rate: sent / began.elapsed().as_secs_f64(),
        wakes: work.waits as f64 / began.elapsed().as_secs_f64(),
        lost: if way.receives() { (sent - work.packets as f64) / sent } else { 0.0 },
    }
}

/// Microseconds from send to hand-over, one packet at a time.
pub fn latency(way: Way) -> [f64; 3] {
    let samples = full_or(SAMPLES, 20);
    let done = AtomicBool::new(false);
    let clock = Instant::now();
    let mut times = std::thread::scope(|scope| {
        let mut receiver = way.open().unwrap();
        let receiving = scope.spawn({
            let done = &done;
            move || {
                pin(1);
                let mut times = Vec::with_capacity(samples);
                receiver.run(done, |payload| {
                    let sent = u64::from_ne_bytes(payload[..8].try_into().unwrap());
                    times.push((clock.elapsed().as_nanos() as u64 - sent) as f64 / 1e3);
                });
                times
            }
        });
        scope.spawn(|| {
            let socket = sender();
            pin(0);
            let mut packet = [0; LENGTH];
            for _ in 0..samples {
                std::thread::sleep(Duration::from_millis(3));
                packet[..8].copy_from_slice(&(clock.elapsed().as_nanos() as u64).to_ne_bytes());
                socket.send(&packet).unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
            done.store(true, Relaxed);
        });
        receiving.join().unwrap()
    });
    times.sort_unstable_by(f64::total_cmp);
    [times[0], times[times.len() / 2], times[times.len() * 99 / 100]]
}

/// Sends until `stop`, 64 a call; returns the CPU time. `rate` is kept by the millisecond.
fn send(socket: &UdpSocket, rate: Option<u64>, stop: &AtomicBool, sent: &AtomicU64) -> Duration {
    let before = thread_cpu();
    let began = Instant::now();
    let junk = [7; LENGTH];
    let part = [std::io::IoSlice::new(&junk)];
    while !stop.load(Relaxed) {
        let due = rate.map_or(u64::MAX, |rate| (began.elapsed().as_secs_f64() * rate as f64) as u64);
        let count = due.saturating_sub(sent.load(Relaxed)).min(64) as usize;
        if count == 0 {
            std::thread::sleep(Duration::from_micros(100));
            continue;
        }
        let mut none: Vec<SendAncillaryBuffer<'_, '_, '_>> = (0..count).map(|_| Default::default()).collect();
        let mut messages: Vec<MMsgHdr<'_>> = none.iter_mut().map(|none| MMsgHdr::new(&part, none)).collect();
        let count = sendmmsg(socket, &mut messages, SendFlags::empty()).unwrap_or(0);
        sent.fetch_add(count as u64, Relaxed);
    }
    thread_cpu().saturating_sub(before)
}

/// A socket in the peer's namespace, to which the calling thread goes for good.
fn sender() -> UdpSocket {
    let peer = File::open("/run/netns/peer").unwrap();
    move_into_link_name_space(peer.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    let socket = UdpSocket::bind("10.0.0.2:0").unwrap();
    socket.connect(("10.0.0.1", PORT)).unwrap();
    socket
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).unwrap();
}

fn thread_cpu() -> Duration {
    run_time("/proc/thread-self/schedstat")
}

fn softirq_cpu() -> Duration {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let softirq = entries.filter(|entry| {
        std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
    });
    softirq.map(|entry| run_time(&format!("{}/schedstat", entry.path().display()))).sum()
}

fn run_time(path: &str) -> Duration {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0))
}
