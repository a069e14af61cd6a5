//! Valid knocks honoured while junk arrives.

use std::time::{Duration, Instant};

use spa_tests::short::full_or;
use spa_tests::{Family, Host, Server, Topology};

use super::flood::{self, Sent};
use super::forge::Forger;
use super::open::{FIRST_PORT, enrol, listen, settings};
use super::peers::{self, Fwknopd};
use super::report::Row;
use super::syn::Prober;

const BENCH: &str = "valid knocks honoured under junk";
/// Valid knocks in each flood.
const MOST_KNOCKS: u16 = 20;
/// From one to the next.
const SPACING: Duration = Duration::from_millis(100);
/// After the flood: a knock that is honoured later is not honoured.
const GRACE: Duration = Duration::from_secs(1);
/// Different datagrams of a flood.
const MOST_VARIETY: usize = 4_000;
/// Junk a second; `None` is the most the machine sends, from one thread a core.
const RATES: [Option<u64>; 4] = [Some(1_000), Some(10_000), Some(100_000), None];
const CLIENTS: usize = 24;

/// What the junk is, its datagrams, and how many a second.
type Flood<'a> = (&'a str, &'a [Vec<u8>], Option<u64>);

/// One flood with knocks among it.
struct Cell<'a> {
    topology: &'a Topology,
    subject: &'a str,
    junk: (&'a str, &'a [Vec<u8>]),
    rate: Option<u64>,
    first_port: u16,
}

impl Cell<'_> {
    /// Knocks are made before, so that making them is not what the flood hinders; `each` makes one for a port.
    fn run(&self, mut each: impl FnMut(u16) -> Vec<u8>) -> Vec<Row> {
        let server = self.topology.server.address(Family::V4);
        let ports = self.first_port..self.first_port + knocks();
        let packets: Vec<Vec<u8>> = ports.clone().map(&mut each).collect();
        let socket = flood::socket(&self.topology.client, server);
        let senders = if self.rate.is_none() { cores() } else { 1 };
        let body = || {
            for knock in &packets {
                std::thread::sleep(SPACING);
                socket.send(knock).expect("the network is up");
            }
            std::thread::sleep(SPACING);
        };
        let stranger = &self.topology.stranger;
        let ((), sent) = flood::during(stranger, server, self.junk.1, (self.rate, senders), body);
        let mut open = vec![false; usize::from(knocks())];
        let mut prober = Prober::new(&self.topology.client, server);
        let end = Instant::now() + GRACE;
        while Instant::now() < end && open.contains(&false) {
            for (port, open) in ports.clone().zip(&mut open) {
                *open = *open || prober.is_open(port);
            }
        }
        self.rows(sent, open.iter().filter(|open| **open).count())
    }

    fn rows(&self, sent: Sent, honoured: usize) -> Vec<Row> {
        let wanted = self.rate.map_or_else(|| "at most".to_owned(), |rate| format!("{rate}/s"));
        let measure = format!("{}, {wanted} ({:.0}/s sent)", self.junk.0, sent.rate());
        let unit = format!("of {}", knocks());
        vec![Row::new(BENCH, self.subject, &measure, honoured as f64, &unit)]
    }
}

fn knocks() -> u16 {
    full_or(MOST_KNOCKS, 3)
}

fn variety() -> usize {
    full_or(MOST_VARIETY, 200)
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
}

/// Random bytes, of the sizes that pass the kernel's filter.
pub fn random() -> Vec<Vec<u8>> {
    let one = |_| {
        let mut junk = vec![0_u8; rand::random_range(256..=544)];
        junk.fill_with(rand::random);
        junk
    };
    (0..variety()).map(one).collect()
}

/// Us.
pub fn spa() -> Vec<Row> {
    let topology = Topology::new();
    let (settings, names) = settings("60s", 4);
    let _listeners = listen(&topology.server, FIRST_PORT, 200);
    let mut server = Server::new(&topology, &settings);
    let invites = enrol(&server, &names, CLIENTS);
    server.start();
    let clients: Vec<Forger> = invites.iter().map(|invite| Forger::client(invite)).collect();
    // The last client is the hostile one; it has keys of its own and nobody else's.
    let (hostile, honest) = clients.split_last().expect("there are some");
    let random = random();
    let cloak = Forger::cloak_alone(&invites[0]);
    let enveloped: Vec<Vec<u8>> = (0..variety()).map(|_| cloak.knock(FIRST_PORT)).collect();
    let own: Vec<Vec<u8>> = (0..variety()).map(|_| hostile.knock(FIRST_PORT + 199)).collect();
    let replayed = vec![captured(&topology.client, &topology, &honest[0])];
    let mut cells: Vec<Flood<'_>> = RATES.iter().map(|rate| ("random", &random[..], *rate)).collect();
    cells.push(("made with the cloak key", &enveloped, None));
    cells.push(("replay of one packet", &replayed, None));
    cells.push(("one client's own psk", &own, None));
    let mut rows = Vec::new();
    let mut turn = 0;
    for (number, (kind, junk, rate)) in (0..).zip(cells) {
        let first_port = FIRST_PORT + MOST_KNOCKS * number;
        let cell = Cell { topology: &topology, subject: "spa", junk: (kind, junk), rate, first_port };
        rows.extend(cell.run(|port| {
            turn += 1;
            honest[turn % honest.len()].knock(port)
        }));
    }
    let status = server.status();
    for (name, what) in
        [("dropped", "packets lost by the capture socket, all floods"), ("granted", "granted, all floods")]
    {
        if let Some(value) = status[name].as_u64() {
            rows.push(Row::new(BENCH, "spa", what, value as f64, ""));
        }
    }
    server.process().stop();
    rows
}

/// A knock that was honoured.
fn captured(from: &Host, topology: &Topology, client: &Forger) -> Vec<u8> {
    let server = topology.server.address(Family::V4);
    let knock = client.knock(FIRST_PORT + 198);
    flood::socket(from, server).send(&knock).expect("the network is up");
    let mut prober = Prober::new(from, server);
    prober.first_answer(FIRST_PORT + 198, Duration::from_secs(2)).expect("it opened");
    knock
}

/// fwknopd with its defaults, and one user.
pub fn fwknop() -> Vec<Row> {
    if !peers::installed("fwknopd") || !peers::installed("fwknop") {
        return vec![Row::absent(BENCH, "fwknopd", "not installed")];
    }
    let topology = Topology::new();
    let _listeners = listen(&topology.server, FIRST_PORT, 200);
    let mut fwknopd = Fwknopd::start(&topology, (FIRST_PORT, FIRST_PORT + 199), 60);
    let sample = fwknopd.datagram(FIRST_PORT);
    let random = base64_junk(sample.len());
    let replayed = vec![sample];
    let mut cells: Vec<Flood<'_>> = RATES.iter().map(|rate| ("random", &random[..], *rate)).collect();
    cells.push(("replay of one packet", &replayed, None));
    let mut rows = Vec::new();
    for (number, (kind, junk, rate)) in (0..).zip(cells) {
        let first_port = FIRST_PORT + MOST_KNOCKS * number;
        let cell = Cell { topology: &topology, subject: "fwknopd", junk: (kind, junk), rate, first_port };
        // Each flood meets a daemon without a backlog of the one before.
        fwknopd.restart();
        rows.extend(cell.run(|port| fwknopd.datagram(port)));
    }
    rows
}

/// fwknopd drops what is not base64 before it looks further.
pub fn base64_junk(length: usize) -> Vec<Vec<u8>> {
    (0..variety()).map(|_| peers::base64(length).into_bytes()).collect()
}
