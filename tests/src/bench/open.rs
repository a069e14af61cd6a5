//! From the knock on the wire to the first SYN/ACK.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use spa_tests::probe::{PATIENCE, eventually, udp_socket};
use spa_tests::short::full_or;
use spa_tests::{Family, Host, SPA_PORT, Server, Settings, Topology, Variant};

use super::bare;
use super::floor;
use super::forge::Forger;
use super::peers::{self, Fwknopd, Knockd, SEQUENCE};
use super::report::Row;
use super::syn::Prober;

const WARM: &str = "knock to open port, warm";
const COLD: &str = "knock to open port, cold";
/// Ports that are knocked for in turn; each is closed again when its turn comes again.
const PORTS: u16 = 40;
pub const FIRST_PORT: u16 = 9_000;
const WARM_SAMPLES: u16 = 100;
/// Each restarts the daemon.
const COLD_SAMPLES: u16 = 10;
/// Between start and the first knock: the daemon has come to rest.
const SETTLE: Duration = Duration::from_millis(300);
/// Seconds a port stays open.
const OPEN_FOR: u32 = 2;
const CLIENTS: usize = 16;

/// Something that opens ports.
trait Opener {
    /// Makes what has to be sent to have a port opened: ports and payloads.
    fn prepare(&mut self, port: u16) -> Vec<(u16, Vec<u8>)>;
    /// Stops and starts the daemon.
    fn restart(&mut self);
    /// Closes the port, where it does not close by itself.
    fn close(&mut self) {}
    /// The port of a sample.
    fn port(&self, sample: u16) -> u16 {
        FIRST_PORT + sample % PORTS
    }
}

/// Listeners that accept nothing: the kernel answers a SYN all the same.
pub fn listen(on: &Host, first: u16, count: u16) -> Vec<TcpListener> {
    let bind = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the port is free");
    on.ns.enter(|| (first..first + count).map(bind).collect())
}

fn measure(topology: &Topology, subject: &str, opener: &mut dyn Opener) -> Vec<Row> {
    let server = topology.server.address(Family::V4);
    let _listeners = listen(&topology.server, FIRST_PORT, PORTS);
    let socket = udp_socket(&topology.client.ns, server);
    let mut prober = Prober::new(&topology.client, server);
    let mut sample = |opener: &mut dyn Opener, number: u16| -> Option<f64> {
        let port = opener.port(number);
        eventually(format_args!("port {port} is closed"), PATIENCE, || !prober.is_open(port));
        let datagrams = opener.prepare(port);
        let began = Instant::now();
        send(&socket, server, &datagrams);
        let open = prober.first_answer(port, Duration::from_secs(2));
        opener.close();
        open.map(|open| open.duration_since(began).as_secs_f64() * 1e3)
    };
    let mut cold = Vec::new();
    for number in 0..full_or(COLD_SAMPLES, 2) {
        opener.restart();
        std::thread::sleep(SETTLE);
        cold.extend(sample(opener, number));
    }
    let mut warm = Vec::new();
    let began = Instant::now();
    for number in 0..full_or(WARM_SAMPLES, 4) {
        // Not in step with anybody's clock.
        std::thread::sleep(Duration::from_millis(rand::random_range(20..70)));
        warm.extend(sample(opener, COLD_SAMPLES + number));
        if began.elapsed() > Duration::from_secs(20) {
            break;
        }
    }
    let mut rows = Row::spread(WARM, subject, warm, "ms");
    rows.extend(Row::spread(COLD, subject, cold, "ms"));
    rows
}

fn send(socket: &UdpSocket, server: std::net::IpAddr, datagrams: &[(u16, Vec<u8>)]) {
    for (port, datagram) in datagrams {
        socket.send_to(datagram, (server, *port)).expect("the network is up");
    }
}

struct Spa {
    server: Server,
    clients: Vec<Forger>,
    next: usize,
}

impl Opener for Spa {
    fn prepare(&mut self, port: u16) -> Vec<(u16, Vec<u8>)> {
        self.next += 1;
        vec![(SPA_PORT, self.clients[self.next % CLIENTS].knock(port))]
    }

    fn restart(&mut self) {
        if self.next > 0 && self.server.process().is_running() {
            self.server.process().stop();
        }
        self.server.start();
    }
}

/// The configuration of a server with services of 50 ports each, from [`FIRST_PORT`] on; and their names.
pub fn settings(open_for: &'static str, services: u16) -> (Settings, String) {
    const EACH: u16 = 50;
    let mut text = String::new();
    for service in 0..services {
        let first = FIRST_PORT + service * EACH;
        let ports: Vec<String> = (first..first + EACH).map(|port| format!("\"tcp/{port}\"")).collect();
        text += &format!("s{service} = [{}]\n", ports.join(", "));
    }
    let names: Vec<String> = (0..services).map(|service| format!("s{service}")).collect();
    (Settings { open_for, services: text, ..Settings::new(Variant::Nft) }, names.join(","))
}

/// Clients of a server that is not running yet.
pub fn enrol(server: &Server, allow: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| server.enrol(&format!("c{number}"), allow, "192.0.2.1", &[])).collect()
}

/// Us; and what the kernel and iptables alone take.
pub fn spa() -> Vec<Row> {
    let topology = Topology::new();
    let mut rows = limit(&topology);
    let (settings, names) = settings("2s", 1);
    let server = Server::new(&topology, &settings);
    let clients = enrol(&server, &names, CLIENTS).iter().map(|invite| Forger::client(invite)).collect();
    let mut spa = Spa { server, clients, next: 0 };
    rows.extend(measure(&topology, "spa", &mut spa));
    spa.server.process().stop();
    rows
}

/// Knocks for [`bare`], which is never restarted.
struct Bare(u16);

impl Opener for Bare {
    fn prepare(&mut self, port: u16) -> Vec<(u16, Vec<u8>)> {
        self.0 += 1;
        vec![(bare::PORT, bare::knock(self.0, port))]
    }

    fn restart(&mut self) {}
}

/// The same with the other driver; and the least that it could take.
pub fn nftables() -> Vec<Row> {
    let mut rows = floor::rows();
    let topology = Topology::new();
    let open_for = Duration::from_secs(OPEN_FOR.into());
    let limit = bare::during(&topology, (FIRST_PORT, PORTS), open_for, |_| {
        measure(&topology, bare::SUBJECT, &mut Bare(0))
    });
    // It has no start of its own.
    rows.extend(limit.into_iter().filter(|row| row.bench == WARM));
    let (settings, names) = settings("2s", 1);
    let server = Server::new(&topology, &Settings { variant: Variant::Nftables, ..settings });
    let clients = enrol(&server, &names, CLIENTS).iter().map(|invite| Forger::client(invite)).collect();
    let mut spa = Spa { server, clients, next: 0 };
    rows.extend(measure(&topology, "spa, nftables", &mut spa));
    spa.server.process().stop();
    rows
}

/// An open port; and one run of iptables with nobody to ask for it.
fn limit(topology: &Topology) -> Vec<Row> {
    let server = topology.server.address(Family::V4);
    let port = 8_999;
    let _listener = listen(&topology.server, port, 1);
    let mut prober = Prober::new(&topology.client, server);
    let (mut open, mut exec) = (Vec::new(), Vec::new());
    for _ in 0..full_or(WARM_SAMPLES, 4) {
        let began = Instant::now();
        let answer = prober.first_answer(port, Duration::from_secs(1));
        open.extend(answer.map(|answer| answer.duration_since(began).as_secs_f64() * 1e3));
    }
    topology.server.ns.sh(&format!("iptables -A INPUT -p tcp --dport {port} -j DROP"));
    for _ in 0..full_or(20, 2) {
        let (began, mut child) = topology.server.ns.enter(|| {
            let mut iptables = std::process::Command::new("iptables");
            iptables.args([
                "-w",
                "-I",
                "INPUT",
                "-s",
                "192.0.2.10",
                "-p",
                "tcp",
                "--dport",
                &port.to_string(),
            ]);
            let began = Instant::now();
            (began, iptables.args(["-j", "ACCEPT"]).spawn().expect("iptables is installed"))
        });
        let answer = prober.first_answer(port, Duration::from_secs(1));
        exec.extend(answer.map(|answer| answer.duration_since(began).as_secs_f64() * 1e3));
        child.wait().expect("our child");
        topology.server.ns.sh("iptables -D INPUT 1");
    }
    topology.server.ns.sh("iptables -F INPUT");
    let mut rows = Row::spread("limit: SYN to SYN/ACK", "kernel", open, "ms");
    rows.extend(Row::spread("limit: one exec of iptables to open port", "iptables", exec, "ms"));
    rows
}

impl Opener for Fwknopd {
    fn prepare(&mut self, port: u16) -> Vec<(u16, Vec<u8>)> {
        vec![(SPA_PORT, self.datagram(port))]
    }

    fn restart(&mut self) {
        Self::restart(self);
    }
}

/// fwknopd with its defaults.
pub fn fwknop() -> Vec<Row> {
    if !peers::installed("fwknopd") || !peers::installed("fwknop") {
        return vec![Row::absent(WARM, "fwknopd", "not installed")];
    }
    let topology = Topology::new();
    let mut fwknopd = Fwknopd::start(&topology, (FIRST_PORT, FIRST_PORT + PORTS - 1), OPEN_FOR);
    measure(&topology, "fwknopd", &mut fwknopd)
}

impl Opener for Knockd {
    fn prepare(&mut self, _: u16) -> Vec<(u16, Vec<u8>)> {
        SEQUENCE.map(|port| (port, b"knock".to_vec())).into()
    }

    fn restart(&mut self) {
        Self::restart(self);
    }

    fn close(&mut self) {
        Self::close(self);
    }

    fn port(&self, _: u16) -> u16 {
        FIRST_PORT
    }
}

/// knockd, whose knock is three datagrams in the clear: less work than ours, for scale.
pub fn knockd() -> Vec<Row> {
    if !peers::installed("knockd") {
        return vec![Row::absent(WARM, "knockd", "not installed")];
    }
    let topology = Topology::new();
    let mut knockd = Knockd::start(&topology, FIRST_PORT);
    measure(&topology, "knockd", &mut knockd)
}
