//! Ends what is established: a closed port alone lets it go on.
//!
//! To make conntrack forget a connection is not enough where the server goes on sending: conntrack takes it up again
//! from the middle, as one that the server opened. Our rules accept no answers to such a one, so nothing of the peer
//! comes in; but the server would hold the connection and send into it until it gives up. So the socket is destroyed
//! as well, first, while conntrack still knows the connection that the kernel's reset to the peer belongs to.

use core::fmt;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::netlink;
use spa_proto::{Endpoint, Protocol};

use crate::conntrack::{
    CT_DELETE, CT_GET, PROTO_NUM, TUPLE_ORIG, TUPLE_PROTO, TUPLE_REPLY, nfgenmsg, source, undisturbed,
};
use crate::model::{Family, Opening};
use crate::netlink::{ACK, DUMP, Request, Socket, find};
use crate::sockets::connected;

/// A handshake can come to its end between the look at the sockets and the one at conntrack. After the first round
/// conntrack knows none any more that could, so the second leaves nothing.
const ROUNDS: u32 = 2;
/// `CTA_ZONE`, `linux/netfilter/nfnetlink_conntrack.h`.
const ZONE: u16 = 18;

/// A connection, or what goes back and forth between two UDP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Of this protocol.
    pub protocol: Protocol,
    /// Our end, as the service sees it.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

impl Flow {
    fn is_of(&self, openings: &BTreeSet<Opening>) -> bool {
        let endpoint = Endpoint::new(self.protocol, self.local.port());
        endpoint.is_some_and(|endpoint| openings.contains(&Opening { source: self.peer.ip(), endpoint }))
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} from {}", self.protocol.name(), self.local, self.peer)
    }
}

/// What was ended.
#[derive(Debug, Default)]
pub struct Cut {
    /// Connections that conntrack has forgotten.
    pub connections: usize,
    /// Sockets that were destroyed. A connected UDP socket is one; a UDP socket that serves everybody is left alone.
    pub sockets: usize,
    /// What could not be done.
    pub refused: Vec<Refused>,
}

/// Something that could not be done.
#[derive(Debug)]
pub enum Refused {
    /// The sockets of a protocol could not be listed, so none was destroyed.
    Sockets {
        /// The protocol.
        protocol: Protocol,
        /// Why.
        source: io::Error,
    },
    /// A socket could not be destroyed.
    Socket {
        /// Its connection.
        flow: Flow,
        /// Why.
        source: io::Error,
    },
    /// Conntrack's connections of a family could not be listed, so none was forgotten.
    Entries {
        /// The family.
        family: Family,
        /// Why.
        source: io::Error,
    },
    /// Conntrack could not be made to forget a connection.
    Entry {
        /// The connection.
        flow: Flow,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sockets { protocol, source } => {
                let name = protocol.name();
                write!(f, "the {name} sockets cannot be listed ({source}); try \"modprobe {name}_diag\"")
            }
            Self::Socket { flow, source } if source.kind() == io::ErrorKind::Unsupported => write!(
                f,
                "{flow}: this kernel cannot end it (CONFIG_INET_DIAG_DESTROY is off); nothing more comes in, but the \
                 service holds it until it gives up"
            ),
            Self::Socket { flow, source } => write!(f, "{flow}: the socket is still there: {source}"),
            Self::Entries { family, source } => write!(
                f,
                "the {family} connections cannot be listed ({source}); try \"modprobe nf_conntrack_netlink\""
            ),
            Self::Entry { flow, source } => write!(f, "{flow}: conntrack does not forget it: {source}"),
        }
    }
}

/// Ends every connection between these sources and endpoints, whoever began it and whatever let it in. `own` are this
/// host's addresses: what is only routed through it to the same port elsewhere is left alone.
///
/// Call it when the rules of these grants are gone, or what is ended begins anew. What cannot be done is in the
/// answer, and the rest is done. Where the administrator's rules and not ours close the port (`protect = false`),
/// they decide whether a UDP flow whose server goes on sending comes back.
///
/// Needs CAP_NET_ADMIN. Takes as long as two listings of conntrack's table.
pub fn cut(openings: &BTreeSet<Opening>, own: &[IpAddr]) -> Cut {
    let protocols: BTreeSet<_> = openings.iter().map(|opening| opening.endpoint.protocol()).collect();
    let families: BTreeSet<_> = openings.iter().map(|opening| Family::of(opening.source)).collect();
    let (mut sockets, mut connections) = (BTreeSet::new(), BTreeSet::new());
    let mut refused = Vec::new();
    for _ in 0..ROUNDS {
        refused.clear(); // what the next round cannot do either is said by it
        for protocol in protocols.iter().copied() {
            if let Err(source) = destroy(protocol, openings, &mut sockets, &mut refused) {
                refused.push(Refused::Sockets { protocol, source });
            }
        }
        for family in families.iter().copied() {
            if let Err(source) = forget(family, openings, own, &mut connections, &mut refused) {
                refused.push(Refused::Entries { family, source });
            }
        }
    }
    Cut { connections: connections.len(), sockets: sockets.len(), refused }
}

fn destroy(
    protocol: Protocol,
    openings: &BTreeSet<Opening>,
    done: &mut BTreeSet<Flow>,
    refused: &mut Vec<Refused>,
) -> io::Result<()> {
    let mut socket = Socket::open(netlink::SOCK_DIAG)?;
    for one in undisturbed(|| connected(protocol))? {
        let flow = Flow { protocol, local: one.local, peer: one.peer };
        if !flow.is_of(openings) {
            continue;
        }
        match one.destroy(protocol, &mut socket) {
            Ok(()) => {
                done.insert(flow);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => refused.push(Refused::Socket { flow, source }),
        }
    }
    Ok(())
}

fn forget(
    family: Family,
    openings: &BTreeSet<Opening>,
    own: &[IpAddr],
    done: &mut BTreeSet<Flow>,
    refused: &mut Vec<Refused>,
) -> io::Result<()> {
    let mut socket = Socket::open(netlink::NETFILTER)?;
    let header = nfgenmsg(if family == Family::V4 { 2 } else { 10 });
    let entries = undisturbed(|| {
        let mut entries = Vec::new();
        socket.request(Request::new(CT_GET, DUMP).fixed(&header), |payload| {
            let attributes = payload.get(header.len()..).unwrap_or_default();
            // Without ports, as ICMP, it is nothing of ours.
            let flow = flow_of(attributes, openings).filter(|flow| own.contains(&flow.local.ip()));
            if let Some((flow, original)) = flow.zip(find(attributes, TUPLE_ORIG)) {
                entries.push((flow, original.to_vec(), find(attributes, ZONE).map(<[u8]>::to_vec)));
            }
        })?;
        Ok(entries)
    })?;
    for (flow, original, zone) in entries {
        let request =
            Request::new(CT_DELETE, ACK).fixed(&header).nest(TUPLE_ORIG, |tuple| tuple.fixed(&original));
        let request = match zone {
            Some(zone) => request.attribute(ZONE, &zone),
            None => request,
        };
        match socket.request(request, |_| {}) {
            Ok(()) => {
                done.insert(flow);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => refused.push(Refused::Entry { flow, source }),
        }
    }
    Ok(())
}

/// The flow of an entry that is one of these openings', whichever side conntrack takes for the one that began it. Each
/// tuple has the source of its own direction, so with addresses translated these are the ends that the service sees.
fn flow_of(attributes: &[u8], openings: &BTreeSet<Opening>) -> Option<Flow> {
    let (original, reply) = (find(attributes, TUPLE_ORIG)?, find(attributes, TUPLE_REPLY)?);
    let number = *find(find(original, TUPLE_PROTO)?, PROTO_NUM)?.first()?;
    let protocol = Protocol::from_number(number)?;
    let (begun_by, answered_by) = (source(original)?, source(reply)?);
    let from_peer = Flow { protocol, local: answered_by, peer: begun_by };
    let from_us = Flow { protocol, local: begun_by, peer: answered_by };
    [from_peer, from_us].into_iter().find(|flow| flow.is_of(openings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_destruction_is_named() {
        const EOPNOTSUPP: i32 = 95;
        let address = "192.0.2.7:40000".parse().expect("an address");
        let flow = Flow { protocol: Protocol::Tcp, local: address, peer: address };
        let refused = Refused::Socket { flow, source: io::Error::from_raw_os_error(EOPNOTSUPP) };
        assert!(refused.to_string().contains("CONFIG_INET_DIAG_DESTROY"), "{refused}");
    }
}
