//! One slot of the ring: a pure reading of what the kernel wrote into it, which believes no length and no offset.
//!
//! The layout is version 2 of `Documentation/networking/packet_mmap.rst`: a header, the link-layer address that
//! recvmmsg would have given as the sender's, room, and the packet from its network header on.

use std::mem::{offset_of, size_of};

use crate::filter::SNAP;

/// One packet as the kernel handed it over, from its network header on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) bytes: &'a [u8],
    /// Ethernet protocol, host order.
    pub(crate) protocol: u16,
    /// One of the `PACKET_*` types; `PACKET_HOST` is a frame for this host.
    pub(crate) packet_type: u8,
    pub(crate) interface: u32,
}

/// Bytes of a slot. The packet begins at 80 (the header and the address, 52 bytes, rounded up to 64, and 16), so the
/// longest ends at 724; this is the next multiple of a cache line.
pub(crate) const SLOT: usize = 768;

/// Where the status is, which says whose the slot is.
pub(crate) const STATUS: usize = offset_of!(libc::tpacket2_hdr, tp_status);
const SNAPLEN: usize = offset_of!(libc::tpacket2_hdr, tp_snaplen);
const NET: usize = offset_of!(libc::tpacket2_hdr, tp_net);
/// The address stands behind the header, rounded up to `TPACKET_ALIGNMENT`.
const LINK: usize = libc::TPACKET2_HDRLEN - size_of::<libc::sockaddr_ll>();
const PROTOCOL: usize = LINK + offset_of!(libc::sockaddr_ll, sll_protocol);
const INTERFACE: usize = LINK + offset_of!(libc::sockaddr_ll, sll_ifindex);
const PACKET_TYPE: usize = LINK + offset_of!(libc::sockaddr_ll, sll_pkttype);

const _: () = assert!(SLOT.is_multiple_of(libc::TPACKET_ALIGNMENT));
const _: () = assert!(SLOT >= libc::TPACKET2_HDRLEN.next_multiple_of(libc::TPACKET_ALIGNMENT) + 16 + SNAP);

/// Reads a slot. `None` where the packet would lie outside of it, or over its header, or is longer than the filter
/// lets through.
pub(crate) fn read(slot: &[u8; SLOT]) -> Option<Frame<'_>> {
    let [snaplen, interface] = [SNAPLEN, INTERFACE].map(|at| u32::from_ne_bytes(field(slot, at)));
    let [start, protocol] = [NET, PROTOCOL].map(|at| u16::from_ne_bytes(field(slot, at)));
    let (start, length) = (usize::from(start), usize::try_from(snaplen).ok()?);
    if start < libc::TPACKET2_HDRLEN || length > SNAP {
        return None;
    }
    Some(Frame {
        bytes: slot.get(start..start + length)?,
        protocol: u16::from_be(protocol),
        packet_type: slot[PACKET_TYPE],
        interface,
    })
}

/// Bytes of the header, whose places are constants well inside of it.
fn field<const N: usize>(slot: &[u8; SLOT], at: usize) -> [u8; N] {
    std::array::from_fn(|offset| slot[at + offset])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A slot as the kernel fills it.
    fn slot(net: u16, snaplen: u32, fill: u8) -> [u8; SLOT] {
        let mut slot = [fill; SLOT];
        slot[SNAPLEN..SNAPLEN + 4].copy_from_slice(&snaplen.to_ne_bytes());
        slot[NET..NET + 2].copy_from_slice(&net.to_ne_bytes());
        slot[PROTOCOL..PROTOCOL + 2].copy_from_slice(&0x0800_u16.to_be_bytes());
        slot[INTERFACE..INTERFACE + 4].copy_from_slice(&7_u32.to_ne_bytes());
        slot[PACKET_TYPE] = 0;
        slot
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        let slot = slot(80, 300, 9);
        let expected = Frame { bytes: &[9; 300], protocol: 0x0800, packet_type: 0, interface: 7 };
        assert_eq!(read(&slot), Some(expected));
    }

    #[test]
    fn nothing_outside_of_the_slot_is_read() {
        let longest = SNAP as u32;
        assert!(read(&slot(80, longest, 1)).is_some());
        for (net, snaplen) in
            [(80, longest + 1), (80, u32::MAX), (u16::MAX, 300), (SLOT as u16 - 299, 300), (51, 300), (0, 0)]
        {
            assert_eq!(read(&slot(net, snaplen, 1)), None, "{net} {snaplen}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_header_is_read_within_bounds(
            header in proptest::collection::vec(any::<u8>(), libc::TPACKET2_HDRLEN),
            near in proptest::option::of((any::<u16>(), any::<u32>())),
        ) {
            let mut bytes = [0; SLOT];
            bytes[..header.len()].copy_from_slice(&header);
            if let Some((net, snaplen)) = near {
                // Nearly right, so that the limits themselves are met.
                bytes[NET..NET + 2].copy_from_slice(&(net % 800).to_ne_bytes());
                bytes[SNAPLEN..SNAPLEN + 4].copy_from_slice(&(snaplen % 800).to_ne_bytes());
            }
            if let Some(frame) = read(&bytes) {
                let start = frame.bytes.as_ptr() as usize - bytes.as_ptr() as usize;
                prop_assert!(start >= libc::TPACKET2_HDRLEN && start + frame.bytes.len() <= SLOT);
                prop_assert!(frame.bytes.len() <= SNAP);
            }
        }
    }
}
