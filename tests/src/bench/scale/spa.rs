//! Us, with the driver for nftables.
//!
//! What we remember is one counter for each public key that ever knocked, on disk and in memory, and in a memo of fixed
//! size the last packets themselves. So *remembered packets* are the newest of as many clients that were removed since, read
//! from the replay record at the start; and up to as many of the memo's entries, by knocks of present clients.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spa_proto::Invite;
use spa_tests::{Family, Process, Server, Settings, Topology, Variant, write_private};

use super::super::footprint::START_PATIENCE;
use super::super::forge::{Forger, parse};
use super::super::{enrol, flood, junk, quiet};
use super::{
    BY_CLIENTS, BY_REMEMBERED, CLIENTS, Cost, Daemon, KEEPS_UP, OPEN_FOR, PORTS, Pace, REMEMBERED, Row,
    Table, sizes,
};

const SUBJECT: &str = "spa, nftables";
/// Of the junk half of what the daemon follows on two idle processors: so much comes with each wake-up that wake-ups, of which there
/// are more or fewer by chance, are little of the cost. A client alone can pay for these knocks: its bucket holds 16,
/// and 4 more a second.
const PACE: Pace = Pace {
    turns: 7,
    rate: 50_000,
    length: Duration::from_millis(700),
    knocks: 5,
    spacing: Duration::from_millis(20),
};
/// Clients who knock, where there are so many; spread evenly over all.
const KNOCKING: usize = 32;
/// Present clients beside those remembered: so many that none of them spends its bucket on filling the memo.
const PRESENT: usize = 400;
const MEMO_PORT: u16 = *PORTS.end() + 1;
/// Knocks that fill the memo come in groups, 2,000 a second.
const GROUP: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// The daemon, and who knocks.
struct Spa<'a> {
    topology: &'a Topology,
    server: Server,
    invite: Invite,
    knocking: Vec<Forger>,
    turn: usize,
}

impl Daemon for Spa<'_> {
    fn process(&mut self) -> &Process {
        self.server.process()
    }

    fn knock(&mut self, port: u16) -> Vec<u8> {
        self.turn += 1;
        self.knocking[self.turn % self.knocking.len()].knock(port)
    }

    fn honoured(&self) -> usize {
        self.server.status()["granted"].as_u64().map_or(0, |granted| granted as usize)
    }
}

pub fn rows(topology: &Topology) -> Vec<Row> {
    let ports: Vec<String> = PORTS.chain([MEMO_PORT]).map(|port| format!("\"tcp/{port}\"")).collect();
    let services = format!("ssh = [{}]\n", ports.join(", "));
    let settings = Settings { open_for: OPEN_FOR.1, services, ..Settings::new(Variant::Nftables) };
    let server = Server::new(topology, &settings);
    let invite = parse(&server.enrol("alice", "ssh", "192.0.2.1", &[]));
    server.must(&["client", "remove", "alice"]);
    let mut spa = Spa { topology, server, invite, knocking: Vec::new(), turn: 0 };
    let mut clients = Table::new(BY_CLIENTS, SUBJECT, "clients");
    let mut enrolled = 0;
    for count in sizes(&CLIENTS) {
        spa.enrol(enrolled..*count, KNOCKING);
        enrolled = *count;
        clients.add(*count, spa.measure(0));
    }
    spa.forget_clients();
    spa.enrol(0..PRESENT, PRESENT);
    let mut remembered = Table::new(BY_REMEMBERED, SUBJECT, "remembered");
    for count in sizes(&REMEMBERED) {
        write_private(&spa.server.file("state/replay"), record(*count));
        // The first is one packet of one client: whoever fills the memo is remembered too.
        remembered.add(*count, spa.measure(if *count == REMEMBERED[0] { 0 } else { *count }));
    }
    spa.server.must(&["unprotect"]);
    clients.rows.into_iter().chain(remembered.rows).collect()
}

impl Spa<'_> {
    /// So many of these clients, at most, knock from now on.
    fn enrol(&mut self, numbers: Range<usize>, knocking: usize) {
        self.knocking.clear();
        let step = numbers.len().div_ceil(knocking);
        for number in numbers {
            if number % step == 0 {
                self.knocking.push(enrol::forger(&self.server, number, &self.invite));
            } else {
                enrol::nobody(&self.server, number);
            }
        }
    }

    fn forget_clients(&self) {
        let files = std::fs::read_dir(self.server.file("clients.d")).expect("its directory");
        for file in files {
            std::fs::remove_file(file.expect("its entry").path()).expect("it is ours");
        }
    }

    /// Starts the daemon, has it remember so many packets in its memo, if it holds as many, and measures.
    fn measure(&mut self, memo: usize) -> Result<Cost, String> {
        self.server.start_within(START_PATIENCE);
        self.fill_memo(memo.min(spa_gate::MEMO_ENTRIES))?;
        let cost = super::measure(self.topology, self, &junk::random(), &PACE);
        let lost = self.server.status()["dropped"].as_u64().unwrap_or(0);
        self.server.must(&["revoke", "--all"]); // the next start would take them over
        self.server.process().stop();
        cost.map(|cost| Cost { lost, ..cost })
    }

    /// Knocks for a port that no other knock is for.
    fn fill_memo(&mut self, packets: usize) -> Result<(), String> {
        let knocks: Vec<Vec<u8>> = (0..packets).map(|_| self.knock(MEMO_PORT)).collect();
        let socket = flood::socket(&self.topology.client, self.topology.server.address(Family::V4));
        for group in knocks.chunks(GROUP) {
            group.iter().for_each(|knock| _ = socket.send(knock).expect("the network is up"));
            std::thread::sleep(PAUSE);
        }
        quiet::since(self.process(), KEEPS_UP)
            .map(|_| ())
            .ok_or_else(|| "the memo is not full yet".to_owned())
    }
}

/// A replay record (`spa_server::journal` has its format) with the newest packets of so many clients, who are gone.
fn record(packets: usize) -> Vec<u8> {
    const HEADER: &[u8; 16] = b"spa-replay-v1\n\0\0";
    const A_FRAME: usize = 1024;
    let a_second_ago = SystemTime::now() - Duration::from_secs(1);
    let counter = a_second_ago.duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let mut bytes = HEADER.to_vec();
    for at in (0..packets).step_by(A_FRAME) {
        let body: Vec<u8> = (at..packets.min(at + A_FRAME))
            .flat_map(|_| enrol::public_key().into_iter().chain(counter.to_be_bytes()))
            .collect();
        let length = (body.len() as u32).to_be_bytes();
        let mut sum = crc32fast::Hasher::new();
        sum.update(&length);
        sum.update(&body);
        bytes.extend(length);
        bytes.extend(sum.finalize().to_be_bytes());
        bytes.extend(body);
    }
    bytes
}
