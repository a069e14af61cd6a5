//! No packet ever draws a reply: what the stranger's wire shows before, during and after grants.

use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::sniff::{Sniffer, protocol};
use spa_tests::{Family, SPA_PORT, Settings, Variant, for_each_variant_and_family};

for_each_variant_and_family!(nothing_answers_the_stranger);

const PROTECTED: [u16; 3] = [22, 80, 443];

fn nothing_answers_the_stranger(variant: Variant, family: Family) {
    let scene = Scene::new(&Settings::new(variant), family);
    let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
    let sniffer = Sniffer::start(&stranger.ns);
    scan(&scene, &[0x5a; 300]);
    let packet = scene.captured_knock();
    scan(&scene, &packet);
    assert_eq!(scene.look(client, 22), Probe::Open, "the grant was live meanwhile");
    scene.wait_closed(PATIENCE);
    scan(&scene, &packet);
    let answers = answers(&scene, &sniffer);
    assert!(answers.is_empty(), "{answers:?}");
    // The control: a port that nobody protects answers, and that is seen.
    assert_eq!(scene.look(stranger, 81), Probe::Refused);
    assert_eq!(self::answers(&scene, &sniffer).len(), 1);
}

/// Tries every protected port and the SPA port, with valid, short, long and empty datagrams.
fn scan(scene: &Scene, datagram: &[u8]) {
    let stranger = &scene.topology.stranger;
    assert_eq!(scene.looks(&PROTECTED.map(|port| (stranger, port))), [Probe::Silent; 3]);
    assert_eq!(scene.look(stranger, SPA_PORT), Probe::Refused, "a TCP port of the same number is not ours");
    let socket = scene.socket(stranger);
    for bytes in [datagram, &datagram[..100], &[0x33; 1_400], &[]] {
        socket.send(bytes).expect("no ICMP error came back");
    }
    assert_eq!(spa_tests::probe::udp(&stranger.ns, scene.address, 53), Probe::Silent);
    // Later than anything that the datagrams could have drawn.
    eventually("the datagrams are judged", PATIENCE, || scene.server.status().is_object());
}

/// What the server sent to the stranger, but for neighbour discovery and the reset of an unprotected TCP port.
fn answers(scene: &Scene, sniffer: &Sniffer) -> Vec<spa_tests::sniff::Packet> {
    let mut packets = sniffer.packets();
    packets.retain(|packet| {
        packet.source == scene.address
            && !packet.is_neighbour_discovery()
            && !(packet.protocol == protocol::TCP && packet.source_port() == SPA_PORT)
    });
    packets
}
