//! Compares the ways to receive from a packet socket, in one run and in namespaces of its own: what a junk packet costs,
//! how many get lost, and how long a packet takes when nothing else comes. docs/BENCHMARKS.md says what came out.
//!
//!     cargo run --release -p spa-capture --example receive [--table] [WAY...]
//!
//! With SPA_BENCH_SHORT in the environment it takes little time, and its figures mean nothing.
//!
//! A way is a part of a name in the table, as `V2`; all by default. `no socket` is always there, to compare with.
//! `--table` prints the table of docs/BENCHMARKS.md, from fewer turns: under a minute, and the others two.
//!
//! Root, two processors at least. The sender keeps to the first, the receiver to the second; *own core* means that the
//! kernel's half of the flood is put on the receiver's as well (receive packet steering).

#![allow(clippy::unwrap_used, reason = "a measurement has nobody to report to but the person who runs it")]

mod block;
mod measure;

use std::process::Command;

use measure::{Cost, Place, Way};
use spa_tests::sh;
use spa_tests::short::full_or;

/// Turns of each; the least cost is printed, and the mean of all losses. And for the table.
const TURNS: usize = 3;
const TURNS_OF_TABLE: usize = 2;
const TABLE: &str = "--table";
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

fn inside(arguments: &[String]) {
    let (options, wanted): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|argument| argument.starts_with('-'));
    assert!(options.iter().all(|option| *option == TABLE), "usage: receive [{TABLE}] [WAY...]");
    let is_wanted = |way: &Way| wanted.is_empty() || wanted.iter().any(|part| way.name().contains(*part));
    let ways: Vec<Way> = Way::ALL.into_iter().filter(|way| *way == Way::Nothing || is_wanted(way)).collect();
    sh("ip link set lo up && ip netns add peer && ip -n peer link set lo up
        ip link add srv0 address 02:00:00:00:00:01 type veth peer name cli0 address 02:00:00:00:00:02 netns peer
        ip addr add 10.0.0.1/24 dev srv0 && ip link set srv0 up
        ip -n peer addr add 10.0.0.2/24 dev cli0 && ip -n peer link set cli0 up
        PATH=$PATH:/usr/sbin iptables -P INPUT DROP
        ip -n peer neigh replace 10.0.0.1 lladdr 02:00:00:00:00:01 dev cli0");
    println!("load average {}\n", sh("cat /proc/loadavg").trim());
    if options.is_empty() { all(&ways) } else { table(&ways) }
}

/// Everything, one table a flood.
fn all(ways: &[Way]) {
    for (place, rate) in [
        (Place::Apart, None),
        (Place::Apart, Some(100_000)),
        (Place::Apart, Some(20_000)),
        (Place::Together, None),
        (Place::Both, None),
    ] {
        let wanted = rate.map_or("at most".to_owned(), |rate: u64| format!("{rate}/s"));
        println!("junk, {wanted}, {place:?}");
        println!(
            "{:24} {:>10} {:>10} {:>7} {:>10} {:>10} {:>9}",
            "", "sent/s", "CPU ns", "ratio", "of it own", "wake-ups/s", "lost"
        );
        for (way, cost) in ways.iter().zip(flood(ways, place, rate, full_or(TURNS, 1))) {
            let Cost { all, own, rate, wakes, lost } = cost.cost;
            println!(
                "{:24} {rate:>10.0} {all:>10.0} {:>7.2} {own:>10.0} {wakes:>10.0} {:>8.2}%",
                way.name(),
                cost.ratio,
                lost * 100.0
            );
        }
        println!();
    }
    println!("one packet each 3 ms: us from send to hand-over");
    println!("{:24} {:>10} {:>10} {:>10}", "", "least", "median", "p99");
    for way in ways.iter().filter(|way| way.receives()) {
        let [least, median, p99] = measure::latency(*way);
        println!("{:24} {least:>10.0} {median:>10.0} {p99:>10.0}", way.name());
    }
}

/// One row a way, as the page has them.
fn table(ways: &[Way]) {
    let [most, fast, slow, together] = [
        (Place::Apart, None),
        (Place::Apart, Some(100_000)),
        (Place::Apart, Some(20_000)),
        (Place::Together, None),
    ]
    .map(|(place, rate)| flood(ways, place, rate, full_or(TURNS_OF_TABLE, 1)));
    println!(
        "| way | at most, apart: ratio, lost | 100,000/s: ratio | 20,000/s: ratio, own ns | together: ratio, lost | quiet: least, median |"
    );
    println!("|---|---|---|---|---|---|");
    for (at, way) in ways.iter().enumerate() {
        let lost = |cost: &Relative| match way.receives() {
            true => format!("{:.2}, {:.1} %", cost.ratio, cost.cost.lost * 100.0),
            false => format!("{:.2}", cost.ratio),
        };
        let quiet = match way.receives() {
            true => {
                let [least, median, _] = measure::latency(*way);
                format!("{least:.0}, {median:.0} us")
            }
            false => String::new(),
        };
        let own = match way {
            Way::Nothing => String::new(),
            _ => format!(", {:.0}", slow[at].cost.own),
        };
        println!(
            "| {} | {} | {:.2} | {:.2}{own} | {} | {quiet} |",
            way.name(),
            lost(&most[at]),
            fast[at].ratio,
            slow[at].ratio,
            lost(&together[at]),
        );
    }
}

/// A cost beside that of the first way.
struct Relative {
    cost: Cost,
    ratio: f64,
}

/// All ways in turns: of each the least cost, and the mean of the rest.
fn flood(ways: &[Way], place: Place, rate: Option<u64>, turns: usize) -> Vec<Relative> {
    let steer = if place == Place::Together { "2" } else { "0" };
    sh(&format!("echo {steer} > /sys/class/net/srv0/queues/rx-0/rps_cpus"));
    let all: Vec<Vec<Cost>> =
        (0..turns).map(|_| ways.iter().map(|way| measure::flood(*way, place, rate)).collect()).collect();
    let of = |at: usize| {
        let least =
            |value: fn(&Cost) -> f64| all.iter().map(|turn| value(&turn[at])).fold(f64::INFINITY, f64::min);
        let mean =
            |value: fn(&Cost) -> f64| all.iter().map(|turn| value(&turn[at])).sum::<f64>() / turns as f64;
        Cost {
            all: least(|cost| cost.all),
            own: least(|cost| cost.own),
            rate: mean(|cost| cost.rate),
            wakes: mean(|cost| cost.wakes),
            lost: mean(|cost| cost.lost),
        }
    };
    let first = of(0).all;
    (0..ways.len()).map(of).map(|cost| Relative { ratio: cost.all / first, cost }).collect()
}
