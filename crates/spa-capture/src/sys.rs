//! The system calls that have no safe wrapper, each wrapped once. No policy here.

use std::io;
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use libc::{c_int, c_void, socklen_t};

use crate::filter::Instruction;

/// Number of packets that a full receive buffer lost since the last call for this socket (`PACKET_STATISTICS`
/// counts from zero after each reading).
pub(crate) fn take_drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    get(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut statistics)?;
    Ok(statistics.tp_drops)
}

/// The bits of `STA_*` that the kernel has for its clock (adjtimex(2)).
pub(crate) fn clock_status() -> io::Result<c_int> {
    // SAFETY: all zero is a valid `timex` (integers alone), and with `modes` 0 nothing is set.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live `timex` of our own, which the call fills.
    check(unsafe { libc::adjtimex(&raw mut clock) })?;
    Ok(clock.status)
}

/// Asks the kernel not to hand over outgoing packets at all (Linux 4.20 and later).
pub(crate) fn ignore_outgoing(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)
}

/// Forbids every later change of the socket's filter, for all who hold it.
pub(crate) fn lock_filter(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1_i32)
}

/// Whether the filter is locked.
pub(crate) fn is_filter_locked(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut locked: c_int = 0;
    get(fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &mut locked)?;
    Ok(locked != 0)
}

/// Attaches a filter program, in place of the one before.
pub(crate) fn attach_filter(fd: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let mut code: Vec<libc::sock_filter> = program
        .iter()
        .map(|&Instruction { code, jt, jf, k }| libc::sock_filter { code, jt, jf, k })
        .collect();
    let len = u16::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let header = libc::sock_fprog { len, filter: code.as_mut_ptr() };
    // `code` outlives the call, which copies it.
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &header)
}

/// The filter program in use, empty if there is none.
pub(crate) fn filter(fd: BorrowedFd<'_>) -> io::Result<Vec<Instruction>> {
    const EMPTY: libc::sock_filter = libc::sock_filter { code: 0, jt: 0, jf: 0, k: 0 };
    let mut code = vec![EMPTY; libc::BPF_MAXINSNS as usize];
    let mut count = code.len() as socklen_t; // this option alone counts in instructions, not in bytes
    // SAFETY: `code` has room for BPF_MAXINSNS instructions, more than any attached program has, and the kernel
    // writes no more than `count` of them. A sock_filter may hold any bits.
    let status = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_GET_FILTER,
            code.as_mut_ptr().cast::<c_void>(),
            &raw mut count,
        )
    };
    check(status)?;
    code.truncate(count as usize);
    Ok(code.iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect())
}

/// The layout of a ring's slots (`enum tpacket_versions`).
pub(crate) const RING_VERSION: c_int = libc::tpacket_versions::TPACKET_V2 as c_int;

/// Says how a ring that is made later lays out its slots.
pub(crate) fn set_ring_version(fd: BorrowedFd<'_>, version: c_int) -> io::Result<()> {
    set(fd, libc::SOL_PACKET, libc::PACKET_VERSION, &version)
}

/// The layout that was set, 0 (version 1) at first.
pub(crate) fn ring_version(fd: BorrowedFd<'_>) -> io::Result<c_int> {
    let mut version: c_int = 0;
    get(fd, libc::SOL_PACKET, libc::PACKET_VERSION, &mut version)?;
    Ok(version)
}

/// Gives a socket a ring of `slots` slots in whole blocks, all in bytes; its packets go there from now on.
pub(crate) fn make_ring(fd: BorrowedFd<'_>, block: usize, slot: usize, slots: usize) -> io::Result<()> {
    let narrow = |value: usize| u32::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    let request = libc::tpacket_req {
        tp_block_size: narrow(block)?,
        tp_block_nr: narrow(slots / (block / slot))?,
        tp_frame_size: narrow(slot)?,
        tp_frame_nr: narrow(slots)?,
    };
    set(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)
}

/// Maps the first `length` bytes behind a descriptor, shared, to be read and written.
pub(crate) fn map_shared(fd: BorrowedFd<'_>, length: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping, at a place that the kernel chooses, touches no memory that is in use.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast::<u8>()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Takes back what [`map_shared`] gave.
///
/// # Safety
/// `start` and `length` are of one mapping, and nothing refers to it any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, length: usize) {
    // SAFETY: the caller's promise. It cannot fail for a mapping that is there.
    unsafe { libc::munmap(start.as_ptr().cast::<c_void>(), length) };
}

/// Has the kernel draw one socket of the group at random for each packet.
const FANOUT: u32 = libc::PACKET_FANOUT_RND;

/// Puts a bound packet socket into a new fan-out group, which is returned: its number is one that nobody else has.
pub(crate) fn new_fanout(fd: BorrowedFd<'_>) -> io::Result<u16> {
    let request = (FANOUT | libc::PACKET_FANOUT_FLAG_UNIQUEID) << 16;
    set(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, &request)?;
    let mut group: c_int = 0;
    get(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, &mut group)?;
    Ok((group & 0xffff) as u16)
}

/// Puts a bound packet socket into a fan-out group that [`new_fanout`] made.
pub(crate) fn join_fanout(fd: BorrowedFd<'_>, group: u16) -> io::Result<()> {
    set(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, &(u32::from(group) | FANOUT << 16))
}

/// Binds a packet socket to an Ethernet protocol (host order) on all interfaces. From here on it receives.
pub(crate) fn bind(fd: BorrowedFd<'_>, protocol: u16) -> io::Result<()> {
    let mut address = NO_LINK;
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    // SAFETY: `address` is a sockaddr_ll and the length is its size.
    let status = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast::<libc::sockaddr>(),
            size_of::<libc::sockaddr_ll>() as socklen_t,
        )
    };
    check(status)
}

/// What a socket is bound to: Ethernet protocol (host order) and interface index, 0 for all; `None` if it is no
/// packet socket.
pub(crate) fn bound_to(fd: BorrowedFd<'_>) -> io::Result<Option<(u16, c_int)>> {
    let mut address = NO_LINK;
    let mut length = size_of::<libc::sockaddr_ll>() as socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `address`, for which any bits are valid.
    let status = unsafe {
        libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast::<libc::sockaddr>(), &raw mut length)
    };
    check(status)?;
    let is_link = c_int::from(address.sll_family) == libc::AF_PACKET
        && length as usize >= offset_of!(libc::sockaddr_ll, sll_hatype);
    Ok(is_link.then(|| (u16::from_be(address.sll_protocol), address.sll_ifindex)))
}

/// An empty link-layer address; its family 0 is not AF_PACKET.
pub(crate) const NO_LINK: libc::sockaddr_ll = libc::sockaddr_ll {
    sll_family: 0,
    sll_protocol: 0,
    sll_ifindex: 0,
    sll_hatype: 0,
    sll_pkttype: 0,
    sll_halen: 0,
    sll_addr: [0; 8],
};

/// The IPv4 and IPv6 addresses of all interfaces, in the kernel's order.
pub(crate) fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs stores a list at the given place, or fails.
    check(unsafe { libc::getifaddrs(&raw mut list) })?;
    let mut addresses = Vec::new();
    let mut next = list;
    // SAFETY: `next` is null or an entry of the list, which is not freed before the loop ends; ifa_addr is null or
    // a socket address that is as long and as aligned as its family says.
    unsafe {
        while let Some(entry) = next.as_ref() {
            next = entry.ifa_next;
            let Some(address) = entry.ifa_addr.as_ref() else { continue };
            match c_int::from(address.sa_family) {
                libc::AF_INET => {
                    let ipv4 = &*entry.ifa_addr.cast::<libc::sockaddr_in>();
                    addresses.push(Ipv4Addr::from(u32::from_be(ipv4.sin_addr.s_addr)).into());
                }
                libc::AF_INET6 => {
                    let ipv6 = &*entry.ifa_addr.cast::<libc::sockaddr_in6>();
                    addresses.push(Ipv6Addr::from(ipv6.sin6_addr.s6_addr).into());
                }
                _ => {}
            }
        }
        libc::freeifaddrs(list);
    }
    Ok(addresses)
}

fn set<T>(fd: BorrowedFd<'_>, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads size_of::<T>() bytes at `value`, which are there.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast::<c_void>(),
            size_of::<T>() as socklen_t,
        )
    };
    check(status)
}

/// Types without pointers for which any bits are valid.
///
/// # Safety
/// As said.
unsafe trait Plain {}
// SAFETY: an integer.
unsafe impl Plain for c_int {}
// SAFETY: two integers.
unsafe impl Plain for libc::tpacket_stats {}

fn get<T: Plain>(fd: BorrowedFd<'_>, level: c_int, option: c_int, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which is that long; T is Plain.
    let status = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_mut(value).cast::<c_void>(),
            &raw mut length,
        )
    };
    check(status)
}

fn check(status: c_int) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
