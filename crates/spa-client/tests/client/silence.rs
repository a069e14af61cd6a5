//! Against a real firewall that drops, in a network namespace: what silence is called, and what waiting costs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::Server;

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
            &["could not tell whether tcp/22 of bastion opened", "clock", "--source observed", "policy"],
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

struct Measured {
    /// Median milliseconds of a plain connect, to the server's first byte.
    plain: f64,
    /// The same from the start of the command; the server lets it in by an iptables rule when its knock has come.
    knocked: f64,
    /// Connections that the server's program saw besides the winners.
    losers: u32,
    runs: u32,
}

fn measure(round_trip: u32) -> Measured {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&accepted);
    thread::spawn(move || {
        for stream in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = stream.unwrap().write_all(b"!"); // a loser of the race is gone already
        }
    });
    let server = Server::new("127.0.0.1:0");
    let home = server.home("{}");
    let first_byte = |from: &mut dyn Read| from.read_exact(&mut [0]).unwrap();
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1000.0
    };
    let runs = if round_trip == 0 { 15 } else { 9 };
    let plain = (0..runs).map(|_| {
        let start = Instant::now();
        first_byte(&mut TcpStream::connect(("127.0.0.1", port)).unwrap());
        start.elapsed()
    });
    let plain = median(plain.collect());
    drop_connections(port);
    let knocked = (0..runs).map(|_| {
        thread::scope(|scope| {
            let granting = scope.spawn(|| {
                server.receive();
                spa_tests::sh(&format!("iptables -w -I INPUT -s 127.0.0.1 -p tcp --dport {port} -j ACCEPT"));
            });
            let start = Instant::now();
            let mut child = home
                .command(&format!("connect bastion {port}"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            first_byte(child.stdout.as_mut().unwrap());
            let elapsed = start.elapsed();
            drop(child.stdin.take());
            drop(child.stdout.take());
            child.wait().unwrap();
            granting.join().unwrap();
            spa_tests::sh("iptables -w -D INPUT 1");
            while !server.is_quiet() {}
            elapsed
        })
    });
    let knocked = median(knocked.collect());
    Measured { plain, knocked, losers: accepted.load(Ordering::SeqCst) - 2 * runs, runs }
}

#[test]
fn connect_costs_little_more_than_a_plain_connect() {
    spa_tests::in_namespace(|| {
        for round_trip in [0, 50] {
            if round_trip > 0 {
                let delay = format!("tc qdisc add dev lo root netem delay {}ms", round_trip / 2);
                let done = std::process::Command::new("sh").args(["-c", &delay]).output().unwrap();
                if !done.status.success() {
                    return spa_tests::skip("connect at 50 ms", "tc netem is not available");
                }
            }
            let Measured { plain, knocked, losers, runs } = measure(round_trip);
            println!(
                "round trip {round_trip} ms: plain connect {plain:.1} ms, knock and connect {knocked:.1} ms, \
                 {losers} losers seen in {runs} runs"
            );
            // One SYN that comes too early is repeated after a second: that is what must never be waited for.
            assert!(losers < runs, "the server's program sees the losers");
            assert!(knocked < plain + f64::from(round_trip) + 500.0, "{knocked} ms");
        }
    });
}
