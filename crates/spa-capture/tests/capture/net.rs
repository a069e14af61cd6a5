//! The test network, senders in it, and waiting for what is captured.

use std::fs::File;
use std::io::{self, Write};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use spa_capture::filter::Instruction;
use spa_capture::{Capture, Family, Interfaces, Method};
use spa_tests::sh;

use crate::packets::{PORT, payload, plain};

pub const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PATIENCE: Duration = Duration::from_secs(10);
/// Marks the payload that ends a test's sequence; on one wire packets keep their order.
pub const LAST: u8 = 0xff;

/// Builds the network drawn in `main.rs`.
pub fn network() {
    sh("ip netns add peer && ip -n peer link set lo up");
    wire();
}

/// Lays the veth pair (again).
pub fn wire() {
    sh("ip link add srv0 address 02:00:00:00:00:01 type veth peer name cli0 address 02:00:00:00:00:02 netns peer
        ip addr add 10.0.0.1/24 dev srv0 && ip addr add fd00::1/64 dev srv0 nodad && ip link set srv0 up
        ip -n peer addr add 10.0.0.2/24 dev cli0 && ip -n peer addr add fd00::2/64 dev cli0 nodad
        ip -n peer link set cli0 up");
    carrier();
}

/// Waits until the output of a command has a word in it.
pub fn wait_for(command: &str, word: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !sh(command).contains(word) {
        assert!(Instant::now() < deadline, "{command}: no {word}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the carrier, which comes a moment after `ip link set up`.
pub fn carrier() {
    wait_for("ip -n peer link show cli0", "LOWER_UP");
    wait_for("ip link show type veth", "LOWER_UP");
}

/// Runs in the namespace "peer"; a socket made there stays there.
pub fn in_peer<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        let peer = File::open("/run/netns/peer").unwrap();
        move_into_link_name_space(peer.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        body()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
}

/// Sends frames of any kind out of an interface.
pub struct Wire(File);

impl Wire {
    /// At the client's end.
    pub fn new() -> Self {
        in_peer(|| Self::at("cli0"))
    }

    /// At an interface of the caller's namespace.
    pub fn at(interface: &str) -> Self {
        let socket = packet_socket(SocketType::RAW);
        let index = rustix::net::netdevice::name_to_index(&socket, interface).unwrap();
        bind(socket.as_fd(), 0, index).unwrap();
        Self(socket.into())
    }

    /// Sends a frame; `kind` is the Ethernet type, with a VLAN tag before it where there is one.
    pub fn frame(&self, to: [u8; 6], kind: &[u8], packet: &[u8]) {
        (&self.0).write_all(&[&to, &CLIENT, kind, packet].concat()).unwrap();
    }

    /// Sends a packet to the server.
    pub fn packet(&self, family: Family, packet: &[u8]) {
        self.frame(SERVER, ethertype(family), packet);
    }

    /// Sends a datagram that has to arrive.
    pub fn right(&self, family: Family, mark: u8) {
        self.packet(family, &plain(family, &payload(mark, 256)));
    }
}

pub fn ethertype(family: Family) -> &'static [u8] {
    match family {
        Family::V4 => &[0x08, 0x00],
        Family::V6 => &[0x86, 0xdd],
    }
}

/// Makes each of the tests two, in a module of its name: `ring` and `calls`, each in namespaces of its own.
macro_rules! for_each_method {
    ($($test:ident),+ $(,)?) => { $(
        mod $test {
            #[test]
            fn ring() {
                spa_tests::in_namespace(|| super::$test(spa_capture::Method::Ring));
            }

            #[test]
            fn calls() {
                spa_tests::in_namespace(|| super::$test(spa_capture::Method::Calls));
            }
        }
    )+ };
}
pub(crate) use for_each_method;

/// Captures on all interfaces.
pub fn capture(method: Method, family: Family) -> Capture {
    capture_on(&Interfaces::all(), method, family)
}

/// Captures on some.
pub fn capture_on(interfaces: &Interfaces, method: Method, family: Family) -> Capture {
    let capture = Capture::open_with(method, family, PORT, interfaces).unwrap();
    assert_eq!(capture.method(), method);
    capture
}

/// What came out of a capture so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// First byte of each payload.
    pub marks: Vec<u8>,
    pub sources: Vec<String>,
    pub interfaces: Vec<u32>,
    pub refused: usize,
    pub elsewhere: usize,
    pub stale: usize,
}

/// Receives until `done`.
pub fn receive(capture: &mut Capture, done: impl Fn(&Seen) -> bool) -> Seen {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Seen::default();
    loop {
        let received = capture
            .receive(&mut |datagram| {
                assert!(datagram.payload.iter().all(|byte| *byte == datagram.payload[0]));
                seen.marks.push(datagram.payload[0]);
                seen.sources.push(datagram.source.ip().to_string());
                seen.interfaces.push(datagram.interface);
            })
            .unwrap();
        seen.refused += received.refused;
        seen.elsewhere += received.elsewhere;
        seen.stale += usize::from(received.stale);
        if received.more() {
            continue;
        }
        if done(&seen) {
            return seen;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "what was waited for did not come: {seen:?}");
        let left = Timespec::try_from(left).unwrap();
        poll(&mut [PollFd::new(&*capture, PollFlags::IN)], Some(&left)).unwrap();
    }
}

/// Receives until the last datagram of a sequence; no packet may have come through the filter wrongly.
pub fn receive_last(capture: &mut Capture) -> Vec<u8> {
    let seen = receive(capture, |seen| seen.marks.contains(&LAST));
    assert_eq!(seen.refused, 0, "the filter let something through");
    seen.marks
}

pub fn packet_socket(kind: SocketType) -> OwnedFd {
    rustix::net::socket_with(AddressFamily::PACKET, kind, SocketFlags::CLOEXEC, None).unwrap()
}

/// Attaches a filter program to any socket.
pub fn attach(fd: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let mut code: Vec<libc::sock_filter> =
        program.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    let header = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &header)
}

pub fn set<T>(fd: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads size_of::<T>() bytes at `value`.
    let status = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const *value).cast(), size_of::<T>() as u32)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Binds a packet socket to a protocol (host order) and an interface.
pub fn bind(fd: BorrowedFd<'_>, protocol: u16, interface: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: interface as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a sockaddr_ll and the length is its size.
    let status =
        unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
