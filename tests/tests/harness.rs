//! The ground itself: what the other tests see with is shown to see.

use spa_tests::probe::{self, Probe};
use spa_tests::services::{tcp_echo, udp_echo};
use spa_tests::sniff::{Sniffer, protocol};
use spa_tests::{Family, Sshd, Topology, in_namespace, succeeded};

/// Open, refused and silent are told apart, and a refusal is seen on the wire.
#[test]
fn probes_and_sniffer_see() {
    in_namespace(|| {
        let topology = Topology::new();
        let (server, stranger) = (&topology.server, &topology.stranger);
        tcp_echo(&server.ns, 80);
        udp_echo(&server.ns, 53);
        server.ns.sh("iptables-nft -A INPUT -p tcp --dport 81 -j DROP; ip6tables-nft -A INPUT -p tcp --dport 81 -j DROP");
        for family in Family::BOTH {
            let address = server.address(family);
            let sniffer = Sniffer::start(&stranger.ns);
            assert_eq!(probe::tcp(&stranger.ns, address, 80), Probe::Open);
            assert_eq!(probe::tcp(&stranger.ns, address, 81), Probe::Silent);
            assert_eq!(probe::tcp(&stranger.ns, address, 82), Probe::Refused);
            assert_eq!(probe::udp(&stranger.ns, address, 53), Probe::Open);
            assert_eq!(probe::udp(&stranger.ns, address, 54), Probe::Refused);
            let answers = |port: u16| {
                let packets = sniffer.packets();
                packets
                    .iter()
                    .filter(|packet| packet.source == address && packet.source_port() == port)
                    .count()
            };
            assert!(answers(82) > 0, "the reset is seen");
            assert_eq!(answers(81), 0);
            let icmp = |packet: &spa_tests::sniff::Packet| {
                packet.source == address
                    && !packet.is_neighbour_discovery()
                    && matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6)
            };
            assert!(sniffer.packets().iter().any(icmp), "the ICMP error of port 54 is seen");
        }
    });
}

/// sshd runs as root and as an ordinary user, and lets in who has the key.
#[test]
fn sshd_lets_in() {
    in_namespace(|| {
        let topology = Topology::new();
        let sshd = Sshd::start(&topology);
        for family in Family::BOTH {
            let address = topology.server.address(family).to_string();
            let output =
                sshd.ssh(&topology.client.ns).args([&address, "echo in"]).output().expect("ssh runs");
            assert_eq!(succeeded("ssh", &output), "in\n");
        }
    });
}
