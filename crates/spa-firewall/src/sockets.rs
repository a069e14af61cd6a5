//! The connections of this host, from sock_diag(7). Listing them needs no privilege; ending one needs CAP_NET_ADMIN.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::netlink;
use spa_proto::Protocol;

use crate::netlink::{ACK, DUMP, Request, Socket, find};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY`, `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `struct inet_diag_req_v2`, of which the socket's identity is the last 48 bytes.
const REQUEST_SIZE: usize = 56;
const IDENTITY_SIZE: usize = 48;

/// A state in which data or the end of data may still come in, `net/tcp_states.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Open both ways.
    Established = 1,
    /// We have said our last, not acknowledged yet.
    FinWait1 = 4,
    /// We have said our last.
    FinWait2 = 5,
    /// The peer has said its last; we may still send.
    CloseWait = 8,
    /// Both have; ours is not acknowledged yet.
    LastAck = 9,
    /// Both at once.
    Closing = 11,
}

impl State {
    const ALL: [Self; 6] =
        [Self::Established, Self::FinWait1, Self::FinWait2, Self::CloseWait, Self::LastAck, Self::Closing];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }
}

/// One connection. IPv4 over an IPv6 socket counts as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// How far it has come.
    pub state: State,
}

/// All TCP connections in one of these states.
pub fn connections() -> io::Result<Vec<Connection>> {
    let states = State::ALL.iter().map(|state| 1 << *state as u32).sum();
    let mut found = Vec::new();
    dump(Protocol::Tcp, states, |listed| {
        found.push(parse(listed)?);
        Some(())
    })?;
    Ok(found)
}

/// A socket that takes what comes from anybody: a TCP listener, or a UDP socket without a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its address and port. IPv4-mapped counts as IPv4; unspecified is every address.
    pub local: SocketAddr,
    /// Bound to all IPv6 addresses, it takes IPv4 as well.
    pub takes_v4: bool,
    /// What `/proc/PID/fd` calls it by; 0 for one of the kernel's own, such as WireGuard's.
    pub inode: u32,
}

impl Listener {
    /// Whether it takes what comes to this address and port.
    pub fn takes(&self, address: IpAddr, port: u16) -> bool {
        let own = self.local.ip();
        let any = own.is_unspecified()
            && (own.is_ipv4() == address.is_ipv4() || address.is_ipv4() && self.takes_v4);
        self.local.port() == port && (own == address || any)
    }
}

/// All listening sockets of a protocol.
///
/// # Errors
/// Where sock_diag does not answer.
pub fn listeners(protocol: Protocol) -> io::Result<Vec<Listener>> {
    /// `TCP_LISTEN`, and `TCP_CLOSE`, which is the state of a UDP socket without a peer.
    const LISTEN: u32 = 1 << 10;
    const UNCONNECTED: u32 = 1 << 7;
    /// Where `struct inet_diag_msg` has the inode, behind the identity and four numbers; its size; `INET_DIAG_SKV6ONLY`.
    const INODE: usize = 68;
    const FIXED: usize = 72;
    const V6_ONLY: u16 = 11;
    let state = if protocol == Protocol::Tcp { LISTEN } else { UNCONNECTED };
    let mut found = Vec::new();
    dump(protocol, state, |listed| {
        let (local, _) = ends(listed)?;
        let inode = u32::from_ne_bytes(*listed.get(INODE..)?.first_chunk()?);
        let only = listed.get(FIXED..).and_then(|attributes| find(attributes, V6_ONLY));
        let takes_v4 = *listed.first()? == AF_INET6 && only.is_none_or(|only| only.first() == Some(&0));
        if local.port() != 0 {
            found.push(Listener { protocol, local, takes_v4, inode });
        }
        Some(())
    })?;
    Ok(found)
}

/// A socket with a peer, as the kernel knows it.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    family: u8,
    /// `struct inet_diag_sockid`, with the cookie that no later socket shares.
    identity: [u8; IDENTITY_SIZE],
}

/// All sockets with a peer: TCP ones from the first SYN to the last acknowledgement, UDP ones that are connected.
pub fn connected(protocol: Protocol) -> io::Result<Vec<Connected>> {
    /// `TCP_SYN_SENT` and `TCP_SYN_RECV`.
    const OPENING: u32 = 1 << 2 | 1 << 3;
    let states: u32 = State::ALL.iter().map(|state| 1 << *state as u32).sum();
    let mut found = Vec::new();
    dump(protocol, states | OPENING, |listed| {
        let (local, peer) = ends(listed)?;
        let identity = *listed.get(4..)?.first_chunk()?;
        found.push(Connected { local, peer, family: *listed.first()?, identity });
        Some(())
    })?;
    Ok(found)
}

impl Connected {
    /// Has the kernel end it: the program gets `ECONNABORTED`, and the peer of a TCP connection a reset.
    ///
    /// # Errors
    /// `NotFound` if it is gone; `Unsupported` from a kernel without `CONFIG_INET_DIAG_DESTROY`.
    pub fn destroy(&self, protocol: Protocol, socket: &mut Socket) -> io::Result<()> {
        let fixed = request(self.family, protocol, u32::MAX, &self.identity);
        socket.request(Request::new(DESTROY, ACK).fixed(&fixed), |_| {})
    }
}

/// `struct inet_diag_req_v2`.
fn request(
    family: u8,
    protocol: Protocol,
    states: u32,
    identity: &[u8; IDENTITY_SIZE],
) -> [u8; REQUEST_SIZE] {
    let mut fixed = [0; REQUEST_SIZE];
    fixed[0] = family;
    fixed[1] = protocol.number();
    fixed[4..8].copy_from_slice(&states.to_ne_bytes());
    fixed[REQUEST_SIZE - IDENTITY_SIZE..].copy_from_slice(identity);
    fixed
}

/// Hands each socket in these states to `each`, which returns `None` for what it cannot read.
fn dump(protocol: Protocol, states: u32, mut each: impl FnMut(&[u8]) -> Option<()>) -> io::Result<()> {
    let mut socket = Socket::open(netlink::SOCK_DIAG)?;
    for family in [AF_INET, AF_INET6] {
        let fixed = request(family, protocol, states, &[0; IDENTITY_SIZE]);
        let mut bad = false;
        let answer = socket
            .request(Request::new(BY_FAMILY, DUMP).fixed(&fixed), |listed| bad |= each(listed).is_none());
        match answer {
            // A kernel without IPv6 has no such sockets.
            Err(error) if family == AF_INET6 && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(()) if bad => return Err(crate::netlink::malformed()),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn parse(listed: &[u8]) -> Option<Connection> {
    let (local, peer) = ends(listed)?;
    Some(Connection { local, peer, state: State::from_number(*listed.get(1)?)? })
}

/// Our end and the other, from `struct inet_diag_msg`: family, state, timer, retransmissions, then the identity: ports
/// and addresses in network order.
fn ends(listed: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let family = *listed.first()?;
    let identity = listed.get(4..4 + IDENTITY_SIZE)?;
    let port = |at: usize| Some(u16::from_be_bytes(identity.get(at..at + 2)?.try_into().ok()?));
    let address = |at: usize| match family {
        AF_INET => {
            let octets: [u8; 4] = identity.get(at..at + 4)?.try_into().ok()?;
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        AF_INET6 => {
            let octets: [u8; 16] = identity.get(at..at + 16)?.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
        }
        _ => None,
    };
    Some((SocketAddr::new(address(4)?, port(0)?), SocketAddr::new(address(20)?, port(2)?)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn own_connections_are_listed() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = listener.local_addr().expect("a local address");
            let client = TcpStream::connect(local).expect("a connection");
            let (_server, peer) = listener.accept().expect("its other end");
            assert_eq!(client.local_addr().expect("its address"), peer);
            let wanted = Connection { local, peer, state: State::Established };
            assert!(connections().expect("sock_diag answers").contains(&wanted));
        }
    }

    #[test]
    fn own_listeners_are_listed() {
        use std::os::fd::AsRawFd as _;
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        for (protocol, local, fd) in [
            (Protocol::Tcp, tcp.local_addr(), tcp.as_raw_fd()),
            (Protocol::Udp, udp.local_addr(), udp.as_raw_fd()),
        ] {
            let local = local.expect("a local address");
            let listed = listeners(protocol).expect("sock_diag answers");
            let own = listed.iter().find(|one| one.local == local).expect("ours is among them");
            let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("our own descriptor");
            assert_eq!(link.to_string_lossy(), format!("socket:[{}]", own.inode));
        }
    }

    #[test]
    fn an_ipv4_peer_of_an_ipv6_socket_is_ipv4() {
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let port = listener.local_addr().expect("a local address").port();
        let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let (_server, _) = listener.accept().expect("its other end");
        let peer = client.local_addr().expect("its address");
        let local = SocketAddr::from(([127, 0, 0, 1], port));
        let listed = connections().expect("sock_diag answers");
        assert!(listed.iter().any(|one| one.local == local && one.peer == peer), "{listed:?}");
    }

    #[test]
    fn short_answers_are_refused() {
        for length in 0..52 {
            assert_eq!(parse(&vec![AF_INET; length]), None);
        }
    }
}
