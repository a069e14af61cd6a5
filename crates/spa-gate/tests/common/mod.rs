//! A server of both halves with its durable record, clients that seal real packets, and a forger.
#![allow(dead_code, missing_docs)] // each test file uses a part
#![allow(clippy::unwrap_used)] // helpers of tests

pub mod forge;
pub mod random;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, HashMap};

use spa_gate::{
    Accepted, Change, ClientPolicy, Judge, JudgeSettings, Now, Openers, Reason, Refusal, Verifier,
    VerifierSettings,
};
use spa_proto::{
    Action, Address, CloakKey, Endpoint, GateKeys, Knock, Opener, Protocol, Psk, PublicKey, Randomness,
    Request, Requests, Sealer, SecretKey,
};

use random::Random;

pub const SECOND: u64 = 1_000_000_000;
/// Where the tests begin: 2026, at no round second.
pub const START: u64 = 1_790_000_000 * SECOND + 123_456_789;
pub const MAX_AGE: Duration = Duration::from_secs(60);

pub fn now_at(seconds: f64) -> Now {
    let passed = Duration::from_secs_f64(seconds);
    Now { wall: START + passed.as_nanos() as u64, boot: Duration::from_secs(1000) + passed }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn from(address: &str) -> SocketAddr {
    SocketAddr::new(ip(address), 40_000)
}

pub fn tcp(port: u16) -> Endpoint {
    Endpoint::new(Protocol::Tcp, port).unwrap()
}

pub fn service(name: &str) -> Request {
    Request::Service(name.parse().unwrap())
}

pub fn server_key() -> SecretKey {
    SecretKey::from_bytes([0x51; 32])
}

pub fn cloak_key() -> CloakKey {
    CloakKey::from_bytes([0xc1; 32])
}

/// An enrolled client, number 1 to 255 and beyond.
pub struct Client {
    pub secret: SecretKey,
    pub psk: Psk,
    pub sealer: Sealer,
    random: Random,
}

impl Client {
    pub fn new(number: u16) -> Self {
        Self::under(number, &cloak_key())
    }

    pub fn under(number: u16, cloak: &CloakKey) -> Self {
        let bytes = |mark: u8| {
            let mut bytes = [mark; 32];
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            bytes
        };
        let (secret, psk) = (SecretKey::from_bytes(bytes(1)), Psk::from_bytes(bytes(2)));
        let sealer = Sealer::new(&secret, &psk, cloak, &server_key().public_key()).unwrap();
        Self { secret, psk, sealer, random: Random(u64::from(number)) }
    }

    pub fn key(&self) -> PublicKey {
        self.secret.public_key()
    }

    pub fn gate(&self) -> GateKeys {
        GateKeys::new(&self.psk, &server_key().public_key(), &self.key())
    }

    pub fn seal(&mut self, knock: &Knock) -> Vec<u8> {
        let random = Randomness {
            nonce: self.random.bytes(),
            ephemeral: self.random.bytes(),
            size: self.random.next(),
        };
        self.sealer.seal(knock, &random)
    }

    /// An observed knock for ssh.
    pub fn ssh(&mut self, counter: u64) -> Vec<u8> {
        self.seal(&open(counter, Address::Observed, [service("ssh")]))
    }
}

pub fn open<const N: usize>(counter: u64, address: Address, requests: [Request; N]) -> Knock {
    Knock {
        action: Action::Open { requests: Requests::new(requests).unwrap(), seconds: 0 },
        address,
        counter,
    }
}

pub fn close<const N: usize>(counter: u64, requests: [Request; N]) -> Knock {
    let requests = Requests::new(requests).unwrap();
    Knock { action: Action::Close { requests }, address: Address::Observed, counter }
}

pub fn policy(name: &str, client: &Client, allow: &[&str]) -> ClientPolicy {
    ClientPolicy {
        name: name.parse().unwrap(),
        key: client.key(),
        allow: allow.iter().map(|name| name.parse().unwrap()).collect(),
        sources: Vec::new(),
        require_bound: false,
        allow_explicit: false,
        max_open_for: None,
        max_grants: 64,
        valid_until: None,
        first_knock_by: None,
    }
}

pub fn judge_settings(clients: Vec<ClientPolicy>) -> JudgeSettings {
    JudgeSettings {
        services: BTreeMap::from([
            ("ssh".parse().unwrap(), vec![tcp(22)]),
            ("web".parse().unwrap(), vec![tcp(80), tcp(443)]),
            ("none".parse().unwrap(), vec![]),
        ]),
        max_age: MAX_AGE,
        open_for: Duration::from_secs(30),
        max_open_for: Duration::from_secs(3600),
        max_grants: 4096,
        clients,
    }
}

pub fn verifier_settings(clients: &[&Client]) -> VerifierSettings {
    VerifierSettings {
        server: server_key(),
        cloaks: vec![cloak_key()],
        max_age: MAX_AGE,
        clients: clients.iter().map(|client| (client.key(), client.gate())).collect(),
    }
}

pub fn openers(clients: &[&Client]) -> Openers {
    Openers::new(
        clients
            .iter()
            .map(|client| (client.key(), Opener::new(&server_key(), &client.key(), &client.psk).unwrap())),
    )
}

/// Both halves, and what would be on disk.
pub struct Server {
    pub verifier: Verifier,
    pub openers: Openers,
    pub judge: Judge,
    pub durable: HashMap<PublicKey, u64>,
    /// The greatest [`spa_gate::record_moment`] of it.
    pub durable_at: u64,
}

impl Server {
    /// Every client may open ssh and web, as `c0`, `c1` and so on.
    pub fn new(clients: &[&Client]) -> Self {
        let policies =
            clients.iter().enumerate().map(|(i, client)| policy(&format!("c{i}"), client, &["ssh", "web"]));
        Self::with(clients, judge_settings(policies.collect()))
    }

    pub fn with(clients: &[&Client], settings: JudgeSettings) -> Self {
        Self {
            verifier: Verifier::new(verifier_settings(clients)),
            openers: openers(clients),
            judge: Judge::new(settings),
            durable: HashMap::new(),
            durable_at: 0,
        }
    }

    /// A datagram up to the judgement.
    pub fn judge(&mut self, now: Now, source: SocketAddr, packet: &[u8]) -> Result<Accepted, Refusal> {
        let candidate = self.verifier.verify(now, source, packet)?;
        let (knock, outcome) = self.openers.open(&candidate);
        self.verifier.settle(&candidate.tag, outcome);
        self.judge.judge(now, &candidate.client, candidate.source.ip(), &knock?)
    }

    pub fn record(&mut self, now: Now, accepted: &Accepted) {
        let (client, counter) = accepted.record();
        self.durable_at = self.durable_at.max(spa_gate::record_moment(now.wall, counter));
        let newest = self.durable.entry(client).or_default();
        *newest = (*newest).max(counter);
    }

    /// A datagram all the way.
    pub fn deliver(&mut self, now: Now, source: SocketAddr, packet: &[u8]) -> Result<Vec<Change>, Refusal> {
        let accepted = self.judge(now, source, packet)?;
        self.record(now, &accepted);
        self.judge.grant(now, accepted)
    }

    pub fn refusal(&mut self, now: Now, source: SocketAddr, packet: &[u8]) -> Reason {
        self.deliver(now, source, packet).unwrap_err().reason()
    }

    /// A crash and a new start with what was durable.
    pub fn restart(&mut self, verifier: VerifierSettings, judge: JudgeSettings) {
        self.verifier = Verifier::new(verifier);
        self.judge = Judge::new(judge);
        self.judge.restore(self.durable.iter().map(|(client, counter)| (*client, *counter)));
        self.judge.restore_clock(self.durable_at);
    }
}
