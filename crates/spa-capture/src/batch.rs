//! Receiving many packets with one system call, into buffers made once: where the kernel has no ring for us.

use std::io;
use std::mem::{offset_of, size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use crate::BATCH;
use crate::filter::SNAP;
use crate::slot::Frame;
use crate::sys::NO_LINK;

/// Room for [`BATCH`] packets, the first `filled` of them received by the last call.
pub(crate) struct Batch {
    slots: Box<[Slot]>,
    filled: usize,
}

struct Slot {
    bytes: [u8; SNAP],
    length: usize,
    link: libc::sockaddr_ll,
}

impl Batch {
    pub(crate) fn new() -> Self {
        let slots = (0..BATCH).map(|_| Slot { bytes: [0; SNAP], length: 0, link: NO_LINK }).collect();
        Self { slots, filled: 0 }
    }

    /// Receives what is queued, at most [`BATCH`] packets, without waiting, over those of the call before.
    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.filled = 0;
        // SAFETY: all-zero bytes are a valid iovec and a valid mmsghdr: null pointers and zero lengths.
        let (mut parts, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) = unsafe { zeroed() };
        for ((slot, part), message) in self.slots.iter_mut().zip(&mut parts).zip(&mut messages) {
            slot.link = NO_LINK;
            part.iov_base = slot.bytes.as_mut_ptr().cast();
            part.iov_len = SNAP;
            message.msg_hdr.msg_name = (&raw mut slot.link).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each of the BATCH messages points to one buffer of SNAP bytes and one sockaddr_ll, all of which live
        // in `self.slots` and `parts` beyond the call, are not otherwise used during it, and may hold any bits.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _, // a signed int for glibc, unsigned for musl
                null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            return match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            };
        };
        for (slot, message) in self.slots.iter_mut().zip(&messages).take(received) {
            slot.length = (message.msg_len as usize).min(SNAP);
            if (message.msg_hdr.msg_namelen as usize) < offset_of!(libc::sockaddr_ll, sll_addr) {
                slot.link = NO_LINK;
            }
        }
        self.filled = received;
        Ok(received)
    }

    /// The packets of the last call. One that came without its link-layer address has protocol 0.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.slots.iter().take(self.filled).map(|slot| Frame {
            bytes: &slot.bytes[..slot.length],
            protocol: u16::from_be(slot.link.sll_protocol),
            packet_type: slot.link.sll_pkttype,
            interface: slot.link.sll_ifindex.unsigned_abs(),
        })
    }
}
