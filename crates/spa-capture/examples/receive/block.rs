//! TPACKET_V3, for comparison alone: enough to walk the blocks of a ring on a kernel that is trusted.

use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use spa_capture::packet::parse_ipv4;

const BLOCK: usize = 1 << 16;
const BLOCKS: usize = 16;
/// The least that the kernel takes.
const TIMER_MS: u32 = 1;

/// A ring of blocks.
pub struct Blocks {
    fd: OwnedFd,
    memory: *mut u8,
    next: usize,
}

// SAFETY: the mapping belongs to this value alone and is never moved.
unsafe impl Send for Blocks {}

impl Blocks {
    /// Gives a capture socket a ring of as many bytes as ours has.
    pub fn new(fd: OwnedFd) -> Self {
        set(&fd, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as i32));
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK as u32,
            tp_block_nr: BLOCKS as u32,
            tp_frame_size: 2048,
            tp_frame_nr: (BLOCK / 2048 * BLOCKS) as u32,
            tp_retire_blk_tov: TIMER_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(&fd, libc::PACKET_RX_RING, &request);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), BLOCK * BLOCKS, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        assert_ne!(memory, libc::MAP_FAILED);
        Self { fd, memory: memory.cast(), next: 0 }
    }

    /// Gives the payloads of all blocks that are ready.
    pub fn take(&mut self, mut each: impl FnMut(&[u8])) {
        const HEADER: usize = offset_of!(libc::tpacket_block_desc, hdr);
        loop {
            // SAFETY: inside of the mapping, and aligned as the kernel aligns it.
            let (block, status) = unsafe {
                let block = self.memory.add(self.next * BLOCK);
                let at = HEADER + offset_of!(libc::tpacket_hdr_v1, block_status);
                (block, AtomicU32::from_ptr(block.add(at).cast()))
            };
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                return;
            }
            // SAFETY: the kernel has handed the block over, and its offsets are right.
            unsafe {
                let header = &*block.add(HEADER).cast::<libc::tpacket_hdr_v1>();
                let mut at = block.add(header.offset_to_first_pkt as usize);
                for _ in 0..header.num_pkts {
                    let packet = &*at.cast::<libc::tpacket3_hdr>();
                    let bytes = std::slice::from_raw_parts(
                        at.add(usize::from(packet.tp_net)),
                        packet.tp_snaplen as usize,
                    );
                    each(parse_ipv4(bytes).unwrap().payload);
                    at = at.add(packet.tp_next_offset as usize);
                }
            }
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = (self.next + 1) % BLOCKS;
        }
    }
}

impl AsFd for Blocks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more.
        unsafe { libc::munmap(self.memory.cast(), BLOCK * BLOCKS) };
    }
}

fn set<T>(fd: &OwnedFd, option: i32, value: &T) {
    // SAFETY: the kernel reads size_of::<T>() bytes at `value`.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as u32,
        )
    };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
}
