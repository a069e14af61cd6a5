//! What a valid authorization costs the daemon, against the one X25519 that it cannot do without.

use std::hint::black_box;
use std::time::{Duration, Instant};

use spa_proto::{Psk, SecretKey};
use spa_tests::probe::{PATIENCE, eventually};
use spa_tests::{Family, Server, Settings, Topology, Variant, write_private};

use super::flood;
use super::forge::{Forger, parse};
use super::report::Row;

const BENCH: &str = "valid authorizations";
const CLIENTS: usize = 400;
/// Of each client; within its burst.
const ROUNDS: usize = 4;
const PORT: u16 = 22;

/// The threads of the daemon, by the names that the kernel has for them: `exe` is the verifier.
const THREADS: [(&str, &str); 3] =
    [("exe", "verifier"), ("spa-server", "warden's main thread"), ("engine", "engine")];

/// Both drivers; and one X25519, the limit.
pub fn run() -> Vec<Row> {
    let bare = x25519();
    let mut rows = vec![Row::new(BENCH, "X25519 alone", "CPU", bare * 1e6, "us")];
    let topology = Topology::new();
    let settings = |variant| Settings { open_for: "60s", ..Settings::new(variant) };
    let mut server = Server::new(&topology, &settings(Variant::Nftables));
    let forgers = enrol(&server);
    for (subject, variant) in [("spa, nftables", Variant::Nftables), ("spa", Variant::Nft)] {
        server.configure(&settings(variant));
        rows.extend(measure(subject, &topology, &mut server, &forgers, bare));
        server.must(&["unprotect"]);
    }
    rows
}

fn enrol(server: &Server) -> Vec<Forger> {
    let invite = parse(&server.enrol("alice", "ssh", "192.0.2.1", &[]));
    let mut forgers = Vec::new();
    for number in 0..CLIENTS {
        let (name, secret, psk) =
            (format!("c{number}"), SecretKey::from_bytes(rand::random()), Psk::from_bytes(rand::random()));
        let public = secret.public_key();
        let toml = format!(
            "name = \"{name}\"\npublic-key = \"{public}\"\npsk-file = \"{name}.psk\"\nallow = [\"ssh\"]\n"
        );
        write_private(
            &server.file(&format!("clients.d/{name}.psk")),
            spa_proto::psk_file_text(&psk).as_bytes(),
        );
        write_private(&server.file(&format!("clients.d/{name}.toml")), toml);
        forgers.push(Forger::new(&secret, &psk, &invite));
    }
    forgers
}

/// Every client knocks for the same port from the same address, four times: 400 grants are made, then renewed.
fn measure(
    subject: &str,
    topology: &Topology,
    server: &mut Server,
    forgers: &[Forger],
    bare: f64,
) -> Vec<Row> {
    server.start();
    let socket = flood::socket(&topology.client, topology.server.address(Family::V4));
    let pids = server.process().pids();
    let (mut cpu, mut took, mut granted_before) = ([Duration::ZERO; 3], Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        let knocks: Vec<Vec<u8>> = forgers.iter().map(|forger| forger.knock(PORT)).collect();
        let before = cpu_by_thread(&pids);
        let began = Instant::now();
        for knock in &knocks {
            socket.send(knock).expect("the network is up");
        }
        let wanted = granted_before + CLIENTS as u64;
        let mut granted = 0;
        eventually("all are granted", PATIENCE, || {
            granted = server.status()["granted"].as_u64().unwrap_or(0);
            granted >= wanted
        });
        took += began.elapsed();
        granted_before = granted;
        for ((sum, now), before) in cpu.iter_mut().zip(cpu_by_thread(&pids)).zip(before) {
            *sum += now.saturating_sub(before);
        }
    }
    server.process().stop();
    let all = (CLIENTS * ROUNDS) as f64;
    let each = cpu.iter().sum::<Duration>().as_secs_f64() / all;
    let mut rows = vec![
        Row::new(BENCH, subject, "CPU of both processes", each * 1e6, "us"),
        Row::new(BENCH, subject, "a second and core", 1.0 / each, ""),
        Row::new(BENCH, subject, "against X25519 alone", each / bare, "times"),
        Row::new(BENCH, subject, "a second by the clock, bursts of 400", all / took.as_secs_f64(), ""),
    ];
    for (cpu, (_, thread)) in cpu.iter().zip(THREADS) {
        rows.push(Row::new(BENCH, subject, &format!("of it {thread}"), cpu.as_secs_f64() / all * 1e6, "us"));
    }
    rows
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

/// Seconds on a processor of one Diffie-Hellman with this machine's build of the same library.
pub fn x25519() -> f64 {
    const TIMES: u32 = 4_000;
    let secret = SecretKey::from_bytes(rand::random());
    let peer = *SecretKey::from_bytes(rand::random()).public_key().as_bytes();
    let before = flood::thread_cpu();
    for _ in 0..TIMES {
        black_box(secret.diffie_hellman(black_box(&peer)));
    }
    flood::thread_cpu().saturating_sub(before).as_secs_f64() / f64::from(TIMES)
}
