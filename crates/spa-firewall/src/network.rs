//! Interfaces, addresses and routes of this host, from rtnetlink(7), and who listens, from sock_diag(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::{ACK, DUMP, Request, Socket, find, malformed};

pub use crate::sockets::{Listener, listeners};

/// `RTM_GETLINK`, `RTM_GETADDR`, `RTM_GETROUTE`, `linux/rtnetlink.h`.
const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
/// `IFF_UP`, `IFF_LOOPBACK`, `IFF_RUNNING`, `linux/if.h`.
const UP: u32 = 0x1;
const LOOPBACK: u32 = 0x8;
const RUNNING: u32 = 0x40;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// It was set up.
    pub is_up: bool,
    /// Its cable is plugged in, or what stands for that.
    pub is_running: bool,
    /// It is `lo`.
    pub is_loopback: bool,
    /// Its addresses, each with the length of its network's prefix in bits.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// All interfaces.
///
/// # Errors
/// Those of netlink.
pub fn links() -> io::Result<Vec<Link>> {
    let mut socket = Socket::open(None)?;
    let mut links = Vec::new();
    let mut bad = false;
    socket.request(Request::new(GET_LINK, DUMP).fixed(&[0; 16]), |payload| match link(payload) {
        Some(link) => links.push(link),
        None => bad = true,
    })?;
    socket.request(Request::new(GET_ADDRESS, DUMP).fixed(&[0; 8]), |payload| match address(payload) {
        Some((index, address, prefix)) => {
            let link = links.iter_mut().find(|link: &&mut Link| link.index == index);
            link.into_iter().for_each(|link| link.addresses.push((address, prefix)));
        }
        None => bad = true,
    })?;
    if bad { Err(malformed()) } else { Ok(links) }
}

/// The number of the interface by which packets to an address leave; `None` if there is no way.
///
/// # Errors
/// Those of netlink.
pub fn route_to(address: IpAddr) -> io::Result<Option<u32>> {
    const TO: u16 = 1;
    const BY: u16 = 4;
    const NO_WAY: [rustix::io::Errno; 4] = [
        rustix::io::Errno::NETUNREACH,
        rustix::io::Errno::HOSTUNREACH,
        rustix::io::Errno::INVAL,
        rustix::io::Errno::ACCESS,
    ];
    let (family, octets) = match address {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    };
    let mut fixed = [0; 12];
    (fixed[0], fixed[1]) = (family, octets.len() as u8 * 8);
    let mut by = None;
    let request = Request::new(GET_ROUTE, ACK).fixed(&fixed).attribute(TO, &octets);
    let answer = Socket::open(None)?.request(request, |payload| {
        let bytes = payload.get(12..).and_then(|attributes| find(attributes, BY));
        by = bytes.and_then(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)));
    });
    match answer {
        Ok(()) => Ok(by),
        Err(error) if NO_WAY.iter().any(|no| error.raw_os_error() == Some(no.raw_os_error())) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `struct ifinfomsg`: family, type, index, flags.
fn link(payload: &[u8]) -> Option<Link> {
    const NAME: u16 = 3;
    let number = |at: usize| Some(u32::from_ne_bytes(payload.get(at..at + 4)?.try_into().ok()?));
    let (index, flags) = (number(4)?, number(8)?);
    let name = String::from_utf8_lossy(find(payload.get(16..)?, NAME)?).trim_end_matches('\0').to_owned();
    let is = |flag| flags & flag != 0;
    Some(Link {
        name,
        index,
        is_up: is(UP),
        is_running: is(RUNNING),
        is_loopback: is(LOOPBACK),
        addresses: Vec::new(),
    })
}

/// `struct ifaddrmsg`: family, prefix, flags, scope, index. The local end of a point-to-point link is an attribute of
/// its own.
fn address(payload: &[u8]) -> Option<(u32, IpAddr, u8)> {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
    let attributes = payload.get(8..)?;
    let bytes = find(attributes, LOCAL).or_else(|| find(attributes, ADDRESS))?;
    let address = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some((index, address, *payload.get(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_and_routed_to() {
        let links = links().expect("rtnetlink answers");
        let lo = links.iter().find(|link| link.is_loopback).expect("every namespace has one");
        assert_eq!(lo.name, "lo");
        if lo.is_up {
            let own = IpAddr::from([127, 0, 0, 1]);
            assert!(lo.addresses.contains(&(own, 8)), "{lo:?}");
            assert_eq!(route_to(own).expect("rtnetlink answers"), Some(lo.index));
        }
    }
}
