//! The network that the end-to-end tests run on.
//!
//! ```text
//!   namespace "client"                                    namespace "server"
//!   192.0.2.10, 2001:db8::10  ---- bridge "wire" ----  192.0.2.1, 2001:db8::1
//!   namespace "stranger"      ----  (the test's  ----
//!   192.0.2.66, 2001:db8::66        own namespace)
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ns::Namespace;
use crate::sh;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 192.0.2.0/24
    V4,
    /// 2001:db8::/64
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn address(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(192, 0, 2, host).into(),
            // The same digits: ::10 in hexadecimal looks like .10 in decimal.
            Self::V6 => {
                let digits = u16::from(host / 10 * 16 + host % 10);
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, digits).into()
            }
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A machine of the network.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its network namespace, with one interface, `eth0`.
    pub ns: Namespace,
    number: u8,
}

impl Host {
    /// Its address.
    pub fn address(&self, family: Family) -> IpAddr {
        family.address(self.number)
    }

    fn new(name: &str, number: u8) -> Self {
        let host = Self { ns: Namespace::new(name), number };
        host.plug_in();
        host
    }

    /// Makes `eth0`, with an address of its own on the wire that does not change when it is made again.
    pub fn plug_in(&self) {
        let (name, number) = (self.ns.name(), self.number);
        let (v4, v6) = (self.address(Family::V4), self.address(Family::V6));
        sh(&format!(
            "ip link add to-{name} type veth peer name eth0 address 02:00:00:00:00:{number:02} netns {name}
             ip link set to-{name} master wire up
             ip -n {name} addr add {v4}/24 dev eth0
             ip -n {name} addr add {v6}/64 dev eth0 nodad
             ip -n {name} link set eth0 up"
        ));
    }

    /// Deletes `eth0`, with all that was on it.
    pub fn unplug(&self) {
        sh(&format!("ip -n {} link delete eth0", self.ns.name()));
    }

    /// Gives the machine one more address of the subnet, of either family.
    pub fn add_address(&self, address: IpAddr) {
        let flags = if address.is_ipv4() { "/24" } else { "/64 nodad" };
        sh(&format!("ip -n {} addr add {address}{flags} dev eth0", self.ns.name()));
    }
}

/// The drawing above.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Where spa-server, the firewall and the services are.
    pub server: Host,
    /// Who is enrolled and knocks.
    pub client: Host,
    /// Another machine of the same subnet.
    pub stranger: Host,
}

impl Topology {
    /// Builds it; call it inside [`crate::in_namespace`].
    ///
    /// # Panics
    /// If `ip` fails.
    pub fn new() -> Self {
        sh("ip link add wire type bridge && ip link set wire up");
        Self {
            server: Host::new("server", 1),
            client: Host::new("client", 10),
            stranger: Host::new("stranger", 66),
        }
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self::new()
    }
}
