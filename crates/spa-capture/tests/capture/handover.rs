//! The socket in other hands: locked, checked when taken over, and alive without privileges.

use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::SocketType;
use spa_capture::filter::program;
use spa_capture::{Capture, CaptureError, Family, Method};

use crate::net::{
    LAST, Wire, attach, bind, capture, for_each_method, network, packet_socket, receive_last, set,
};
use crate::packets::PORT;

for_each_method!(
    the_filter_cannot_be_changed,
    works_on_without_capabilities,
    only_a_capture_socket_is_taken_over,
);

/// Takes every capability from the calling thread, for good.
fn drop_capabilities() {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let none = [0_u32; 6];
    // SAFETY: the kernel reads a header of two words and, in version 3, two structures of three words.
    let status = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(status, 0);
}

fn the_filter_cannot_be_changed(method: Method) {
    let capture = capture(method, Family::V4);
    let other = program(Family::V4, PORT + 1);
    assert_eq!(attach(capture.as_fd(), &other).unwrap_err().raw_os_error(), Some(libc::EPERM));
    let off = |option| set(capture.as_fd(), libc::SOL_SOCKET, option, &0_i32).unwrap_err().raw_os_error();
    assert_eq!(off(libc::SO_DETACH_FILTER), Some(libc::EPERM));
    assert_eq!(off(libc::SO_LOCK_FILTER), Some(libc::EPERM));
}

fn works_on_without_capabilities(method: Method) {
    network();
    let wire = Wire::new();
    let fds = [Family::V4, Family::V6].map(|family| (family, capture(method, family).into_fd()));
    let receiver = std::thread::spawn(move || {
        drop_capabilities();
        for (family, fd) in fds {
            let mut capture = Capture::from_fd(fd, family, PORT, None).unwrap();
            wire.right(family, LAST);
            assert_eq!(receive_last(&mut capture), [LAST]);
            assert_eq!(capture.drops().unwrap(), 0);
        }
    });
    receiver.join().unwrap();
}

#[test]
fn a_missing_capability_is_told_apart() {
    std::thread::spawn(|| {
        drop_capabilities();
        let error = Capture::open(Family::V4, PORT, &spa_capture::Interfaces::all()).unwrap_err();
        assert!(matches!(error, CaptureError::NotPermitted { .. }), "{error:?}");
        assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
    })
    .join()
    .unwrap();
}

/// A packet socket bound to a protocol, without a filter.
fn bare(kind: SocketType, protocol: i32) -> OwnedFd {
    let fd = packet_socket(kind);
    bind(fd.as_fd(), protocol as u16, 0).unwrap();
    fd
}

/// The same with a locked filter for the port.
fn locked(kind: SocketType, protocol: i32, port: u16) -> OwnedFd {
    let fd = bare(kind, protocol);
    attach(fd.as_fd(), &program(Family::V4, port)).unwrap();
    set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1_i32).unwrap();
    fd
}

fn only_a_capture_socket_is_taken_over(method: Method) {
    let to_lo = packet_socket(SocketType::DGRAM);
    bind(to_lo.as_fd(), libc::ETH_P_IP as u16, 1).unwrap();
    let unlocked = bare(SocketType::DGRAM, libc::ETH_P_IP);
    attach(unlocked.as_fd(), &program(Family::V4, PORT)).unwrap();
    let foreign: [(&str, OwnedFd); 8] = [
        ("a UDP socket", UdpSocket::bind("127.0.0.1:0").unwrap().into()),
        ("with link headers", locked(SocketType::RAW, libc::ETH_P_IP, PORT)),
        ("of every protocol", locked(SocketType::DGRAM, libc::ETH_P_ALL, PORT)),
        ("of the other family", capture(method, Family::V6).into_fd()),
        ("of one interface", to_lo),
        ("without a filter", bare(SocketType::DGRAM, libc::ETH_P_IP)),
        ("with a filter that is not locked", unlocked),
        ("for another port", locked(SocketType::DGRAM, libc::ETH_P_IP, PORT + 1)),
    ];
    for (name, fd) in foreign {
        let taken = Capture::from_fd(fd, Family::V4, PORT, None);
        assert!(matches!(taken, Err(CaptureError::Foreign { .. })), "{name}: {taken:?}");
    }
    let right = locked(SocketType::DGRAM, libc::ETH_P_IP, PORT);
    assert!(Capture::from_fd(right, Family::V4, PORT, None).is_ok());
}
