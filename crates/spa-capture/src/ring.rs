//! The ring: memory shared with the kernel, which writes each packet into the next free slot (`PACKET_RX_RING`,
//! version 2, `Documentation/networking/packet_mmap.rst`). No system call, no copy and no lock a packet here; no
//! buffer made and freed a packet in the kernel.
//!
//! Who may touch a slot: the kernel while its status is 0, this process while `TP_STATUS_USER` is set. The kernel
//! fills slots in order, and the reader empties them in order, so both only ever look at their next one. A full ring
//! loses the newest packets, counted.
//!
//! Version 2 and not 3, which hands over whole blocks: its block timer runs for ever, also on an idle machine, and
//! puts a millisecond at least before each packet. docs/BENCHMARKS.md has the figures.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::slot::{self, Frame, SLOT, STATUS};
use crate::sys;

/// Memory of a ring, in bytes: 2,560 packets where a page has 4 KiB, which is what a fast sender sends in 2 ms, about
/// as long as a reader may wait for a processor that others want too.
pub const RING_BYTES: usize = 2 << 20;

/// Looks in a row that found nothing, although there was a sign of something, until all slots are looked at. Looking
/// in vain is normal for the moment in which another core still fills the next slot.
const LOOKS: u32 = 1_000;

/// How a ring is divided: blocks of one page, since the kernel finds single pages also where memory is in pieces.
#[derive(Clone, Copy)]
struct Shape {
    block: usize,
    slots_of_block: usize,
    slots: usize,
}

impl Shape {
    fn new() -> Self {
        let block = rustix::param::page_size();
        let slots_of_block = block / SLOT;
        Self { block, slots_of_block, slots: RING_BYTES / block * slots_of_block }
    }

    fn bytes(self) -> usize {
        self.slots / self.slots_of_block * self.block
    }

    /// Where a slot is, in bytes from the beginning.
    fn place(self, slot: usize) -> usize {
        slot / self.slots_of_block * self.block + slot % self.slots_of_block * SLOT
    }
}

/// Gives a socket that is not bound yet its ring.
pub(crate) fn make(fd: BorrowedFd<'_>) -> io::Result<()> {
    let shape = Shape::new();
    sys::set_ring_version(fd, sys::RING_VERSION)?;
    sys::make_ring(fd, shape.block, SLOT, shape.slots)
}

/// The ring of a socket, in this process's memory.
pub(crate) struct Ring {
    memory: NonNull<u8>,
    shape: Shape,
    /// The slot that the kernel fills next, or the oldest that it has filled.
    next: usize,
    /// See [`LOOKS`].
    in_vain: u32,
    /// Whether `next` is known to be where the kernel writes: since the first packet.
    in_step: bool,
}

// SAFETY: the memory belongs to this value alone (the kernel apart) until it is dropped, on whatever thread that is.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring that [`make`] gave the socket. Only one process may read a ring at a time.
    ///
    /// The kernel refuses (EINVAL) if the ring has another size than [`make`] gives.
    pub(crate) fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let shape = Shape::new();
        let memory = sys::map_shared(fd, shape.bytes())?;
        let mut ring = Self { memory, shape, next: 0, in_vain: 0, in_step: false };
        // A reader before this one may have left anywhere.
        ring.find();
        Ok(ring)
    }

    /// Gives what is there, at most `most` packets, to `each`, oldest first; returns how many there were. `None` is a
    /// slot of which the header is impossible.
    pub(crate) fn take(&mut self, most: usize, mut each: impl FnMut(Option<Frame<'_>>)) -> usize {
        let mut taken = 0;
        while taken < most && self.is_filled(self.next) {
            // SAFETY: the status says that the kernel is done with the slot, and it was read with Acquire; the slot
            // lies within the mapping (`Shape::place`) and nobody writes to it until it is given back below, when the
            // reference is gone.
            let bytes = unsafe { self.start(self.next).cast::<[u8; SLOT]>().as_ref() };
            each(slot::read(bytes));
            // What was read of the slot is read before the kernel may write again.
            self.status(self.next).store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = (self.next + 1) % self.shape.slots;
            taken += 1;
        }
        if taken > 0 {
            (self.in_vain, self.in_step) = (0, true);
        } else {
            self.in_vain += 1;
            if !self.in_step || self.in_vain == LOOKS {
                self.in_vain = 0;
                self.find();
            }
        }
        taken
    }

    /// Finds the oldest packet, if there is any: the first filled slot behind one that is not.
    ///
    /// Needed where a reader before this one emptied a part of the ring: only the kernel knows which slot it fills
    /// next. Where all are filled any will do: the order does not matter, and the next look in vain finds the rest.
    fn find(&mut self) {
        let slots = self.shape.slots;
        let before = |slot: usize| (slot + slots - 1) % slots;
        let oldest = (0..slots).find(|slot| self.is_filled(*slot) && !self.is_filled(before(*slot)));
        self.next = oldest.unwrap_or(self.next);
    }

    fn is_filled(&self, slot: usize) -> bool {
        self.status(slot).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    fn status(&self, slot: usize) -> &AtomicU32 {
        // SAFETY: the address is inside of the mapping, which lives as long as `self`, and aligned, since slots begin
        // at multiples of SLOT in a page. This process touches it by this function alone, besides reading it as a part
        // of the slot, at a time when nobody writes.
        unsafe { AtomicU32::from_ptr(self.start(slot).as_ptr().add(STATUS).cast::<u32>()) }
    }

    fn start(&self, slot: usize) -> NonNull<u8> {
        // SAFETY: `next` and all callers' slots are below `slots`, so the place is inside of the mapping.
        unsafe { self.memory.add(self.shape.place(slot)) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the memory any more, and it was mapped with this length.
        unsafe { sys::unmap(self.memory, self.shape.bytes()) };
    }
}
