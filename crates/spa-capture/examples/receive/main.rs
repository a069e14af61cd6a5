//! Compares the ways to receive from a packet socket, in one run and in namespaces of its own: what a junk packet costs,
//! how many get lost, and how long a packet takes when nothing else comes. docs/BENCHMARKS.md says what came out.
//!
//!     cargo run --release -p spa-capture --example receive [WAY...]
//!
//! With SPA_BENCH_QUICK in the environment it takes little time, and its figures mean nothing.
//!
//! A way is a part of a name in the table, as `V2`; all by default. `no socket` is always there, to compare with.
//!
//! Root, two processors at least. The sender keeps to the first, the receiver to the second; *own core* means that the
//! kernel's half of the flood is put on the receiver's as well (receive packet steering).

#![allow(clippy::unwrap_used, reason = "a measurement has nobody to report to but the person who runs it")]

mod block;
mod measure;

use std::process::Command;

use measure::{Place, Way};
use spa_tests::quick::full_or;
use spa_tests::sh;

/// Turns of each; the least cost is printed, and all losses.
const TURNS: usize = 3;
const INSIDE: &str = "--inside";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == INSIDE) {
        return inside(&arguments[2..]);
    }
    let setup =
        "mount -t tmpfs tmpfs /run && mkdir /run/netns && mount -t sysfs sysfs /sys && exec \"$0\" \"$@\"";
    let status = Command::new("unshare")
        .args(["-nm", "--propagation=private", "sh", "-c", setup])
        .arg(std::env::current_exe().unwrap())
        .arg(INSIDE)
        .args(&arguments[1..])
        .status()
        .unwrap();
    assert!(status.success());
}

fn inside(wanted: &[String]) {
    let is_wanted = |way: &Way| wanted.is_empty() || wanted.iter().any(|part| way.name().contains(part));
    let ways: Vec<Way> = Way::ALL.into_iter().filter(|way| *way == Way::Nothing || is_wanted(way)).collect();
    sh("ip link set lo up && ip netns add peer && ip -n peer link set lo up
        ip link add srv0 address 02:00:00:00:00:01 type veth peer name cli0 address 02:00:00:00:00:02 netns peer
        ip addr add 10.0.0.1/24 dev srv0 && ip link set srv0 up
        ip -n peer addr add 10.0.0.2/24 dev cli0 && ip -n peer link set cli0 up
        PATH=$PATH:/usr/sbin iptables -P INPUT DROP
        ip -n peer neigh replace 10.0.0.1 lladdr 02:00:00:00:00:01 dev cli0");
    println!("load average {}", sh("cat /proc/loadavg").trim());
    for (place, rate) in [
        (Place::Apart, None),
        (Place::Apart, Some(100_000)),
        (Place::Apart, Some(20_000)),
        (Place::Together, None),
        (Place::Both, None),
    ] {
        let steer = if place == Place::Together { "2" } else { "0" };
        sh(&format!("echo {steer} > /sys/class/net/srv0/queues/rx-0/rps_cpus"));
        let wanted = rate.map_or("at most".to_owned(), |rate: u64| format!("{rate}/s"));
        println!("\njunk, {wanted}, {place:?}");
        println!(
            "{:24} {:>10} {:>10} {:>7} {:>10} {:>10} {:>9}",
            "", "sent/s", "CPU ns", "ratio", "of it own", "wake-ups/s", "lost"
        );
        let number = full_or(TURNS, 1);
        let turns: Vec<Vec<measure::Cost>> =
            (0..number).map(|_| ways.iter().map(|way| measure::flood(*way, place, rate)).collect()).collect();
        let least = |at: usize| turns.iter().map(|turn| turn[at].all).fold(f64::INFINITY, f64::min);
        for (at, way) in ways.iter().enumerate() {
            let mine = || turns.iter().map(|turn| &turn[at]);
            let mean = |value: fn(&measure::Cost) -> f64| mine().map(value).sum::<f64>() / number as f64;
            let own = mine().map(|cost| cost.own).fold(f64::INFINITY, f64::min);
            println!(
                "{:24} {:>10.0} {:>10.0} {:>7.2} {:>10.0} {:>10.0} {:>8.2}%",
                way.name(),
                mean(|c| c.rate),
                least(at),
                least(at) / least(0),
                own,
                mean(|c| c.wakes),
                mean(|c| c.lost) * 100.0
            );
        }
    }
    println!("\none packet each 3 ms: us from send to hand-over");
    println!("{:24} {:>10} {:>10} {:>10}", "", "least", "median", "p99");
    for way in ways.into_iter().filter(|way| way.receives()) {
        let [least, median, p99] = measure::latency(way);
        println!("{:24} {least:>10.0} {median:>10.0} {p99:>10.0}", way.name());
    }
}
