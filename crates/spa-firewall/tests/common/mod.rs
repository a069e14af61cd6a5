//! What the tests on the real firewall share.
#![allow(dead_code)] // each test binary uses its part

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use spa_firewall::iptables::{Iptables, Variant};
use spa_firewall::nftables::Nftables;
use spa_firewall::{Enforcer, Error, Firewall, GrantKey, Lifetime, Protection, Wanted};

pub const VARIANTS: [Variant; 2] = [Variant::Nft, Variant::Legacy];

/// Runs `body` for both variants, in the namespaces of the caller.
pub fn each_variant(test: &str, body: impl Fn(Variant, &mut Enforcer)) {
    for variant in VARIANTS {
        match Iptables::open(variant) {
            Ok(driver) => body(variant, &mut Enforcer::new(Box::new(driver))),
            Err(error) => spa_tests::skip(&format!("{test} ({variant:?})"), &error.to_string()),
        }
    }
}

/// A driver, of which there are three here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Iptables(Variant),
    Nftables,
}

pub const KINDS: [Kind; 3] = [Kind::Iptables(Variant::Nft), Kind::Iptables(Variant::Legacy), Kind::Nftables];

impl Kind {
    pub fn open(self) -> Result<Box<dyn Firewall>, Error> {
        Ok(match self {
            Self::Iptables(variant) => Box::new(Iptables::open(variant)?),
            Self::Nftables => Box::new(Nftables::open()?),
        })
    }

    /// All that stands, as the programs of others list it, without counters and what is left of times.
    pub fn saved(self) -> String {
        match self {
            Self::Iptables(variant) => saved(variant),
            Self::Nftables => spa_tests::sh(
                "nft -s list ruleset | sed -E 's/(expires|timeout) [0-9a-z]+//g; s/packets.*bytes [0-9]+//'",
            ),
        }
    }

    /// How often a client's name stands in it.
    pub fn names(self, client: &str) -> usize {
        self.saved().split(['"', ' ']).filter(|word| *word == client).count()
    }
}

/// Runs `body` for each driver, in the namespaces of the caller.
pub fn each_driver(test: &str, body: impl Fn(Kind, &mut Enforcer)) {
    for kind in KINDS {
        match kind.open() {
            Ok(driver) => body(kind, &mut Enforcer::new(driver)),
            Err(error) => spa_tests::skip(&format!("{test} ({kind:?})"), &error.to_string()),
        }
    }
}

/// What `iptables-save` says of both families, without its date and the counters.
pub fn saved(variant: Variant) -> String {
    let suffix = if variant == Variant::Nft { "nft" } else { "legacy" };
    spa_tests::sh(&format!(
        "for f in iptables ip6tables; do $f-{suffix}-save -t filter | grep -v '^#' | sed 's/\\[[0-9:]*\\]//'; done"
    ))
}

/// The rules of a chain, IPv4 first, without its name.
pub fn chain(variant: Variant, chain: &str) -> Vec<String> {
    let prefix = format!("-A {chain} ");
    saved(variant).lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}

pub fn protection(services: &[&str]) -> Protection {
    Protection {
        spa_port: 62201,
        protect: true,
        except: Vec::new(),
        services: services.iter().map(|text| text.parse().expect("an endpoint")).collect(),
        provisional_until: None,
    }
}

pub fn wanted(protection: Protection, grants: &[(GrantKey, Lifetime)]) -> Wanted {
    Wanted { protection: Some(protection), grants: grants.iter().cloned().collect::<BTreeMap<_, _>>() }
}

pub fn key(client: &str, source: &str, endpoint: &str) -> GrantKey {
    GrantKey::new(
        client.parse().expect("a name"),
        source.parse().expect("an address"),
        endpoint.parse().expect("an endpoint"),
    )
}

/// From now on, for some seconds.
pub fn lasting(seconds: u64) -> Lifetime {
    let from = SystemTime::now();
    Lifetime { from, until: from + Duration::from_secs(seconds) }
}

pub const SERVER_V4: &str = "10.9.0.1";
pub const SERVER_V6: &str = "fd09::1";
/// The peer's granted addresses, and others of the same peer.
pub const PEER_V4: &str = "10.9.0.2";
pub const PEER_V6: &str = "fd09::2";
pub const OTHER_V4: &str = "10.9.0.3";
pub const OTHER_V6: &str = "fd09::3";

/// ```text
///  this namespace            "peer"
///  v0 10.9.0.1, fd09::1 ---- v1 10.9.0.2, .3, fd09::2, ::3
/// ```
pub fn lay_cable() {
    spa_tests::sh(
        "ip netns add peer
         ip link add v0 type veth peer name v1 netns peer
         ip addr add 10.9.0.1/24 dev v0 && ip addr add fd09::1/64 dev v0 nodad && ip link set v0 up
         ip -n peer addr add 10.9.0.2/24 dev v1 && ip -n peer addr add 10.9.0.3/24 dev v1
         ip -n peer addr add fd09::2/64 dev v1 nodad && ip -n peer addr add fd09::3/64 dev v1 nodad
         ip -n peer link set lo up && ip -n peer link set v1 up",
    );
}

/// Runs `body` on a thread that lives in the peer's network namespace. Sockets made there stay there.
pub fn as_peer<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        let namespace = std::fs::File::open("/run/netns/peer").expect("the peer's namespace");
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
            .expect("setns");
        body()
    });
    thread.join().expect("the peer's thread")
}

/// Connects from the peer with a source address of its own choice, set by a route to the server.
pub fn connect(source: &'static str, to: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    as_peer(move || {
        let source: IpAddr = source.parse().expect("an address");
        let length = if source.is_ipv4() { 32 } else { 128 };
        spa_tests::sh(&format!("ip -n peer route replace {}/{length} dev v1 src {source}", to.ip()));
        TcpStream::connect_timeout(&to, patience)
    })
}

/// Long enough for a SYN to be answered over a veth pair; a dropped one never is.
pub const SOON: Duration = Duration::from_millis(400);

pub fn is_open(source: &'static str, to: SocketAddr) -> bool {
    connect(source, to, SOON).is_ok()
}

/// A listener in this namespace that sends back what it gets, each connection on a thread of its own.
pub fn echo(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("the port is free");
    let local = listener.local_addr().expect("a local address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    local
}

/// Whether what is sent comes back in time.
pub fn answers(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(SOON)).expect("a time-out");
    let mut buffer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut buffer).is_ok()
}

/// Waits for a condition, at most ten seconds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: still not after ten seconds");
        std::thread::sleep(Duration::from_millis(20));
    }
}
