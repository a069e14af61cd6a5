//! Capture of the datagrams sent to one closed UDP port, below the host's firewall. Linux only.
//!
//! Nothing is bound to the port: to the network it is as closed as any other. An `AF_PACKET` tap sees each packet
//! where the network device hands it over, before the packet filter, so a datagram that INPUT drops is seen all the
//! same. (A raw `IPPROTO_UDP` socket sits behind INPUT and would see nothing.)
//!
//! The rules, and where each is kept:
//!
//! - **No unfiltered moment.** The socket is made with protocol 0, which receives nothing; the filter is attached
//!   and locked (`SO_LOCK_FILTER`); only then is the socket bound to its protocol. Nobody who holds the descriptor
//!   later, an unprivileged receiver above all, can replace the filter. ([`Capture::open`])
//! - **The kernel refuses junk.** A classic BPF program passes only whole, unfragmented UDP datagrams to the port,
//!   with a payload of [`MIN_DATAGRAM`] to [`MAX_DATAGRAM`] bytes, addressed to this host's MAC address. All else
//!   costs no copy and no wake-up. ([`filter`])
//! - **User space believes nothing.** Every header is parsed again by a pure function that gives the same verdict as
//!   the filter for any bytes whatever. ([`packet`])
//! - **Packet type HOST only.** A frame for another MAC address, a broadcast, a multicast, an outgoing packet, or a
//!   frame with the tag of a VLAN that this host does not have (the kernel marks it OTHERHOST and takes the tag off)
//!   is not for us. A VLAN that the host does have arrives on that VLAN's own interface. Promiscuous mode is never
//!   asked for.
//! - **No fragments, no IPv6 extension headers.** A packet of ours fits every IPv6 link and its sender adds no
//!   headers, so only plain ones are taken: nothing is reassembled and no chain of headers is walked.
//! - **Checksums are not verified.** Between virtual machines, containers and on `lo` the UDP checksum is left to
//!   hardware that never comes, and arrives wrong. The packet's own authentication is much stronger.
//! - **One datagram, one delivery.** One socket a family (or a group that shares its datagrams, [`Fanout`]), for `ETH_P_IP` and `ETH_P_IPV6` rather than `ETH_P_ALL`,
//!   bound to no interface: once also on `lo` and through bridges, and it survives interfaces that are deleted and
//!   made again. Which interfaces count is decided in user space, since the locked filter cannot change
//!   ([`Interfaces`]).
//!
//! What is left to the caller: whether the destination is an address of this host ([`local_addresses`]), and all
//! that concerns the source, which may be forged.
//!
//! Known limit: where a device merges datagrams of one flow (UDP GRO for forwarding, off by default), two small
//! knocks that arrive together from one source port become one packet, which fails its authentication.
//!
//! - **No work a packet that can be left out.** The kernel writes packets into memory that both share (a ring,
//!   [`Method::Ring`]); where it refuses that, `recvmmsg` fetches up to [`BATCH`] with one call ([`Method::Calls`]).
//!
//! System calls after set-up: [`Capture::receive`] makes none with a ring, else `recvmmsg` alone; [`Capture::drops`]
//! `getsockopt` alone. Neither reads /proc nor needs any capability.

mod addresses;
mod batch;
mod clock;
mod error;
mod fanout;
pub mod filter;
mod interfaces;
mod pace;
pub mod packet;
mod ring;
mod slot;
mod socket;
mod sys;

pub use addresses::local_addresses;
pub use clock::clock_is_synchronized;
pub use error::CaptureError;
pub use fanout::Fanout;
pub use interfaces::{Interfaces, MAX_INTERFACES};
pub use pace::Pace;
pub use ring::RING_BYTES;
pub use socket::{BATCH, Capture, Datagram, Method, Received};

/// Least UDP payload that passes, in bytes (DESIGN, section 3: the smallest padded packet).
pub const MIN_DATAGRAM: usize = 256;
/// Greatest UDP payload that passes, in bytes: the largest packet of version 1 is 544, and some room.
pub const MAX_DATAGRAM: usize = 576;

/// The network protocol that one [`Capture`] receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4, `ETH_P_IP`.
    V4,
    /// IPv6, `ETH_P_IPV6`.
    V6,
}

impl Family {
    /// The Ethernet protocol number, in host order.
    const fn ethertype(self) -> u16 {
        match self {
            Self::V4 => libc::ETH_P_IP as u16,
            Self::V6 => libc::ETH_P_IPV6 as u16,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
