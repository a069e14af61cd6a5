//! What listens on this machine, and what to call it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;

use spa_firewall::Listener;
use spa_proto::{Endpoint, Protocol, ServiceName};

use crate::error::{Exit, Failure, Outcome};

/// Names of usual services by their ports, as people say them. A UDP port is proposed only if it is here: most open
/// UDP sockets are of clients (DHCP, NTP, name look-ups), and break when they are protected.
const USUAL: [(&str, Protocol, u16); 36] = [
    ("ssh", Protocol::Tcp, 22),
    ("ftp", Protocol::Tcp, 21),
    ("telnet", Protocol::Tcp, 23),
    ("smtp", Protocol::Tcp, 25),
    ("dns", Protocol::Tcp, 53),
    ("dns", Protocol::Udp, 53),
    ("http", Protocol::Tcp, 80),
    ("pop3", Protocol::Tcp, 110),
    ("imap", Protocol::Tcp, 143),
    ("ldap", Protocol::Tcp, 389),
    ("https", Protocol::Tcp, 443),
    ("http3", Protocol::Udp, 443),
    ("smb", Protocol::Tcp, 445),
    ("smtps", Protocol::Tcp, 465),
    ("ipsec", Protocol::Udp, 500),
    ("submission", Protocol::Tcp, 587),
    ("ldaps", Protocol::Tcp, 636),
    ("rsync", Protocol::Tcp, 873),
    ("imaps", Protocol::Tcp, 993),
    ("pop3s", Protocol::Tcp, 995),
    ("openvpn", Protocol::Tcp, 1194),
    ("openvpn", Protocol::Udp, 1194),
    ("mqtt", Protocol::Tcp, 1883),
    ("nfs", Protocol::Tcp, 2049),
    ("mysql", Protocol::Tcp, 3306),
    ("rdp", Protocol::Tcp, 3389),
    ("ipsec-nat", Protocol::Udp, 4500),
    ("postgresql", Protocol::Tcp, 5432),
    ("vnc", Protocol::Tcp, 5900),
    ("redis", Protocol::Tcp, 6379),
    ("kubernetes", Protocol::Tcp, 6443),
    ("proxmox", Protocol::Tcp, 8006),
    ("cockpit", Protocol::Tcp, 9090),
    ("prometheus", Protocol::Tcp, 9100),
    ("mongodb", Protocol::Tcp, 27017),
    ("wireguard", Protocol::Udp, 51820),
];
/// The service that is proposed first, and the program that is it on whatever port.
const SSH: (&str, &str) = ("ssh", "sshd");

/// Something that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What to call it: unique among those found.
    pub name: ServiceName,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The program, where it can be seen.
    pub program: Option<String>,
}

/// What listens to others than this machine itself, ssh first, then by name.
///
/// # Errors
/// Where the kernel does not say.
pub fn look() -> Outcome<Vec<Found>> {
    let failed = |error| Failure::new(Exit::System, format_args!("cannot list what listens here: {error}"));
    let mut listeners = spa_firewall::listeners(Protocol::Tcp).map_err(failed)?;
    listeners.extend(spa_firewall::listeners(Protocol::Udp).map_err(failed)?);
    Ok(name_all(&listeners, &programs(Path::new("/proc"))))
}

/// The endpoint of a usual service, by its name.
pub fn usual(name: &str) -> Option<Endpoint> {
    let (_, protocol, port) = USUAL.iter().find(|(usual, ..)| *usual == name)?;
    Endpoint::new(*protocol, *port)
}

fn name_all(listeners: &[Listener], programs: &HashMap<u32, String>) -> Vec<Found> {
    let mut by_endpoint: BTreeMap<Endpoint, Option<String>> = BTreeMap::new();
    for listener in listeners.iter().filter(|listener| !is_local(listener.local.ip())) {
        let Some(endpoint) = Endpoint::new(listener.protocol, listener.local.port()) else { continue };
        let program = by_endpoint.entry(endpoint).or_default();
        *program = program.take().or_else(|| programs.get(&listener.inode).cloned());
    }
    let mut found: Vec<Found> = Vec::new();
    for (endpoint, program) in by_endpoint {
        let Some(name) = name_of(endpoint, program.as_deref()) else { continue };
        let taken = |name: &ServiceName| found.iter().any(|other| other.name == *name);
        // As "ssh-2222" for a second one.
        let numbered = || format!("{name}-{}", endpoint.port()).parse().ok();
        if let Some(name) = Some(name.clone()).filter(|name| !taken(name)).or_else(numbered) {
            found.push(Found { name, endpoint, program });
        }
    }
    found.sort_by_key(|one| (!one.name.as_str().starts_with(SSH.0), one.name.clone()));
    found
}

fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// By the program if that is sshd, by the port where it is a usual one, else by the program; `None` for what is not
/// proposed.
fn name_of(endpoint: Endpoint, program: Option<&str>) -> Option<ServiceName> {
    let at = (endpoint.protocol(), endpoint.port());
    let usual = USUAL.iter().find(|(_, protocol, port)| (*protocol, *port) == at).map(|(name, ..)| *name);
    if program == Some(SSH.1) {
        return SSH.0.parse().ok();
    }
    if let Some(name) = usual {
        return name.parse().ok();
    }
    if endpoint.protocol() == Protocol::Udp {
        return None;
    }
    let word = |program: &str| {
        let kept = |byte: &char| byte.is_ascii_alphanumeric() || *byte == '-';
        program.chars().filter(kept).collect::<String>().to_ascii_lowercase()
    };
    let by_program = program.and_then(|program| word(program).parse().ok());
    by_program.or_else(|| format!("tcp-{}", endpoint.port()).parse().ok())
}

/// The programs that hold sockets, by the sockets' inodes; of those that we may look at.
fn programs(proc: &Path) -> HashMap<u32, String> {
    let mut programs = HashMap::new();
    for process in std::fs::read_dir(proc).into_iter().flatten().flatten() {
        let path = process.path();
        let Ok(descriptors) = std::fs::read_dir(path.join("fd")) else { continue }; // no process, or not ours to see
        let Ok(name) = std::fs::read_to_string(path.join("comm")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                programs.insert(inode, printable(name.trim()));
            }
        }
    }
    programs
}

/// A process can call itself anything.
fn printable(name: &str) -> String {
    name.chars().filter(|character| character.is_ascii_graphic()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(protocol: Protocol, local: &str, inode: u32) -> Listener {
        Listener { protocol, local: local.parse().unwrap(), takes_v4: true, inode }
    }

    #[test]
    fn services_are_named_and_ssh_comes_first() {
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let programs = HashMap::from([
            (1, "sshd".to_owned()),
            (2, "nginx".to_owned()),
            (3, "My App".to_owned()),
            (5, "dhclient".to_owned()),
        ]);
        let found = name_all(
            &[
                listener(tcp, "0.0.0.0:9999", 3),
                listener(tcp, "0.0.0.0:80", 2),
                listener(tcp, "[::]:80", 2),
                listener(tcp, "0.0.0.0:8081", 2),
                listener(tcp, "0.0.0.0:8082", 2),
                listener(tcp, "127.0.0.1:5432", 0),
                listener(tcp, "[::1]:25", 0),
                listener(tcp, "0.0.0.0:2222", 1),
                listener(tcp, "192.0.2.1:7", 0),
                listener(udp, "0.0.0.0:68", 5),
                listener(udp, "0.0.0.0:51820", 0),
            ],
            &programs,
        );
        let shown: Vec<_> = found.iter().map(|one| format!("{} {}", one.name, one.endpoint)).collect();
        assert_eq!(
            shown,
            [
                "ssh tcp/2222",
                "http tcp/80",
                "myapp tcp/9999",
                "nginx tcp/8081",
                "nginx-8082 tcp/8082",
                "tcp-7 tcp/7",
                "wireguard udp/51820",
            ]
        );
    }

    #[test]
    fn usual_names_are_names() {
        for (name, protocol, port) in USUAL {
            assert!(name.parse::<ServiceName>().is_ok(), "{name}");
            assert!(Endpoint::new(protocol, port).is_some(), "{name}");
        }
        assert_eq!(usual("ssh"), Endpoint::new(Protocol::Tcp, 22));
    }
}
