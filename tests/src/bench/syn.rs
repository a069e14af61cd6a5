//! Fresh SYNs from a raw socket, and which of them are answered. connect(2) repeats a dropped SYN only after a second.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto, socket_with,
};
use spa_tests::Host;

/// Between two SYNs: half of it is in every figure.
pub const SPACING: Duration = Duration::from_micros(50);
/// How much later than asked for the kernel may wake us, in nanoseconds; by default it is as long as the spacing.
const TIMER_SLACK: NonZeroU64 = NonZeroU64::MIN;
const HEADER: usize = 20;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

/// A raw TCP socket on a machine, towards one server.
pub struct Prober {
    socket: OwnedFd,
    source: Ipv4Addr,
    server: Ipv4Addr,
    source_port: u16,
}

impl Prober {
    /// On the machine, from its IPv4 address. For the thread that makes it.
    pub fn new(on: &Host, server: IpAddr) -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let raw = || socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::TCP));
        let socket = on.ns.enter(raw).expect("CAP_NET_RAW in the namespace");
        let (IpAddr::V4(source), IpAddr::V4(server)) = (on.address(spa_tests::Family::V4), server) else {
            panic!("the bench runs over IPv4");
        };
        rustix::thread::set_current_timer_slack(Some(TIMER_SLACK)).expect("of our own thread");
        Self { socket, source, server, source_port: 20_000 }
    }

    /// When the first SYN of many to `port` was answered; `None` if none was until `patience` has passed.
    pub fn first_answer(&mut self, port: u16, patience: Duration) -> Option<Instant> {
        self.drain();
        let end = Instant::now() + patience;
        let mut next = Instant::now();
        loop {
            let now = Instant::now();
            if now >= end {
                return None;
            }
            if now >= next {
                self.send(port);
                next = now + SPACING;
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: next.saturating_duration_since(now).as_nanos() as _ };
            // An interruption only brings the next round forward.
            let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&wait));
            while let Some(answered) = self.receive() {
                if answered == port {
                    return Some(Instant::now());
                }
            }
        }
    }

    /// Whether a single SYN is answered within some milliseconds.
    pub fn is_open(&mut self, port: u16) -> bool {
        self.drain();
        self.send(port);
        let wait = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let end = Instant::now() + Duration::from_millis(5);
        while Instant::now() < end {
            let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&wait));
            while let Some(answered) = self.receive() {
                if answered == port {
                    return true;
                }
            }
        }
        false
    }

    /// The server's port of the next SYN/ACK that is waiting.
    fn receive(&self) -> Option<u16> {
        let mut packet = [0_u8; 256];
        while let Ok((length, _)) = recv(&self.socket, &mut packet[..], RecvFlags::empty()) {
            let tcp = usize::from(packet[0] & 0x0f) * 4;
            if length >= tcp + HEADER && packet[tcp + 13] & 0x3f == SYN_ACK {
                return Some(u16::from_be_bytes([packet[tcp], packet[tcp + 1]]));
            }
        }
        None
    }

    fn drain(&self) {
        while self.receive().is_some() {}
    }

    fn send(&mut self, port: u16) {
        self.source_port = if self.source_port >= 60_000 { 20_000 } else { self.source_port + 1 };
        let mut header = [0_u8; HEADER];
        header[..2].copy_from_slice(&self.source_port.to_be_bytes());
        header[2..4].copy_from_slice(&port.to_be_bytes());
        header[4..8].copy_from_slice(&rand::random::<[u8; 4]>());
        header[12] = ((HEADER / 4) << 4) as u8;
        header[13] = SYN;
        header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        let sum = checksum(self.source, self.server, &header);
        header[16..18].copy_from_slice(&sum.to_be_bytes());
        // A full queue loses a SYN; the next one follows.
        let _ = sendto(&self.socket, &header, SendFlags::empty(), &SocketAddrV4::new(self.server, 0));
    }
}

/// RFC 9293, section 3.1: over the pseudo-header too.
fn checksum(source: Ipv4Addr, server: Ipv4Addr, header: &[u8; HEADER]) -> u16 {
    let words = |bytes: &[u8]| {
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>()
    };
    let mut sum = words(&source.octets()) + words(&server.octets()) + 6 + HEADER as u32 + words(header);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
