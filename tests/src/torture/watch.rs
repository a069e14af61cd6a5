//! What others see the whole time, by real connections: a stranger, to whom the port must never be open, and the
//! clients' machine, to which it must be open as long as it was told and no longer.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spa_tests::{Family, Host, SPA_PORT, Topology, probe};

use super::model::{Model, kernel_now, now};

/// How long a stranger's SYN is waited for: one SYN, no retransmission, some 60 tries a second.
const STRANGER_WAITS: Duration = Duration::from_millis(15);
/// A busy machine takes its time, but a SYN that was dropped is not sent again within it.
const CLIENT_WAITS: Duration = Duration::from_millis(700);
/// Around a limit nothing is said.
const MARGIN: f64 = 0.05;

/// What the threads and the rounds share.
#[derive(Default)]
pub struct Shared {
    pub model: Mutex<Model>,
    /// The rounds took the protection away themselves.
    pub unprotected: AtomicBool,
    pub violations: Mutex<Vec<String>>,
    /// What goes on, for the report.
    pub phase: Mutex<String>,
    pub stranger_tries: AtomicU64,
    pub client_tries: AtomicU64,
    /// Connections that were accepted past their end by everybody's clock but before it by the kernel's, which a
    /// machine that was held up had not moved on.
    pub held_up: AtomicU64,
    /// Connections that failed because the echo service of the test itself did not keep up: its queue was full.
    pub overflowed: AtomicU64,
    /// How far the kernel's clock was behind, at the most, in milliseconds.
    pub most_behind: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    pub fn violation(&self, text: &str) {
        let phase = self.phase.lock().expect("no panic while locked").clone();
        let line = format!("{:.3} {phase}: {text}", now());
        eprintln!("VIOLATION {line}");
        self.violations.lock().expect("no panic while locked").push(line);
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Ends the threads when dropped.
pub struct Watchers {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Watchers {
    pub fn start(topology: &Topology, shared: &Arc<Shared>) -> Self {
        let mut threads = Vec::new();
        for family in Family::BOTH {
            let to = topology.server.address(family);
            for port in [22, 443] {
                threads.push(spawn(&topology.stranger, shared, move |shared| stranger(shared, to, port)));
            }
            threads.push(spawn(&topology.stranger, shared, move |shared| knocker(shared, to)));
            let source = topology.client.address(family);
            for port in [22, 80] {
                let queue = ListenQueue::of(topology);
                threads.push(spawn(&topology.client, shared, move |shared| {
                    client(shared, source, to, port, &queue);
                }));
            }
        }
        Self { shared: Arc::clone(shared), threads }
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic there was printed there
        }
    }
}

fn spawn(
    host: &Host,
    shared: &Arc<Shared>,
    body: impl Fn(&Shared) + Send + Sync + 'static,
) -> std::thread::JoinHandle<()> {
    let (ns, shared) = (host.ns.clone(), Arc::clone(shared));
    std::thread::spawn(move || {
        ns.enter(|| {
            while !shared.is_stopped() {
                body(&shared)
            }
        })
    })
}

/// One try; anything but silence, from a closed port, is a violation.
fn stranger(shared: &Shared, to: IpAddr, port: u16) {
    let excused = || shared.unprotected.load(Ordering::SeqCst);
    let before = excused();
    let tried = TcpStream::connect_timeout(&SocketAddr::new(to, port), STRANGER_WAITS);
    shared.stranger_tries.fetch_add(1, Ordering::Relaxed);
    let silent =
        matches!(&tried, Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock));
    if !silent && !before && !excused() {
        shared.violation(&format!("to a stranger, [{to}]:{port} answered: {tried:?}"));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A datagram to the SPA port draws no answer, whoever runs.
fn knocker(shared: &Shared, to: IpAddr) {
    let excused = || shared.unprotected.load(Ordering::SeqCst);
    let before = excused();
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = std::net::UdpSocket::bind(any).expect("a UDP socket");
    let answer = socket.connect((to, SPA_PORT)).and_then(|()| {
        socket.set_read_timeout(Some(STRANGER_WAITS))?;
        socket.send(&[0; 300])?;
        socket.recv(&mut [0; 16])
    });
    shared.stranger_tries.fetch_add(1, Ordering::Relaxed);
    let silent =
        matches!(&answer, Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock));
    if !silent && !before && !excused() {
        shared.violation(&format!("the SPA port of {to} answered: {answer:?}"));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What the kernel counts of SYNs that came to a listening socket whose queue was full, on the server.
struct ListenQueue(File);

impl ListenQueue {
    fn of(topology: &Topology) -> Self {
        let open = || File::open("/proc/thread-self/net/netstat").expect("procfs");
        Self(topology.server.ns.enter(open))
    }

    /// `ListenOverflows` and `ListenDrops`, added up.
    fn dropped(&self) -> u64 {
        let mut buffer = vec![0; 1 << 14];
        let length = self.0.read_at(&mut buffer, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let both = names.split(' ').zip(values.split(' '));
        let wanted = both.filter(|(name, _)| matches!(*name, "ListenOverflows" | "ListenDrops"));
        wanted.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    }
}

/// One try from the clients' machine, held against the model.
fn client(shared: &Shared, source: IpAddr, to: IpAddr, port: u16, queue: &ListenQueue) {
    let endpoint = format!("tcp/{port}");
    let bounds = || shared.model.lock().expect("no panic while locked").bounds(source, &endpoint);
    let excused = || shared.unprotected.load(Ordering::SeqCst);
    let (before, was_excused) = (bounds(), excused());
    let dropped = queue.dropped();
    let (began, kernel_began) = (now(), kernel_now());
    shared.most_behind.fetch_max(((began - kernel_began) * 1e3) as u64, Ordering::Relaxed);
    // One that must not succeed need not be waited for.
    let must = before.1 > began;
    let waits = if must { CLIENT_WAITS } else { STRANGER_WAITS };
    let tried = TcpStream::connect_timeout(&SocketAddr::new(to, port), waits);
    let (ended, after) = (now(), bounds());
    shared.client_tries.fetch_add(1, Ordering::Relaxed);
    if was_excused || excused() {
        return;
    }
    match tried {
        Ok(_) if kernel_began > before.0.max(after.0) + MARGIN => {
            let most = before.0.max(after.0);
            shared.violation(&format!(
                "open past its end from {source} to port {port}: tried {began:.3} to {ended:.3}, at most {most:.3}"
            ));
        }
        Ok(_) if began > before.0.max(after.0) + MARGIN => {
            shared.held_up.fetch_add(1, Ordering::Relaxed);
        }
        // It passed the firewall and found no place: nothing is known of the firewall.
        Err(_) if must && queue.dropped() != dropped => {
            shared.overflowed.fetch_add(1, Ordering::Relaxed);
        }
        // Over its end while it was tried, or taken back meanwhile: nothing is known.
        Err(error) if must && before.1.min(after.1) > ended => {
            shared.violation(&format!(
                "closed early from {source} to port {port}: tried {began:.3} to {ended:.3}, {error}; until {:.3}",
                before.1
            ));
        }
        _ => {}
    }
    std::thread::sleep(Duration::from_millis(5));
}

/// Waits until a port is silent to a stranger: from then on it must stay so.
pub fn wait_protected(topology: &Topology) {
    for family in Family::BOTH {
        probe::eventually("protection", probe::PATIENCE, || {
            probe::tcp(&topology.stranger.ns, topology.server.address(family), 22) == probe::Probe::Silent
        });
    }
}
