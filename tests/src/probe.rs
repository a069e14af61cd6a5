//! How a port looks from another machine, and waiting for it to look otherwise.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::ns::Namespace;

/// How long a silent port is listened to. Round trips here take well under a millisecond.
const SILENCE: Duration = Duration::from_millis(500);
/// How long anything is waited for that has no time of its own.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a connection attempt met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It was accepted.
    Open,
    /// It was refused by an answer: a TCP reset, or an ICMP error.
    Refused,
    /// Nothing came back.
    Silent,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Refused => "refused",
            Self::Silent => "silent",
        })
    }
}

/// Tries a TCP connection from a namespace.
pub fn tcp(from: &Namespace, to: IpAddr, port: u16) -> Probe {
    match connect(from, to, port) {
        Ok(_) => Probe::Open,
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Probe::Silent,
        Err(_) => Probe::Refused,
    }
}

/// Sends a datagram and waits for the echo.
pub fn udp(from: &Namespace, to: IpAddr, port: u16) -> Probe {
    let socket = udp_socket(from, to);
    socket.connect((to, port)).expect("a connected socket");
    socket.set_read_timeout(Some(SILENCE)).expect("a time-out");
    let answer = socket.send(b"probe").and_then(|_| socket.recv(&mut [0; 16]));
    match answer {
        Ok(_) => Probe::Open,
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Probe::Silent,
        Err(_) => Probe::Refused,
    }
}

/// A TCP connection from a namespace, that waits half a second at most.
///
/// # Errors
/// Those of connect(2), a time-out among them.
pub fn connect(from: &Namespace, to: IpAddr, port: u16) -> io::Result<TcpStream> {
    from.enter(|| TcpStream::connect_timeout(&SocketAddr::new(to, port), SILENCE))
}

/// A UDP socket in a namespace, of the same family as an address.
pub fn udp_socket(from: &Namespace, family_of: IpAddr) -> UdpSocket {
    let any: IpAddr = match family_of {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    from.enter(|| UdpSocket::bind((any, 0)).expect("a UDP socket"))
}

/// Sends a line over a connection to an echo service; whether it came back.
pub fn echoes(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 5];
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a time-out");
    stream.write_all(b"echo\n").and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer == *b"echo\n"
}

/// Waits until `condition` holds; says what was waited for otherwise.
///
/// # Panics
/// After `patience`.
pub fn eventually(what: impl fmt::Display, patience: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {patience:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
