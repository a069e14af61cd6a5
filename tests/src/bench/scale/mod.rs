//! What one packet costs the daemon with more and more clients, and with more and more packets that it remembers.
//!
//! CPU time of the daemon's processes alone. A junk packet is one of the right size that is refused as early as that
//! daemon can. A valid knock is for a port of its own, so each is a new grant, and the change of the firewall is in
//! what it costs: ours is made by the daemon itself over netlink; fwknopd runs iptables, which is a figure beside it.

mod fwknopd;
mod spa;

use std::ops::RangeInclusive;
use std::time::Duration;

use spa_tests::{Family, Process, Topology};

use super::report::Row;
use super::{flood, quiet};

const BY_CLIENTS: &str = "cost by clients";
const BY_REMEMBERED: &str = "cost by remembered packets";
/// How many there are; the first is what the others are compared with.
const CLIENTS: [usize; 4] = [1, 100, 10_000, 100_000];
const REMEMBERED: [usize; 4] = [1, 1_000, 100_000, 1_000_000];
/// Of both, in a short run.
const SHORT: usize = 2;
/// Each knock of a daemon's run is for a port of its own, and no grant ends meanwhile.
const PORTS: RangeInclusive<u16> = 9_000..=9_039;
const OPEN_FOR: (u32, &str) = (60, "60s");
/// What a daemon has not done this long after the last packet of a turn, it has not kept up with.
const KEEPS_UP: Duration = Duration::from_secs(5);

/// How fast packets come. The daemon follows: what waits or gets lost would not be counted as its work.
struct Pace {
    /// A flood, then knocks; the median of the turns is reported.
    turns: usize,
    /// Junk a second.
    rate: u64,
    /// Of one flood.
    length: Duration,
    /// Knocks of one turn.
    knocks: usize,
    /// From one to the next.
    spacing: Duration,
}

/// A daemon that runs.
trait Daemon {
    fn process(&mut self) -> &Process;
    /// A knock by the next of its clients.
    fn knock(&mut self, port: u16) -> Vec<u8>;
    /// Knocks for ports of their own that were honoured since its start.
    fn honoured(&self) -> usize;
}

/// What a packet cost.
struct Cost {
    /// Nanoseconds.
    junk: f64,
    /// Microseconds; or how many of how many were honoured, where not all were.
    knock: Result<f64, String>,
    /// Microseconds with the programs that it ran.
    with_programs: f64,
    /// Packets that it never saw, where it counts them: they cost it nothing.
    lost: u64,
}

/// Us, and fwknopd as far as it goes.
pub fn run() -> Vec<Row> {
    let topology = Topology::new();
    let mut rows = spa::rows(&topology);
    rows.extend(fwknopd::rows(&topology));
    rows
}

/// The sizes of this run.
fn sizes(all: &[usize; 4]) -> &[usize] {
    if super::is_short() { &all[..SHORT] } else { all }
}

/// The flood and the knocks, in turns. An error says what the daemon did not keep up with.
fn measure(
    topology: &Topology,
    daemon: &mut dyn Daemon,
    junk: &[Vec<u8>],
    pace: &Pace,
) -> Result<Cost, String> {
    let socket = flood::socket(&topology.client, topology.server.address(Family::V4));
    let mut ports = PORTS;
    let mut send = |daemon: &mut dyn Daemon, count: usize| {
        let knocks: Vec<Vec<u8>> = ports.by_ref().take(count).map(|port| daemon.knock(port)).collect();
        assert_eq!(knocks.len(), count, "a port for each knock");
        used(daemon.process(), || {
            for knock in knocks {
                socket.send(&knock).expect("the network is up");
                std::thread::sleep(pace.spacing);
            }
        })
    };
    // The first of an epoch computes every client's hint: not what a knock costs, but what 64 seconds do.
    send(daemon, 1)?;
    let before = daemon.honoured();
    let (mut floods, mut knocks, mut programs) = (Vec::new(), Vec::new(), Duration::ZERO);
    let turns = if super::is_short() { 1 } else { pace.turns };
    for _ in 0..turns {
        floods.push(flood(topology, daemon.process(), junk, pace.rate, pace.length)?);
        let ran = flood::programs_cpu(daemon.process().pid());
        knocks.push(send(daemon, pace.knocks)?.as_secs_f64() * 1e6 / pace.knocks as f64);
        programs += flood::programs_cpu(daemon.process().pid()).saturating_sub(ran);
    }
    let median = |values: Vec<f64>| super::spread(values).expect("a turn at least")[1];
    let (sent, honoured) = (turns * pace.knocks, daemon.honoured() - before);
    let knock = median(knocks);
    Ok(Cost {
        junk: median(floods),
        knock: if honoured == sent { Ok(knock) } else { Err(format!("{honoured} of {sent} honoured")) },
        lost: 0,
        with_programs: knock + programs.as_secs_f64() * 1e6 / sent as f64,
    })
}

/// Nanoseconds that the daemon takes for one of these packets.
fn flood(
    topology: &Topology,
    process: &Process,
    junk: &[Vec<u8>],
    rate: u64,
    length: Duration,
) -> Result<f64, String> {
    let server = topology.server.address(Family::V4);
    let mut sent = 0;
    let used = used(process, || {
        let wait = || std::thread::sleep(length);
        sent = flood::during(&topology.stranger, server, junk, (Some(rate), 1), wait).1.datagrams;
    })?;
    Ok(used.as_nanos() as f64 / sent.max(1) as f64)
}

/// CPU time of a daemon for what it is sent, to the end of its work.
fn used(process: &Process, send: impl FnOnce()) -> Result<Duration, String> {
    let before = flood::processes_cpu(&process.pids());
    send();
    let seconds = KEEPS_UP.as_secs();
    quiet::since(process, KEEPS_UP).ok_or_else(|| format!("not done with it {seconds} s later"))?;
    Ok(flood::processes_cpu(&process.pids()).saturating_sub(before))
}

/// The rows of one subject: each size against the first.
struct Table {
    bench: &'static str,
    subject: &'static str,
    /// Of what there are so many: "clients".
    of: &'static str,
    first_junk: Option<f64>,
    first_knock: Option<f64>,
    rows: Vec<Row>,
}

impl Table {
    fn new(bench: &'static str, subject: &'static str, of: &'static str) -> Self {
        Self { bench, subject, of, first_junk: None, first_knock: None, rows: Vec::new() }
    }

    fn add(&mut self, count: usize, cost: Result<Cost, String>) {
        let Self { bench, subject, of, .. } = *self;
        let absent =
            |what: &str, why: &str| Row::absent(bench, subject, &format!("{what}{of}: {count}: {why}"));
        let cost = match cost {
            Ok(cost) => cost,
            Err(why) => return self.rows.push(absent("", &why)),
        };
        let mut row = |measure: &str, value: f64, unit: &str| {
            self.rows.push(Row::new(bench, subject, &format!("{measure}, {of}: {count}"), value, unit));
        };
        row("junk packet", cost.junk, "ns");
        if let Some(first) = self.first_junk {
            row("junk packet, against 1", cost.junk / first, "times");
        }
        self.first_junk.get_or_insert(cost.junk);
        if cost.lost > 0 {
            row("packets lost by the capture socket", cost.lost as f64, "");
        }
        let knock = match cost.knock {
            Ok(knock) => knock,
            Err(why) => return self.rows.push(absent("valid knock, ", &why)),
        };
        row("valid knock", knock, "us");
        if let Some(first) = self.first_knock {
            row("valid knock, against 1", knock / first, "times");
        }
        self.first_knock.get_or_insert(knock);
        if cost.with_programs > knock {
            row("valid knock, with the programs that it runs", cost.with_programs, "us");
        }
    }
}
