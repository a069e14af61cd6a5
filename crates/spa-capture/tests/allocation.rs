//! Receiving allocates nothing.

mod counting;

use std::net::UdpSocket;

use counting::allocations;
use spa_capture::{Capture, Family, Interfaces, MIN_DATAGRAM, Method};
use spa_tests::in_namespace;

const PORT: u16 = 62201;

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
        let before = allocations();
        let mut bytes = 0;
        for capture in &mut captures {
            while capture.receive(&mut |datagram| bytes += datagram.payload.len()).unwrap().more() {}
        }
        assert_eq!(allocations() - before, 0);
        assert_eq!(bytes, 2 * 100 * MIN_DATAGRAM);
    });
}
