//! Memory, wake-ups, sizes, and how fast the client is on the wire.

use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use spa_tests::short::full_or;
use spa_tests::sniff::Sniffer;
use spa_tests::{Client, Process, SPA_PORT, Server, Settings, Topology, Variant, binary};

use super::enrol;
use super::flood::tasks;
use super::peers::{self, Fwknopd, Knockd};
use super::report::Row;

const MEMORY: &str = "resident memory";
const WAKE: &str = "wake-ups when idle";
const START: &str = "start-up time";
const NFTABLES: &str = "spa, nftables";
const SIZE: &str = "size of the program";
const WIRE: &str = "client, exec to packet on the wire";
const IDLE: Duration = Duration::from_secs(8);
const SAMPLES: usize = 20;
const MANY: usize = 1_000;
const VERY_MANY: usize = 100_000;
/// How long a daemon with so many clients has to start: a Diffie-Hellman and two files each.
pub const START_PATIENCE: Duration = Duration::from_secs(180);

/// Us.
pub fn spa() -> Vec<Row> {
    let topology = Topology::new();
    let mut server = Server::new(&topology, &Settings::new(Variant::Nft));
    let invite = server.enrol("alice", "ssh", "192.0.2.1", &[]);
    server.start();
    let mut rows = memory("spa", "1 client", server.process());
    rows.push(wake_ups("spa", server.process()));
    let alice = Client::invited(&topology.client, "alice", &invite);
    let arguments =
        ["--config".to_owned(), alice.config().display().to_string(), "open".into(), "ssh".into()];
    rows.extend(exec_to_wire(&topology, "spa", binary("spa-client").display().to_string(), &arguments));
    server.process().stop();
    enrol_many(&server, 1..full_or(MANY, 20));
    server.start();
    rows.extend(memory("spa", "1,000 clients", server.process()));
    server.process().stop();
    for name in ["spa-server", "spa-client"] {
        rows.push(size(name, &binary(name).display().to_string()));
    }
    rows
}

/// The same with the other driver.
pub fn nftables() -> Vec<Row> {
    let topology = Topology::new();
    let mut server = Server::new(&topology, &Settings::new(Variant::Nftables));
    server.enrol("alice", "ssh", "192.0.2.1", &[]);
    server.start();
    let mut rows = memory(NFTABLES, "1 client", server.process());
    rows.push(wake_ups(NFTABLES, server.process()));
    server.process().stop();
    enrol_many(&server, 1..full_or(MANY, 20));
    server.start();
    rows.extend(memory(NFTABLES, "1,000 clients", server.process()));
    server.process().stop();
    rows
}

/// Memory and start-up time with as many clients as can be configured, both drivers.
pub fn very_many() -> Vec<Row> {
    let topology = Topology::new();
    let mut server = Server::new(&topology, &Settings::new(Variant::Nft));
    enrol_many(&server, 0..full_or(VERY_MANY, 200));
    let mut rows = Vec::new();
    for (subject, variant) in [("spa", Variant::Nft), (NFTABLES, Variant::Nftables)] {
        server.configure(&Settings::new(variant));
        let began = Instant::now();
        server.start_within(START_PATIENCE);
        let took = began.elapsed().as_secs_f64();
        rows.push(Row::new(START, subject, "100,000 clients, exec to ready", took, "s"));
        rows.extend(memory(subject, "100,000 clients", server.process()));
        server.process().stop();
        server.must(&["unprotect"]);
    }
    rows
}

fn enrol_many(server: &Server, numbers: Range<usize>) {
    numbers.for_each(|number| enrol::nobody(server, number));
}

/// fwknop and knockd.
pub fn peers() -> Vec<Row> {
    let topology = Topology::new();
    let mut rows = Vec::new();
    if peers::installed("fwknopd") && peers::installed("fwknop") {
        let fwknopd = Fwknopd::start(&topology, (22, 22), 30);
        rows.extend(memory("fwknopd", "1 client", fwknopd.process()));
        rows.push(wake_ups("fwknopd", fwknopd.process()));
        let arguments: Vec<String> = fwknopd.client(22);
        rows.extend(exec_to_wire(&topology, "fwknop", "fwknop".into(), &arguments));
        rows.extend(["/usr/sbin/fwknopd", "/usr/bin/fwknop"].map(|path| size(path, path)));
    } else {
        rows.push(Row::absent(MEMORY, "fwknopd", "not installed"));
    }
    if peers::installed("knockd") {
        let knockd = Knockd::start(&topology, 22);
        rows.extend(memory("knockd", "one sequence", knockd.process()));
        rows.push(wake_ups("knockd", knockd.process()));
        rows.push(size("/usr/sbin/knockd", "/usr/sbin/knockd"));
    } else {
        rows.push(Row::absent(MEMORY, "knockd", "not installed"));
    }
    rows
}

/// RSS counts what two processes share twice; PSS counts it once.
fn memory(subject: &str, with: &str, process: &Process) -> Vec<Row> {
    let mut all = Memory::default();
    process.pids().into_iter().for_each(|pid| all.add(pid));
    let row = |measure: &str, kib: u64| {
        Row::new(MEMORY, subject, &format!("{with}, {measure}"), kib as f64 / 1024.0, "MiB")
    };
    let Memory { rings, files, own, pss } = all;
    vec![
        row("RSS summed over its processes", rings + files + own),
        row("RSS, of it rings of packet sockets", rings),
        row("RSS, of it pages of program and libraries", files),
        row("RSS, of it its own (heap, stacks)", own),
        row("PSS (shared pages once)", pss),
    ]
}

/// KiB of processes, by what is mapped: proc_pid_smaps(5).
#[derive(Default)]
struct Memory {
    rings: u64,
    files: u64,
    own: u64,
    pss: u64,
}

impl Memory {
    fn add(&mut self, pid: u32) {
        let text =
            std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("it runs, and is ours to look at");
        let mut mapped = "";
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields[..] {
                ["Rss:", kib, _] => *self.kind(mapped) += kib.parse().unwrap_or(0),
                ["Pss:", kib, _] => self.pss += kib.parse().unwrap_or(0),
                // An address range with its rights, and what it is of, which may be nothing.
                [range, rights, ..] if range.contains('-') && rights.len() == 4 => {
                    mapped = fields.get(5).copied().unwrap_or_default();
                }
                _ => {}
            }
        }
    }

    fn kind(&mut self, mapped: &str) -> &mut u64 {
        match mapped {
            path if path.starts_with("socket:") => &mut self.rings,
            path if path.starts_with('/') => &mut self.files,
            _ => &mut self.own,
        }
    }
}

/// How often a thread of it gave up the processor by itself: once a wake-up.
fn wake_ups(subject: &str, process: &Process) -> Row {
    let count = || -> u64 {
        let of = |task: String| {
            let status = std::fs::read_to_string(format!("{task}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.and_then(|line| line.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        process.pids().into_iter().flat_map(tasks).map(of).sum()
    };
    // What a start leaves to do is not idleness.
    std::thread::sleep(Duration::from_secs(1));
    let before = count();
    let idle = full_or(IDLE, IDLE / 8);
    std::thread::sleep(idle);
    let each = (count() - before) as f64 / idle.as_secs_f64();
    Row::new(WAKE, subject, &format!("in {} s", idle.as_secs()), each, "a second")
}

fn size(name: &str, path: &str) -> Row {
    match std::fs::metadata(path) {
        Ok(metadata) => Row::new(SIZE, name, "file", metadata.len() as f64 / 1024.0, "KiB"),
        Err(error) => Row::absent(SIZE, name, &error.to_string()),
    }
}

fn exec_to_wire(topology: &Topology, subject: &str, program: String, arguments: &[String]) -> Vec<Row> {
    let mut values = Vec::new();
    for _ in 0..full_or(SAMPLES, 2) {
        let sniffer = Sniffer::start(&topology.client.ns);
        let (began, status) = topology.client.ns.enter(|| {
            let mut command = Command::new(&program);
            command.args(arguments).env("HOME", spa_tests::WORK).stdin(Stdio::null()).stdout(Stdio::null());
            // A name of its own, as a shell would give it.
            command.stderr(Stdio::null()).arg0(&program);
            let began = Instant::now();
            (began, command.status())
        });
        status.expect("the client runs");
        let sent = sniffer.first_to(SPA_PORT);
        values.extend(sent.map(|sent| sent.saturating_duration_since(began).as_secs_f64() * 1e3));
    }
    Row::spread(WIRE, subject, values, "ms")
}
