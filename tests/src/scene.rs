//! A whole scene: the network, echo services behind a running spa-server, alice enrolled for ssh.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use crate::probe::{self, Probe, eventually};
use crate::services::{tcp_echo, udp_echo};
use crate::{Client, Family, Host, SPA_PORT, Server, Settings, Topology};

/// How late a grant may end: the kernel's own expiry counts whole seconds and includes the last (FACTS).
pub const CLOSES_WITHIN: Duration = Duration::from_secs(2);

/// See the module. Addresses are of one family; the other is there all the same.
pub struct Scene {
    /// The network.
    pub topology: Topology,
    /// spa-server, running.
    pub server: Server,
    /// alice, on the machine "client"; may open all services.
    pub alice: Client,
    /// What alice was invited with.
    pub invite: String,
    /// The server's address.
    pub address: IpAddr,
    /// Of all addresses.
    pub family: Family,
}

impl Scene {
    /// With echo services on all ports of [`Settings::new`].
    ///
    /// # Panics
    /// If anything does not start.
    pub fn new(settings: &Settings, family: Family) -> Self {
        let topology = Topology::new();
        for port in [22, 80, 443] {
            tcp_echo(&topology.server.ns, port);
        }
        udp_echo(&topology.server.ns, 53);
        Self::on(topology, settings, family)
    }

    /// On a network that has its services already.
    ///
    /// # Panics
    /// If anything does not start.
    pub fn on(topology: Topology, settings: &Settings, family: Family) -> Self {
        let address = topology.server.address(family);
        let mut server = Server::new(&topology, settings);
        let invite = server.enrol("alice", "ssh,web,dns", &address.to_string(), &[]);
        let alice = Client::invited(&topology.client, "alice", &invite);
        server.start();
        Self { topology, server, alice, invite, address, family }
    }

    /// How a TCP port of the server looks from a machine.
    pub fn look(&self, from: &Host, port: u16) -> Probe {
        probe::tcp(&from.ns, self.address, port)
    }

    /// How TCP ports look from machines, tried all at once: silence takes its time.
    pub fn looks(&self, from: &[(&Host, u16)]) -> Vec<Probe> {
        std::thread::scope(|scope| {
            let looks: Vec<_> =
                from.iter().map(|(host, port)| scope.spawn(|| self.look(host, *port))).collect();
            looks.into_iter().map(|look| look.join().expect("a probe does not panic")).collect()
        })
    }

    /// Waits until a port is open from a machine.
    ///
    /// # Panics
    /// If it is not within ten seconds.
    pub fn wait_open(&self, from: &Host, port: u16) {
        eventually(format_args!("port {port} opens"), probe::PATIENCE, || {
            self.look(from, port) == Probe::Open
        });
    }

    /// Waits until alice's machine finds port 22 closed and no rule of a grant is left, as it has to be this long
    /// after.
    ///
    /// # Panics
    /// If that is not so by then.
    pub fn wait_closed(&self, within: Duration) {
        eventually("the grant ends", within, || self.look(&self.topology.client, 22) == Probe::Silent);
    }

    /// Knocks for ssh, looks that it opened, and returns the datagram that did it.
    ///
    /// # Panics
    /// If it does not open.
    pub fn captured_knock(&self) -> Vec<u8> {
        let sniffer = crate::sniff::Sniffer::start(&self.topology.client.ns);
        self.alice.open("ssh");
        self.wait_open(&self.topology.client, 22);
        let mut sent = sniffer.datagrams_to(SPA_PORT);
        assert_eq!(sent.len(), 1, "one knock is one datagram");
        sent.remove(0)
    }

    /// Sends a datagram to the SPA port from a machine.
    pub fn send(&self, from: &Host, datagram: &[u8]) {
        self.socket(from).send(datagram).expect("the network is up");
    }

    /// A UDP socket of a machine, connected to the SPA port.
    pub fn socket(&self, from: &Host) -> UdpSocket {
        let socket = probe::udp_socket(&from.ns, self.address);
        socket.connect((self.address, SPA_PORT)).expect("a route");
        socket
    }
}
