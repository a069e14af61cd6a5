//! The limit of a knock that opens a port: one thread that does nothing but what cannot be left out. It receives a
//! datagram in the clear, computes one X25519 and has nftables open the port. No authentication, no policy, no replay
//! record, no log, no process without rights: nobody could use it, and what does more takes longer.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use spa_firewall::nftables::Nftables;
use spa_firewall::{Enforcer, GrantKey, Lifetime, Protection, Wanted};
use spa_proto::SecretKey;
use spa_tests::probe::udp_socket;
use spa_tests::{Family, SPA_PORT, Topology};

/// Where it listens, which is open: it has no packet socket to hear what is not.
pub const PORT: u16 = SPA_PORT + 1;
/// Of the rows.
pub const SUBJECT: &str = "limit: one thread with X25519 and nftables, no daemon";

/// The thread, seen from outside.
#[derive(Default)]
pub struct Bare {
    served: AtomicU64,
    cpu: AtomicU64,
}

impl Bare {
    /// Knocks that it has carried out.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Acquire)
    }

    /// CPU time of the thread up to the last knock.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu.load(Ordering::Acquire))
    }
}

/// A knock for a port, by somebody with this number.
pub fn knock(number: u16, port: u16) -> Vec<u8> {
    [number.to_be_bytes(), port.to_be_bytes()].concat()
}

/// Runs it on the server for as long as `work` takes. The ports from `first` on, so many, are closed without it.
pub fn during<T>(
    topology: &Topology,
    (first, count): (u16, u16),
    open_for: Duration,
    work: impl FnOnce(&Bare) -> T,
) -> T {
    let bare = Bare::default();
    std::thread::scope(|scope| {
        let (ready, started) = std::sync::mpsc::channel();
        let run = || {
            topology.server.ns.enter(|| serve(topology, (first, count), open_for, &bare, ready));
        };
        let thread = scope.spawn(run);
        started.recv().expect("it starts");
        let result = work(&bare);
        let server = topology.server.address(Family::V4);
        udp_socket(&topology.client.ns, server).send_to(&[], (server, PORT)).expect("the network is up");
        thread.join().expect("it ends");
        result
    })
}

/// Until an empty datagram comes.
fn serve(
    topology: &Topology,
    (first, count): (u16, u16),
    open_for: Duration,
    bare: &Bare,
    ready: Sender<()>,
) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("the port is free");
    let secret = SecretKey::from_bytes(rand::random());
    let peer = *SecretKey::from_bytes(rand::random()).public_key().as_bytes();
    let source = topology.client.address(Family::V4);
    let endpoint = |port| format!("tcp/{port}").parse().expect("an endpoint");
    let mut wanted = Wanted {
        protection: Some(Protection {
            spa_port: SPA_PORT,
            protect: true,
            except: Vec::new(),
            services: (first..first + count).map(endpoint).collect(),
            provisional_until: None,
        }),
        grants: BTreeMap::new(),
    };
    let mut enforcer = Enforcer::new(Box::new(Nftables::open().expect("nf_tables")));
    enforcer.enforce(&wanted).expect("a table of our own");
    let key = |number: u16, port: u16| {
        GrantKey::new(format!("c{number}").parse().expect("a name"), source, endpoint(port))
    };
    ready.send(()).expect("it is waited for");
    let mut datagram = [0; 5];
    while let Ok(4) = socket.recv(&mut datagram) {
        let [number, port] = [[datagram[0], datagram[1]], [datagram[2], datagram[3]]].map(u16::from_be_bytes);
        let _ = black_box(secret.diffie_hellman(black_box(&peer)));
        let from = SystemTime::now();
        let key = key(number, port);
        wanted.grants.insert(key.clone(), Lifetime { from, until: from + open_for });
        enforcer.enforce_grants(&wanted, &[key]).expect("the kernel takes it");
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        bare.cpu.store(cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64, Ordering::Release);
        bare.served.fetch_add(1, Ordering::Release);
    }
    enforcer.remove_all().expect("our own table");
}
