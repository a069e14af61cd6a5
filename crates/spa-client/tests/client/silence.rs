//! Against a real firewall that drops, in a network namespace: what silence is called, and what waiting costs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Home, Server};

/// Drops new connections to the port, as a server with `protect` does.
fn drop_connections(port: u16) {
    spa_tests::sh(&format!("iptables -w -A INPUT -p tcp --dport {port} -j DROP"));
}

#[test]
fn silence_is_reported_as_not_known() {
    spa_tests::in_namespace(|| {
        let server = Server::new("127.0.0.1:0");
        let home = server.home("{ ssh = \"tcp/22\" }");
        drop_connections(22);
        let ran = home.run("open ssh --wait=1s --json");
        ran.fails(
            75,
            &["could not tell whether tcp/22 of bastion opened", "clock", "replaced or retired", "policy"],
        );
        assert!(ran.out.contains("\"state\":\"unknown\""), "{ran:?}");
        let connected = home.run("connect bastion 22 --timeout 1s");
        connected.fails(75, &["could not tell"]);
        assert_eq!(connected.err.lines().count(), 1, "{connected:?}");
        // A host that answers for its SPA port has no server that protects it.
        drop(server);
        home.run("open ssh --wait=1s").fails(75, &["its SPA port is closed"]);
    });
}

/// Where the server is: our own address, or one that stands for it at a distance (`mirror.py`).
struct Place {
    own: &'static str,
    peer: &'static str,
    /// Milliseconds.
    round_trip: u32,
    runs: u32,
}

const NEAR: Place = Place { own: "127.0.0.1", peer: "127.0.0.1", round_trip: 0, runs: 15 };
const FAR: Place = Place { own: "192.168.77.1", peer: "192.168.77.2", round_trip: 50, runs: 9 };

/// What a knock may add to a plain connect and one round trip, in milliseconds. The program's start is part of it, and
/// the `iptables` that stands for the server's work.
const ALLOWANCE: f64 = 20.0;

/// Lets the peer's connections in when its knock has come, by an iptables rule.
fn grant(server: &Server, peer: &str, port: u16) {
    server.receive();
    spa_tests::sh(&format!("iptables -w -I INPUT -s {peer} -p tcp --dport {port} -j ACCEPT"));
}

fn read_byte(from: &mut impl Read) {
    from.read_exact(&mut [0]).unwrap();
}

/// Milliseconds.
struct Times {
    best: f64,
    median: f64,
}

fn times(runs: impl Iterator<Item = Duration>) -> Times {
    let mut times: Vec<_> = runs.map(|time| time.as_secs_f64() * 1000.0).collect();
    times.sort_by(f64::total_cmp);
    Times { best: times[0], median: times[times.len() / 2] }
}

/// Prints and judges the time from the start of the command to the server's first byte, beside a plain connect's.
fn measure(place: &Place) {
    let Place { own, peer, round_trip, runs } = *place;
    let listener = TcpListener::bind((own, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&accepted);
    thread::spawn(move || {
        for stream in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = stream.unwrap().write_all(b"!"); // a loser of the race is gone already
        }
    });
    let plain = times((0..runs).map(|_| {
        let start = Instant::now();
        read_byte(&mut TcpStream::connect((peer, port)).unwrap());
        start.elapsed()
    }));
    drop_connections(port);
    let server = Server::new(&format!("{own}:0"));
    let home = Home::with_host(peer, server.address().port(), "{}");
    let knocked = times((0..runs).map(|_| {
        let elapsed = thread::scope(|scope| {
            let granting = scope.spawn(|| grant(&server, peer, port));
            let start = Instant::now();
            let mut command = home.command(&format!("connect bastion {port}"));
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            read_byte(child.stdout.as_mut().unwrap());
            let elapsed = start.elapsed();
            drop((child.stdin.take(), child.stdout.take()));
            child.wait().unwrap();
            granting.join().unwrap();
            elapsed
        });
        spa_tests::sh("iptables -w -D INPUT 1");
        while !server.is_quiet() {} // repeats, where the machine is busy
        elapsed
    }));
    let losers = accepted.load(Ordering::SeqCst) - 2 * runs;
    println!(
        "round trip {round_trip} ms, median (best): plain connect {:.1} ({:.1}) ms, knock and connect {:.1} ({:.1}) ms; \
         in {runs} runs the server saw {losers} losers",
        plain.median, plain.best, knocked.median, knocked.best
    );
    // The best of each: a busy machine makes single runs late, a wait in the program makes all of them late.
    assert!(knocked.best <= plain.best + f64::from(round_trip) + ALLOWANCE, "{} ms", knocked.best);
    // One SYN that comes too early is repeated after a second: that is what must never be waited for.
    assert!(knocked.median < plain.median + f64::from(round_trip) + 500.0, "{} ms", knocked.median);
    assert!(losers < runs, "the server's program sees the losers");
}

#[test]
fn connect_costs_little_more_than_a_plain_connect() {
    spa_tests::in_namespace(|| {
        measure(&NEAR);
        let (own, peer, one_way) = (FAR.own, FAR.peer, (FAR.round_trip / 2).to_string());
        let mirror = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/client/mirror.py"))
            .args([own, peer, &one_way])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut mirror = match mirror {
            Ok(mirror) => mirror,
            Err(error) => return spa_tests::skip("connect at 50 ms", &format!("no python3: {error}")),
        };
        let mut ready = [0; 6];
        if mirror.stdout.as_mut().unwrap().read_exact(&mut ready).is_err() {
            return spa_tests::skip("connect at 50 ms", "no TUN interface can be made");
        }
        measure(&FAR);
        drop(mirror.stdin.take());
        mirror.wait().unwrap();
    });
}
