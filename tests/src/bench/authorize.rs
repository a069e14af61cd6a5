//! What a valid authorization costs the daemon, against the one X25519 that it cannot do without.

use std::time::{Duration, Instant};

use spa_tests::probe::{PATIENCE, eventually, udp_socket};
use spa_tests::{Family, Server, Settings, Topology, Variant};

use super::forge::{Forger, parse};
use super::report::Row;
use super::x25519::{self, Limit};
use super::{bare, enrol, flood, quiet};

const BENCH: &str = "valid authorizations";
const CLIENTS: usize = 400;
/// Of each client; within its burst.
const ROUNDS: usize = 4;
/// Datagrams that the buffer of an ordinary socket holds at once.
const BURST: usize = 100;
const PORT: u16 = 22;
const OPEN_FOR: Duration = Duration::from_secs(60);

/// The threads of the daemon, by the names that the kernel has for them: `exe` is the verifier.
const THREADS: [(&str, &str); 3] =
    [("exe", "verifier"), ("spa-server", "warden's main thread"), ("engine", "engine")];

/// Both drivers; and the limits: one X25519, and the same with nothing but the kernel's part beside it.
pub fn run() -> Vec<Row> {
    let topology = Topology::new();
    let mut limits = Vec::from(x25519::both());
    limits.push(Limit { whose: bare::SUBJECT, seconds: bare(&topology) });
    let mut rows: Vec<Row> =
        limits.iter().map(|limit| Row::new(BENCH, limit.whose, "CPU", limit.seconds * 1e6, "us")).collect();
    let settings = |variant| Settings { open_for: "60s", ..Settings::new(variant) };
    let mut server = Server::new(&topology, &settings(Variant::Nftables));
    let invite = parse(&server.enrol("alice", "ssh", "192.0.2.1", &[]));
    let forgers: Vec<Forger> = (0..CLIENTS).map(|number| enrol::forger(&server, number, &invite)).collect();
    for (subject, variant) in [("spa, nftables", Variant::Nftables), ("spa", Variant::Nft)] {
        server.configure(&settings(variant));
        rows.extend(measure(subject, &topology, &mut server, &forgers, &limits));
        server.must(&["unprotect"]);
    }
    rows
}

/// Every client knocks for the same port from the same address, four times: 400 grants are made, then renewed.
fn measure(
    subject: &str,
    topology: &Topology,
    server: &mut Server,
    forgers: &[Forger],
    limits: &[Limit],
) -> Vec<Row> {
    server.start();
    let socket = flood::socket(&topology.client, topology.server.address(Family::V4));
    let pids = server.process().pids();
    let (mut cpu, mut took, mut granted) = ([Duration::ZERO; 3], Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        let knocks: Vec<Vec<u8>> = forgers.iter().map(|forger| forger.knock(PORT)).collect();
        let before = cpu_by_thread(&pids);
        let began = Instant::now();
        for knock in &knocks {
            socket.send(knock).expect("the network is up");
        }
        granted += CLIENTS as u64;
        let (mut done, mut after) = (began, before);
        // It is asked only when its CPU time has been read: an answer is work.
        eventually("all are granted", PATIENCE, || {
            done = quiet::since(server.process(), PATIENCE).unwrap_or(done);
            after = cpu_by_thread(&pids);
            server.status()["granted"].as_u64() == Some(granted)
        });
        took += done.duration_since(began);
        for ((sum, after), before) in cpu.iter_mut().zip(after).zip(before) {
            *sum += after.saturating_sub(before);
        }
    }
    server.process().stop();
    let all = (CLIENTS * ROUNDS) as f64;
    let each = cpu.iter().sum::<Duration>().as_secs_f64() / all;
    let mut rows = vec![
        Row::new(BENCH, subject, "CPU of both processes", each * 1e6, "us"),
        Row::new(BENCH, subject, "a second and core", 1.0 / each, ""),
        Row::new(
            BENCH,
            subject,
            "a second by the clock, bursts of 400, to when it rests",
            all / took.as_secs_f64(),
            "",
        ),
    ];
    rows.extend(limits.iter().map(|limit| {
        Row::new(BENCH, subject, &format!("against {}", limit.whose), each / limit.seconds, "times")
    }));
    for (cpu, (_, thread)) in cpu.iter().zip(THREADS) {
        rows.push(Row::new(BENCH, subject, &format!("of it {thread}"), cpu.as_secs_f64() / all * 1e6, "us"));
    }
    rows
}

/// Seconds a knock of [`bare`], in bursts that its socket holds.
fn bare(topology: &Topology) -> f64 {
    let socket = udp_socket(&topology.client.ns, topology.server.address(Family::V4));
    socket.connect((topology.server.address(Family::V4), bare::PORT)).expect("a route");
    let numbers: Vec<u16> = (0..CLIENTS as u16).collect();
    bare::during(topology, (PORT, 1), OPEN_FOR, |bare| {
        let before = bare.cpu();
        for burst in numbers.repeat(ROUNDS).chunks(BURST) {
            let served = bare.served();
            for number in burst {
                socket.send(&bare::knock(*number, PORT)).expect("the network is up");
            }
            eventually("all are served", PATIENCE, || bare.served() == served + burst.len() as u64);
        }
        (bare.cpu() - before).as_secs_f64() / (CLIENTS * ROUNDS) as f64
    })
}

/// CPU time of the daemon so far, by [`THREADS`]. What it has started besides does not count.
fn cpu_by_thread(pids: &[u32]) -> [Duration; 3] {
    let tasks: Vec<String> = pids.iter().flat_map(|pid| flood::tasks(*pid)).collect();
    THREADS.map(|(name, _)| {
        let is_it = |task: &&String| {
            std::fs::read_to_string(format!("{task}/comm")).is_ok_and(|comm| comm.trim() == name)
        };
        tasks.iter().filter(is_it).map(|task| flood::run_time(&format!("{task}/schedstat"))).sum()
    })
}
