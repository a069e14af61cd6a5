//! Receiving allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::UdpSocket;

use spa_capture::{Capture, Family, Interfaces, MIN_DATAGRAM, Method};
use spa_tests::in_namespace;

const PORT: u16 = 62201;

thread_local!(static ALLOCATIONS: Cell<usize> = const { Cell::new(0) });

struct Counting;

// SAFETY: the system's allocator, with a count beside it that itself allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn receiving_allocates_nothing() {
    in_namespace(|| {
        let nowhere = Interfaces::named(["absent0"]).unwrap();
        let open = |method, which: &Interfaces| Capture::open_with(method, Family::V4, PORT, which).unwrap();
        let mut captures = [
            open(Method::Ring, &Interfaces::all()),
            open(Method::Ring, &nowhere),
            open(Method::Calls, &Interfaces::all()),
            open(Method::Calls, &nowhere),
        ];
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            sender.send_to(&[1; MIN_DATAGRAM], ("127.0.0.1", PORT)).unwrap();
        }
        let before = ALLOCATIONS.get();
        let mut bytes = 0;
        for capture in &mut captures {
            while capture.receive(&mut |datagram| bytes += datagram.payload.len()).unwrap().more() {}
        }
        assert_eq!(ALLOCATIONS.get() - before, 0);
        assert_eq!(bytes, 2 * 100 * MIN_DATAGRAM);
    });
}
