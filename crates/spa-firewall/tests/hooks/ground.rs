//! Two machines joined by two cables, and what a real connection meets.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getpeername, socket_with, sockopt};
use spa_firewall::hooks::{Host, Interface, Verdict, Visit};
use spa_proto::{Endpoint, Protocol};
use spa_tests::ns::Namespace;
use spa_tests::sh;

pub const TCP_PORTS: [u16; 3] = [22, 80, 8080];
pub const UDP_PORT: u16 = 53;

/// ```text
///  "sN"                                               "cN"
///  ea 10.1.0.1/24, fd01::1/64 ----- ea 10.1.0.2, .3, .130, fd01::2, ::3, ::130
///  eb 10.2.0.1/24, fd02::1/64 ----- eb the same in 10.2.0.0/24 and fd02::/64
/// ```
pub struct Ground {
    pub server: Namespace,
    pub client: Namespace,
    next_port: u16,
    indexes: [u32; 2],
}

impl Ground {
    pub fn new(number: usize) -> Self {
        let (s, c) = (format!("s{number}"), format!("c{number}"));
        let (server, client) = (Namespace::new(&s), Namespace::new(&c));
        for (at, name) in ["ea", "eb"].into_iter().enumerate() {
            let net = at + 1;
            // Neighbours are written down, so that no rule keeps machines from finding each other.
            sh(&format!(
                "ip link add {name} netns {s} address 02:00:00:00:0{net}:01 type veth \
                 peer name {name} netns {c} address 02:00:00:00:0{net}:02
                 ip -n {s} addr add 10.{net}.0.1/24 dev {name} && ip -n {s} addr add fd0{net}::1/64 dev {name} nodad
                 ip -n {s} link set {name} up && ip -n {c} link set {name} up
                 ip -n {c} neigh replace 10.{net}.0.1 lladdr 02:00:00:00:0{net}:01 dev {name}"
            ));
            for host in ["2", "3", "130"] {
                sh(&format!(
                    "ip -n {c} addr add 10.{net}.0.{host}/24 dev {name}
                     ip -n {c} addr add fd0{net}::{host}/64 dev {name} nodad
                     ip -n {s} neigh replace 10.{net}.0.{host} lladdr 02:00:00:00:0{net}:02 dev {name}
                     ip -n {s} neigh replace fd0{net}::{host} lladdr 02:00:00:00:0{net}:02 dev {name}"
                ));
            }
            sh(&format!("ip -n {c} neigh replace fd0{net}::1 lladdr 02:00:00:00:0{net}:01 dev {name}"));
        }
        // The kernel answers each address with few ICMP errors a second; here all are wanted.
        server.sh(
            "sysctl -q -w net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 net.ipv4.ip_unprivileged_port_start=0
             sysctl -q -w net.ipv4.icmp_msgs_per_sec=100000 net.ipv4.icmp_msgs_burst=100000 2>/dev/null || true",
        );
        TCP_PORTS.iter().for_each(|port| tcp_echo(&server, *port));
        udp_echo(&server);
        let indexes = ["ea", "eb"].map(|name| {
            // `2: ea@if3: <...>`
            let line = server.sh(&format!("ip -o link show {name}"));
            line.split(':').next().and_then(|number| number.parse().ok()).expect("a number")
        });
        Self { server, client, next_port: 33_000, indexes }
    }

    pub fn host(&self) -> Host {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let addresses = ["10.1.0.1", "10.2.0.1", "fd01::1", "fd02::1", "127.0.0.1", "::1"];
        Host {
            addresses: addresses.map(|text| text.parse().expect("an address")).into(),
            now: u64::try_from(now.as_nanos()).expect("before 2554"),
        }
    }

    /// One that comes over this cable, from this host's number. No two share a port, so that conntrack keeps them apart.
    pub fn visit(&mut self, v6: bool, cable: usize, host: &str, endpoint: Endpoint) -> Visit {
        let net = cable + 1;
        let address = |host: &str| -> IpAddr {
            let text = if v6 { format!("fd0{net}::{host}") } else { format!("10.{net}.0.{host}") };
            text.parse().expect("an address")
        };
        self.next_port += 1;
        let name = ["ea", "eb"][cable].to_owned();
        Visit {
            source: address(host),
            source_port: self.next_port,
            destination: address("1"),
            endpoint,
            interface: Interface { name, index: self.indexes[cable] },
            symmetric: Some(true),
            listening: true,
        }
    }

    /// A real attempt.
    pub fn attempt(&self, visit: &Visit, patience: Duration) -> Verdict {
        self.client.enter(|| match visit.endpoint.protocol() {
            Protocol::Tcp => tcp(visit, patience),
            Protocol::Udp => udp(visit, patience),
        })
    }
}

fn tcp(visit: &Visit, patience: Duration) -> Verdict {
    let family = if visit.source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK, None).expect("a socket");
    sockopt::set_socket_reuseaddr(&socket, true).expect("an option");
    bind(&socket, &SocketAddr::new(visit.source, visit.source_port)).expect("a free port");
    match connect(&socket, &SocketAddr::new(visit.destination, visit.endpoint.port())) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(_) => return Verdict::Refused,
    }
    let mut ready = [PollFd::new(&socket, PollFlags::OUT)];
    let limit = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
    if poll(&mut ready, Some(&limit)).expect("poll") == 0 {
        return Verdict::Silent;
    }
    match sockopt::socket_error(&socket).expect("an option") {
        Ok(()) => {}
        // It was connected, and has been reset since; or a later packet met an ICMP error.
        Err(Errno::CONNRESET) => return Verdict::Stalled,
        Err(_) if getpeername(&socket).is_ok() => return Verdict::Stalled,
        Err(_) => return Verdict::Refused,
    }
    let mut stream = TcpStream::from(socket);
    stream.set_nonblocking(false).expect("an option");
    stream.set_read_timeout(Some(patience)).expect("a time-out");
    let answered = stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0]));
    if answered.is_ok() { Verdict::Open } else { Verdict::Stalled }
}

fn udp(visit: &Visit, patience: Duration) -> Verdict {
    let socket = UdpSocket::bind((visit.source, visit.source_port)).expect("a free port");
    socket.connect((visit.destination, visit.endpoint.port())).expect("a route");
    socket.set_read_timeout(Some(patience)).expect("a time-out");
    match socket.send(b"x").and_then(|_| socket.recv(&mut [0; 8])) {
        Ok(_) => Verdict::Open,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Verdict::Silent,
        Err(_) => Verdict::Refused,
    }
}

fn tcp_echo(server: &Namespace, port: u16) {
    let listener =
        server.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("the port is free"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_ok() {
                    let _ = stream.write_all(&byte);
                }
            });
        }
    });
}

/// One socket for each address: an answer from a wildcard socket may leave from another address.
fn udp_echo(server: &Namespace) {
    for address in ["10.1.0.1", "10.2.0.1", "fd01::1", "fd02::1"] {
        let address: IpAddr = address.parse().expect("an address");
        let socket = server.enter(|| UdpSocket::bind((address, UDP_PORT)).expect("the port is free"));
        std::thread::spawn(move || {
            let mut bytes = [0; 8];
            loop {
                // A rule of the server's may refuse the answer.
                if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    let _ = socket.send_to(&bytes[..length], from);
                }
            }
        });
    }
}
