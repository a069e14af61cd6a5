//! fwknopd, as far as it goes. Its clients are stanzas of `access.conf`, which it tries one after the other; what it
//! remembers are the digests of `digest.cache`, which it compares one after the other. By default it logs, here to a pipe,
//! two lines for each stanza that a packet does not fit.

use std::time::Duration;

use spa_tests::{Process, Topology};

use super::super::junk;
use super::super::peers::{self, Fwknopd};
use super::{
    BY_CLIENTS, BY_REMEMBERED, CLIENTS, Cost, Daemon, OPEN_FOR, PORTS, Pace, REMEMBERED, Row, Table, sizes,
};

const SUBJECT: &str = "fwknopd";
/// How long a start may take.
const STARTS: Duration = Duration::from_secs(10);
/// It keeps up with about so much junk where a packet costs it little.
const RATE: u64 = 500;
/// A flood costs it so much, so it is the shorter the dearer a packet is; within these numbers of packets.
const FLOOD: Duration = Duration::from_millis(400);
const PACKETS: (f64, f64) = (5.0, 350.0);
const TURNS: usize = 3;
const KNOCKS: usize = 4;
const SPACING: Duration = Duration::from_millis(200);

/// The daemon, and who knocks.
struct Users<'a> {
    topology: &'a Topology,
    fwknopd: Fwknopd,
    users: usize,
    turn: usize,
}

impl Daemon for Users<'_> {
    fn process(&mut self) -> &Process {
        self.fwknopd.process()
    }

    /// Users spread evenly over all: where somebody's stanza is decides what the knock costs.
    fn knock(&mut self, port: u16) -> Vec<u8> {
        const PLACES: usize = 2 * KNOCKS;
        self.turn += 1;
        let place = 2 * (self.turn % KNOCKS) + 1;
        self.fwknopd.datagram_of(self.users * place / PLACES, port)
    }

    fn honoured(&self) -> usize {
        let rules = self.topology.server.ns.sh("iptables -w -S FWKNOP_INPUT");
        rules.lines().filter(|rule| rule.contains("-j ACCEPT")).count()
    }
}

/// By users with nothing remembered, and by what is remembered with one user.
pub fn rows(topology: &Topology) -> Vec<Row> {
    if !peers::installed("fwknopd") || !peers::installed("fwknop") {
        return vec![Row::absent(BY_CLIENTS, SUBJECT, "not installed")];
    }
    let fwknopd = Fwknopd::new(topology, (*PORTS.start(), *PORTS.end()), OPEN_FOR.0);
    let mut users = Users { topology, fwknopd, users: 0, turn: 0 };
    let mut clients = Table::new(BY_CLIENTS, SUBJECT, "clients");
    for count in sizes(&CLIENTS) {
        clients.add(*count, users.measure(*count, 0));
    }
    let mut remembered = Table::new(BY_REMEMBERED, SUBJECT, "remembered");
    for count in sizes(&REMEMBERED) {
        remembered.add(*count, users.measure(1, *count));
    }
    clients.rows.into_iter().chain(remembered.rows).collect()
}

impl Users<'_> {
    fn measure(&mut self, users: usize, remembered: usize) -> Result<Cost, String> {
        self.fwknopd.stop();
        self.users = users;
        self.fwknopd.set_users(users);
        self.fwknopd.set_remembered(remembered);
        if !self.fwknopd.restart_within(STARTS) {
            return Err(format!("not started in {} s", STARTS.as_secs()));
        }
        let junk = junk::base64_junk(self.fwknopd.datagram(*PORTS.start()).len());
        let cost = self.pace(&junk).and_then(|pace| super::measure(self.topology, self, &junk, &pace));
        if cost.is_err() {
            self.fwknopd.kill(); // it has a backlog, and would end after that
        }
        cost
    }

    /// By what the first few packets cost.
    fn pace(&mut self, junk: &[Vec<u8>]) -> Result<Pace, String> {
        let length = |packets: f64| Duration::from_secs_f64(packets / RATE as f64);
        let first = super::flood(self.topology, self.process(), junk, RATE, length(PACKETS.0))?;
        let packets = (FLOOD.as_nanos() as f64 / first).clamp(PACKETS.0, PACKETS.1);
        Ok(Pace { turns: TURNS, rate: RATE, length: length(packets), knocks: KNOCKS, spacing: SPACING })
    }
}
