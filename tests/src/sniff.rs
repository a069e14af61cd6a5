//! What passes on the wire, seen by a packet socket in a namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use crate::ns::Namespace;
use crate::probe::{PATIENCE, eventually};

const ETH_P_ALL: u16 = 0x0003;
const ETHERNET_HEADER: usize = 14;
const IPV6_HEADER: usize = 40;

/// IP protocol numbers (IANA).
pub mod protocol {
    /// ICMP
    pub const ICMP: u8 = 1;
    /// TCP
    pub const TCP: u8 = 6;
    /// UDP
    pub const UDP: u8 = 17;
    /// ICMPv6
    pub const ICMPV6: u8 = 58;
}

/// An IP packet without IPv6 extension headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From the header.
    pub source: IpAddr,
    /// From the header.
    pub destination: IpAddr,
    /// See [`protocol`].
    pub protocol: u8,
    /// What follows the IP header.
    pub body: Vec<u8>,
}

impl Packet {
    /// Source port of TCP or UDP; 0 for others.
    pub fn source_port(&self) -> u16 {
        self.port(0)
    }

    /// Destination port of TCP or UDP; 0 for others.
    pub fn destination_port(&self) -> u16 {
        self.port(2)
    }

    fn port(&self, at: usize) -> u16 {
        match (self.protocol, self.body.get(at..at + 2)) {
            (protocol::TCP | protocol::UDP, Some(port)) => u16::from_be_bytes([port[0], port[1]]),
            _ => 0,
        }
    }

    /// The payload of a UDP datagram.
    pub fn udp_payload(&self) -> Option<&[u8]> {
        (self.protocol == protocol::UDP).then(|| self.body.get(8..)).flatten()
    }

    /// Whether it is IPv6's neighbour discovery (RFC 4861), the counterpart of ARP.
    pub fn is_neighbour_discovery(&self) -> bool {
        self.protocol == protocol::ICMPV6 && self.body.first().is_some_and(|kind| (133..=137).contains(kind))
    }
}

/// Records every IP packet that its namespace sends or receives, until it is dropped.
pub struct Sniffer {
    seen: Arc<Mutex<Vec<(Instant, Packet)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    marker: UdpSocket,
}

impl Sniffer {
    /// Listens on all interfaces of the namespace; what passes after this call is seen.
    ///
    /// # Panics
    /// Without `CAP_NET_RAW` there.
    pub fn start(ns: &Namespace) -> Self {
        let all = Protocol::from_raw(NonZeroU32::from(
            std::num::NonZeroU16::new(ETH_P_ALL.to_be()).expect("it is not zero"),
        ));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = ns.enter(|| socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(all)));
        let socket = socket.expect("a packet socket");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (into, until) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut frame = vec![0_u8; 65_536];
            let tick = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            while !until.load(Ordering::Relaxed) {
                // An interruption only brings the next round forward.
                let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&tick));
                while let Ok((length, _)) = recv(socket.as_fd(), &mut frame[..], RecvFlags::empty()) {
                    let packet = parse(&frame[..length]).map(|packet| (Instant::now(), packet));
                    into.lock().expect("no panic while locked").extend(packet);
                }
            }
        });
        let marker = ns.enter(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("lo is up"));
        Self { seen, stop, thread: Some(thread), marker }
    }

    /// Everything that passed before this call, for certain.
    ///
    /// # Panics
    /// If what this call itself sends over `lo` is not seen.
    pub fn packets(&self) -> Vec<Packet> {
        self.timed().into_iter().map(|(_, packet)| packet).collect()
    }

    fn timed(&self) -> Vec<(Instant, Packet)> {
        let address = self.marker.local_addr().expect("bound");
        let port = address.port();
        let now = || self.seen.lock().expect("no panic while locked").clone();
        let markers = |packets: &[(Instant, Packet)]| {
            packets.iter().filter(|(_, packet)| packet.source_port() == port).count()
        };
        let before = markers(&now());
        self.marker.send_to(&[], address).expect("lo is up");
        eventually("the sniffer sees its marker", PATIENCE, || markers(&now()) > before);
        let mut packets = now();
        packets.retain(|(_, packet)| packet.source_port() != port || !packet.source.is_loopback());
        packets
    }

    /// When the first packet to a port was seen.
    pub fn first_to(&self, port: u16) -> Option<Instant> {
        self.timed().into_iter().find(|(_, packet)| packet.destination_port() == port).map(|(when, _)| when)
    }

    /// Payloads of the datagrams to a UDP port.
    pub fn datagrams_to(&self, port: u16) -> Vec<Vec<u8>> {
        let packets = self.packets();
        let to_port = packets.iter().filter(|packet| packet.destination_port() == port);
        to_port.filter_map(|packet| packet.udp_payload().map(<[u8]>::to_vec)).collect()
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

fn parse(frame: &[u8]) -> Option<Packet> {
    let kind = frame.get(12..ETHERNET_HEADER)?;
    let packet = &frame[ETHERNET_HEADER..];
    let array = |from: usize| -> Option<[u8; 16]> { packet.get(from..from + 16)?.try_into().ok() };
    match kind {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            let address = |from: usize| -> Option<Ipv4Addr> {
                Some(<[u8; 4]>::try_from(packet.get(from..from + 4)?).ok()?.into())
            };
            Some(Packet {
                source: address(12)?.into(),
                destination: address(16)?.into(),
                protocol: *packet.get(9)?,
                body: packet.get(header..length)?.to_vec(),
            })
        }
        [0x86, 0xdd] => Some(Packet {
            source: Ipv6Addr::from(array(8)?).into(),
            destination: Ipv6Addr::from(array(24)?).into(),
            protocol: *packet.get(6)?,
            body: packet.get(IPV6_HEADER..)?.to_vec(),
        }),
        _ => None,
    }
}
