//! Keeps the connections from before: what conntrack does not know yet is told to it, before the first drop.
//!
//! Conntrack tracks nothing until the first rule asks for it, and our rules accept only what it calls established in
//! the original direction. So at the very first start each TCP connection to a protected port is entered as one that
//! its peer opened to us. Not for later starts: what was cut must not come back.
//!
//! A connection that this host opened *from* a protected port is entered, or turned round, the same way: its packets
//! come in to that port, and our rules know no other established direction. UDP has no connections to list: its
//! peers knock again.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::netlink;
use spa_proto::{Endpoint, Protocol};

use crate::error::Error;
use crate::netlink::{ACK, CREATE_NEW, Request, Socket, find};
use crate::sockets::{Connection, State, connections};

/// Message types: the conntrack subsystem of nfnetlink, `linux/netfilter/nfnetlink_conntrack.h`.
const CT_NEW: u16 = 0x100;
pub(crate) const CT_GET: u16 = 0x101;
pub(crate) const CT_DELETE: u16 = 0x102;
const CT_GET_STATS: u16 = 0x105;

pub(crate) const TUPLE_ORIG: u16 = 1;
pub(crate) const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const TIMEOUT: u16 = 7;
const TUPLE_IP: u16 = 1;
pub(crate) const TUPLE_PROTO: u16 = 2;
pub(crate) const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
const PROTOINFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
const TCP_FLAGS_ORIGINAL: u16 = 4;
const TCP_FLAGS_REPLY: u16 = 5;

/// Seen both ways, not to be dropped early, in the table: `IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED`.
const ESTABLISHED_STATUS: u32 = 1 << 1 | 1 << 2 | 1 << 3;
/// Do not check sequence numbers against a window whose scale we never saw: flag and mask,
/// `IP_CT_TCP_FLAG_BE_LIBERAL`.
const LIBERAL: [u8; 2] = [0x08, 0x08];

/// How often a listing that was disturbed is begun again.
const DUMP_ATTEMPTS: u32 = 5;

/// What was done for the connections to protected ports.
#[derive(Debug, Default)]
pub struct Adopted {
    /// Unknown to conntrack, and entered.
    pub inserted: usize,
    /// Known already.
    pub known: usize,
    /// Known as opened by us, and turned round.
    pub turned: usize,
    /// These could not be entered, and the first drop will cut them.
    pub failed: Vec<(Connection, io::Error)>,
}

/// Enters every TCP connection to a protected port that conntrack does not know. Loopback ones are left alone: the
/// rules never touch them.
///
/// # Errors
/// [`Error::NoConntrack`] if the kernel has no ctnetlink, [`Error::NotPermitted`] without CAP_NET_ADMIN, and
/// [`Error::Io`] if the sockets cannot be listed. Then protection must not be laid, unless the administrator insists.
pub fn adopt_established(services: &BTreeSet<Endpoint>) -> Result<Adopted, Error> {
    let mut socket = open()?;
    let mut adopted = Adopted::default();
    for connection in
        undisturbed(connections).map_err(|source| Error::Io { doing: "listing TCP connections", source })?
    {
        let port = Endpoint::new(Protocol::Tcp, connection.local.port());
        if !port.is_some_and(|port| services.contains(&port)) || connection.peer.ip().is_loopback() {
            continue;
        }
        match adopt(&mut socket, &connection) {
            Ok(Found::Nothing) => adopted.inserted += 1,
            Ok(Found::FromPeer) => adopted.known += 1,
            Ok(Found::FromUs) => adopted.turned += 1,
            Err(error) => adopted.failed.push((connection, error)),
        }
    }
    Ok(adopted)
}

/// A socket, after a harmless question that only a kernel with ctnetlink answers.
fn open() -> Result<Socket, Error> {
    let asked = Socket::open(netlink::NETFILTER).and_then(|mut socket| {
        socket.request(Request::new(CT_GET_STATS, ACK).fixed(&nfgenmsg(0)), |_| {})?;
        Ok(socket)
    });
    asked.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => {
            Error::NotPermitted { command: "asking conntrack".into(), needs: "CAP_NET_ADMIN" }
        }
        _ => Error::NoConntrack { source },
    })
}

/// Lists, once more whenever a change came in between.
pub(crate) fn undisturbed<T>(mut list: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut left = DUMP_ATTEMPTS;
    loop {
        left -= 1;
        match list() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && left > 0 => {}
            result => return result,
        }
    }
}

/// How conntrack had the connection.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    FromPeer,
    FromUs,
}

fn adopt(socket: &mut Socket, connection: &Connection) -> io::Result<Found> {
    match insert(socket, connection) {
        Ok(()) => return Ok(Found::Nothing),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    if !is_from_us(socket, connection)? {
        return Ok(Found::FromPeer);
    }
    match delete(socket, connection) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match insert(socket, connection) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(Found::FromUs),
    }
}

fn insert(socket: &mut Socket, connection: &Connection) -> io::Result<()> {
    let (state, timeout) = tracked(connection.state);
    let request = Request::new(CT_NEW, ACK | CREATE_NEW)
        .fixed(&nfgenmsg(family(connection)))
        .nest(TUPLE_ORIG, |tuple| fill(tuple, connection.peer, connection.local))
        .nest(TUPLE_REPLY, |tuple| fill(tuple, connection.local, connection.peer))
        .attribute(STATUS, &ESTABLISHED_STATUS.to_be_bytes())
        .attribute(TIMEOUT, &timeout.to_be_bytes())
        .nest(PROTOINFO, |info| {
            info.nest(PROTOINFO_TCP, |tcp| {
                tcp.attribute(TCP_STATE, &[state])
                    .attribute(TCP_FLAGS_ORIGINAL, &LIBERAL)
                    .attribute(TCP_FLAGS_REPLY, &LIBERAL)
            })
        });
    socket.request(request, |_| {})
}

/// Whether the entry that holds the packets from us to the peer says that we opened it. An entry with address
/// translation holds other addresses in front, and is left alone.
fn is_from_us(socket: &mut Socket, connection: &Connection) -> io::Result<bool> {
    let request = Request::new(CT_GET, ACK)
        .fixed(&nfgenmsg(family(connection)))
        .nest(TUPLE_ORIG, |tuple| fill(tuple, connection.local, connection.peer));
    let mut from_us = false;
    let answer = socket.request(request, |payload| {
        let source = payload.get(4..).and_then(|attributes| source(find(attributes, TUPLE_ORIG)?));
        from_us |= source == Some(connection.local);
    });
    match answer {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|()| from_us),
    }
}

fn delete(socket: &mut Socket, connection: &Connection) -> io::Result<()> {
    let request = Request::new(CT_DELETE, ACK)
        .fixed(&nfgenmsg(family(connection)))
        .nest(TUPLE_ORIG, |tuple| fill(tuple, connection.local, connection.peer));
    socket.request(request, |_| {})
}

/// Conntrack's state and its usual timeout in seconds, `net/netfilter/nf_conntrack_proto_tcp.c`.
fn tracked(state: State) -> (u8, u32) {
    match state {
        State::Established => (3, 432_000),
        State::FinWait1 | State::FinWait2 => (4, 120),
        State::CloseWait => (5, 60),
        State::LastAck | State::Closing => (6, 30),
    }
}

/// `struct nfgenmsg`: family, version 0, resource 0.
pub(crate) fn nfgenmsg(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// AF_INET or AF_INET6.
fn family(connection: &Connection) -> u8 {
    if connection.peer.is_ipv4() { 2 } else { 10 }
}

/// The types of source and destination address: `CTA_IP_V4_SRC` and so on.
fn address_types(address: IpAddr) -> (u16, u16) {
    if address.is_ipv4() { (1, 2) } else { (3, 4) }
}

fn fill(tuple: Request, source: SocketAddr, destination: SocketAddr) -> Request {
    let (source_type, destination_type) = address_types(source.ip());
    let with = |request: Request, kind: u16, address: IpAddr| match address {
        IpAddr::V4(v4) => request.attribute(kind, &v4.octets()),
        IpAddr::V6(v6) => request.attribute(kind, &v6.octets()),
    };
    tuple
        .nest(TUPLE_IP, |ip| with(with(ip, source_type, source.ip()), destination_type, destination.ip()))
        .nest(TUPLE_PROTO, |proto| {
            proto
                .attribute(PROTO_NUM, &[Protocol::Tcp.number()])
                .attribute(PROTO_SRC_PORT, &source.port().to_be_bytes())
                .attribute(PROTO_DST_PORT, &destination.port().to_be_bytes())
        })
}

/// The source address and port of a tuple.
pub(crate) fn source(tuple: &[u8]) -> Option<SocketAddr> {
    let ip = find(tuple, TUPLE_IP)?;
    let address = match (find(ip, 1), find(ip, 3)) {
        (Some(octets), _) => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        (None, Some(octets)) => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
        (None, None) => return None,
    };
    let port = find(find(tuple, TUPLE_PROTO)?, PROTO_SRC_PORT)?;
    Some(SocketAddr::new(address, u16::from_be_bytes(port.try_into().ok()?)))
}
