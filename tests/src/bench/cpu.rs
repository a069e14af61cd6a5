//! What one junk packet costs the machine, with and without us.

use std::time::Duration;

use spa_capture::{Capture, Interfaces};
use spa_tests::short::full_or;
use spa_tests::{Family, Server, Topology};

use super::flood::{self, Sent};
use super::junk;
use super::open::{FIRST_PORT, enrol, settings};
use super::peers::{self, Fwknopd};
use super::report::Row;

const BENCH: &str = "CPU per junk packet";
/// Of random junk. The same for all three, since a sender that waits costs more a packet.
const RATE: u64 = 100_000;
/// fwknopd keeps up with about this much.
const SLOW_RATE: u64 = 500;
const LENGTH: Duration = Duration::from_millis(1_500);
/// Turns of the three; the median is reported.
const TURNS: usize = 3;
/// Some other port: our filter, for it, drops every packet of the flood.
const OTHER_PORT: u16 = 62_299;

/// The three, in turn, then fwknopd.
pub fn run() -> Vec<Row> {
    let topology = Topology::new();
    let (settings, names) = settings("60s", 1);
    let mut server = Server::new(&topology, &settings);
    enrol(&server, &names, 1);
    let junk = junk::random();
    let [mut none, mut filter, mut spa, mut own] = [const { Vec::new() }; 4];
    let (mut lost, mut sent, mut rate) = (0.0, 0, 0.0);
    for _ in 0..full_or(TURNS, 1) {
        server.start();
        let pids = server.process().pids();
        let cost = cost(&topology, &junk, RATE, &pids);
        spa.push(cost.all);
        own.push(cost.daemon);
        sent += cost.sent.datagrams;
        rate += cost.sent.rate() / full_or(TURNS, 1) as f64;
        lost += server.status()["dropped"].as_u64().unwrap_or(0) as f64;
        // Its rules stay: the firewall is the same for all three.
        server.process().stop();
        none.push(self::cost(&topology, &junk, RATE, &[]).all);
        let open = || Capture::open(spa_capture::Family::V4, OTHER_PORT, &Interfaces::all());
        let _capture = topology.server.ns.enter(open).expect("CAP_NET_RAW in the namespace");
        filter.push(self::cost(&topology, &junk, RATE, &[]).all);
    }
    let median = |values: Vec<f64>| super::spread(values).expect("some turns")[1];
    let [none, filter, spa, own] = [none, filter, spa, own].map(median);
    let mut rows = vec![
        Row::new(BENCH, "junk", &format!("sent, of {RATE} wanted, mean of {TURNS}"), rate, "a second"),
        Row::new(BENCH, "no socket", "sender, kernel and daemon, median of 3", none, "ns"),
        Row::new(BENCH, "filter that drops all", "sender, kernel and daemon, median of 3", filter, "ns"),
        Row::new(BENCH, "spa", "sender, kernel and daemon, median of 3", spa, "ns"),
        Row::new(BENCH, "spa", "the daemon alone, median of 3", own, "ns"),
        Row::new(BENCH, "spa", "against no socket", spa / none, "times"),
        Row::new(BENCH, "spa", "against a filter that drops all", spa / filter, "times"),
        Row::new(BENCH, "spa", "packets lost by the capture socket", lost, &format!("of {sent}")),
    ];
    drop(server);
    topology.server.ns.sh("iptables -F; iptables -X SPA");
    rows.extend(fwknopd(&topology));
    rows
}

fn fwknopd(topology: &Topology) -> Vec<Row> {
    if !peers::installed("fwknopd") || !peers::installed("fwknop") {
        return vec![Row::absent(BENCH, "fwknopd", "not installed")];
    }
    let fwknopd = Fwknopd::start(topology, (FIRST_PORT, FIRST_PORT), 60);
    let junk = junk::base64_junk(fwknopd.datagram(FIRST_PORT).len());
    let cost = cost(topology, &junk, SLOW_RATE, &fwknopd.process().pids());
    vec![Row::new(BENCH, "fwknopd", &format!("the daemon alone, at {SLOW_RATE}/s"), cost.daemon, "ns")]
}

struct Cost {
    all: f64,
    daemon: f64,
    sent: Sent,
}

/// A flood by one sender. CPU of the sender, of the kernel's softirq threads and of the daemon, a packet.
fn cost(topology: &Topology, junk: &[Vec<u8>], rate: u64, daemon: &[u32]) -> Cost {
    let server = topology.server.address(Family::V4);
    let before = (flood::processes_cpu(daemon), flood::softirq_cpu());
    let wait = || std::thread::sleep(full_or(LENGTH, LENGTH / 10));
    let ((), sent) = flood::during(&topology.stranger, server, junk, (Some(rate), 1), wait);
    // What is queued is still to be judged.
    std::thread::sleep(Duration::from_millis(200));
    let own = flood::processes_cpu(daemon).saturating_sub(before.0);
    let softirq = flood::softirq_cpu().saturating_sub(before.1);
    let each = |time: Duration| time.as_nanos() as f64 / sent.datagrams as f64;
    Cost { all: each(sent.cpu + softirq + own), daemon: each(own), sent }
}
