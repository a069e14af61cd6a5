//! Many datagrams at a chosen rate.

use std::io::IoSlice;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use spa_tests::{Host, SPA_PORT, probe};

/// Most datagrams of one system call.
const BATCH: usize = 64;
/// Between two batches of a slow flood: so that a thousand a second is not one burst a second.
const TICK: Duration = Duration::from_millis(1);
/// However fast the machine is: no more datagrams than this in one flood.
const MOST: u64 = 4_000_000;

/// What a flood did.
#[derive(Clone, Copy, Default)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: u64,
    /// CPU time of the sending thread, with what the kernel delivered on its account.
    pub cpu: Duration,
    /// How long it took.
    pub took: Duration,
}

impl Sent {
    /// Datagrams a second.
    pub fn rate(self) -> f64 {
        self.datagrams as f64 / self.took.as_secs_f64()
    }
}

/// A UDP socket of a machine, connected to the SPA port of a server.
pub fn socket(from: &Host, server: IpAddr) -> UdpSocket {
    let socket = probe::udp_socket(&from.ns, server);
    socket.connect((server, SPA_PORT)).expect("a route");
    socket
}

/// Sends the datagrams round and round until `stop`, at `rate` a second; `None` is as fast as it goes.
pub fn flood(socket: &UdpSocket, datagrams: &[Vec<u8>], rate: Option<u64>, stop: &AtomicBool) -> Sent {
    let began = Instant::now();
    let before = thread_cpu();
    let mut sent = 0_u64;
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) && sent < MOST {
        let due = match rate {
            Some(rate) => (began.elapsed().as_secs_f64() * rate as f64) as u64,
            None => u64::MAX,
        };
        let batch = due.saturating_sub(sent).min(BATCH as u64) as usize;
        if batch == 0 {
            std::thread::sleep(TICK);
            continue;
        }
        let slices: Vec<[IoSlice<'_>; 1]> =
            (0..batch).map(|number| [IoSlice::new(&datagrams[(at + number) % datagrams.len()])]).collect();
        let mut none: Vec<SendAncillaryBuffer<'_, '_, '_>> = (0..batch).map(|_| Default::default()).collect();
        let mut messages: Vec<MMsgHdr<'_>> =
            slices.iter().zip(&mut none).map(|(slice, none)| MMsgHdr::new(slice, none)).collect();
        // An error is a full queue: those were not sent and are not counted.
        let count = sendmmsg(socket, &mut messages, SendFlags::empty()).unwrap_or(0);
        sent += count as u64;
        at = (at + count) % datagrams.len();
    }
    Sent { datagrams: sent, cpu: thread_cpu().saturating_sub(before), took: began.elapsed() }
}

/// Runs `body` while `senders` threads flood; `body`'s value, and what all of them sent together.
pub fn during<T>(
    from: &Host,
    server: IpAddr,
    datagrams: &[Vec<u8>],
    (rate, senders): (Option<u64>, u32),
    body: impl FnOnce() -> T,
) -> (T, Sent) {
    let stop = AtomicBool::new(false);
    let started = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..senders)
            .map(|_| {
                let socket = socket(from, server);
                let (stop, started) = (&stop, &started);
                scope.spawn(move || {
                    started.fetch_add(1, Ordering::Relaxed);
                    flood(&socket, datagrams, rate, stop)
                })
            })
            .collect();
        while started.load(Ordering::Relaxed) < u64::from(senders) {
            std::thread::yield_now();
        }
        let value = body();
        stop.store(true, Ordering::Relaxed);
        let mut all = Sent::default();
        for thread in threads {
            let sent = thread.join().expect("a sender does not panic");
            all.datagrams += sent.datagrams;
            all.cpu += sent.cpu;
            all.took = all.took.max(sent.took);
        }
        (value, all)
    })
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    run_time("/proc/thread-self/schedstat")
}

/// CPU time of processes, with all their threads.
pub fn processes_cpu(pids: &[u32]) -> Duration {
    pids.iter().flat_map(|pid| tasks(*pid)).map(|task| run_time(&format!("{task}/schedstat"))).sum()
}

/// CPU time of the programs that a process ran and that have ended; in hundredths of a second, as proc(5) has it.
pub fn programs_cpu(pid: u32) -> Duration {
    const TICK: Duration = Duration::from_millis(10); // USER_HZ is 100 wherever Linux runs today
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which may hold spaces: field 3 on. 16 and 17 are cutime and cstime.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ').skip(13).take(2);
    TICK * fields.filter_map(|field| field.parse::<u32>().ok()).sum::<u32>()
}

/// CPU time of the kernel's softirq threads: where delivery goes when it is too much for the sender's account. They
/// are not in this process namespace; the outer run passes the machine's /proc as standard input.
pub fn softirq_cpu() -> Duration {
    let machine = "/proc/self/fd/0";
    let entries = std::fs::read_dir(machine).into_iter().flatten().flatten();
    let softirq = entries.filter(|entry| {
        entry.file_name().to_string_lossy().starts_with(|first: char| first.is_ascii_digit())
            && std::fs::read_to_string(entry.path().join("comm"))
                .is_ok_and(|name| name.starts_with("ksoftirqd/"))
    });
    softirq.map(|entry| run_time(&format!("{}/schedstat", entry.path().display()))).sum()
}

/// `/proc/PID/task/TID` of every thread.
pub fn tasks(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task"));
    entries.into_iter().flatten().flatten().map(|entry| entry.path().display().to_string()).collect()
}

/// The first field of a schedstat: nanoseconds on a processor.
pub fn run_time(path: &str) -> Duration {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0))
}
