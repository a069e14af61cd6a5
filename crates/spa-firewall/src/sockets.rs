//! The TCP connections of this host, from sock_diag(7). Needs no privilege.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::netlink;

use crate::netlink::{DUMP, Request, Socket};

/// `SOCK_DIAG_BY_FAMILY`, `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
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
    let mut socket = Socket::open(netlink::SOCK_DIAG)?;
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let states: u32 = State::ALL.iter().map(|state| 1 << *state as u32).sum();
        let mut fixed = [0; REQUEST_SIZE];
        fixed[0] = family;
        fixed[1] = IPPROTO_TCP;
        fixed[4..8].copy_from_slice(&states.to_ne_bytes());
        let mut bad = false;
        let answer =
            socket.request(Request::new(BY_FAMILY, DUMP).fixed(&fixed), |payload| match parse(payload) {
                Some(connection) => found.push(connection),
                None => bad = true,
            });
        match answer {
            // A kernel without IPv6 has no such sockets.
            Err(error) if family == AF_INET6 && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(()) if bad => return Err(crate::netlink::malformed()),
            Ok(()) => {}
        }
    }
    Ok(found)
}

/// `struct inet_diag_msg`: family, state, timer, retransmissions, then the identity: ports and addresses in network
/// order.
fn parse(payload: &[u8]) -> Option<Connection> {
    let family = *payload.first()?;
    let state = State::from_number(*payload.get(1)?)?;
    let identity = payload.get(4..4 + IDENTITY_SIZE)?;
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
    Some(Connection {
        local: SocketAddr::new(address(4)?, port(0)?),
        peer: SocketAddr::new(address(20)?, port(2)?),
        state,
    })
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
