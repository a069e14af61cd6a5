//! Random schedules of honest knocks, copies, delays, crashes and clock steps against both halves and their record.
//!
//! What must hold, whatever the schedule: no packet opens twice, a bound packet opens for nobody else, and an honest
//! knock is accepted as soon as the server's clock is right.
#![allow(missing_docs)]

mod common;

use core::net::SocketAddr;
use std::collections::HashSet;

use common::random::Random;
use common::*;
use spa_gate::{Change, Now, Reason, Refusal};
use spa_proto::{Address, PublicKey};

const CLIENTS: u16 = 3;
const STEPS: u64 = 150;

/// A packet that anybody may deliver again.
#[derive(Clone)]
struct Captured {
    packet: Vec<u8>,
    record: (PublicKey, u64),
    source: SocketAddr,
    bound: bool,
}

/// Where a crash cuts a delivery off.
#[derive(Clone, Copy, PartialEq)]
enum Crash {
    No,
    /// The record was lost, or torn and so truncated.
    BeforeRecord,
    BeforeGrant,
}

struct World {
    random: Random,
    clients: Vec<Client>,
    last: Vec<u64>,
    /// How far a client's clock is ahead, in nanoseconds.
    client_skew: Vec<i64>,
    server: Server,
    /// True time since the start, nanoseconds.
    time: u64,
    /// How far the server's wall clock is ahead, in nanoseconds.
    server_skew: i64,
    captured: Vec<Captured>,
    opened: HashSet<(PublicKey, u64)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let clients: Vec<Client> = (1..=CLIENTS).map(Client::new).collect();
        let server = Server::new(&clients.iter().collect::<Vec<_>>());
        let count = clients.len();
        Self {
            random: Random(seed),
            clients,
            last: vec![0; count],
            client_skew: vec![0; count],
            server,
            time: 0,
            server_skew: 0,
            captured: Vec::new(),
            opened: HashSet::new(),
        }
    }

    fn now(&self) -> Now {
        let boot = now_at(0.0).boot + core::time::Duration::from_nanos(self.time);
        Now { wall: (START + self.time).saturating_add_signed(self.server_skew), boot }
    }

    /// A knock as an honest client makes it: its clock, or last + 1 while that is in the window.
    fn knock(&mut self) -> Captured {
        let who = self.random.below(u64::from(CLIENTS)) as usize;
        let clock = (START + self.time).saturating_add_signed(self.client_skew[who]);
        let next = self.last[who] + 1;
        let counter = if next <= clock + MAX_AGE.as_nanos() as u64 { clock.max(next) } else { clock };
        self.last[who] = counter;
        let source = from(&format!("192.0.2.{who}"));
        let bound = self.random.below(2) == 0;
        let address = if bound { Address::Bound(source.ip()) } else { Address::Observed };
        let packet = self.clients[who].seal(&open(counter, address, [service("ssh")]));
        let captured = Captured { packet, record: (self.clients[who].key(), counter), source, bound };
        self.captured.push(captured.clone());
        captured
    }

    fn restart(&mut self) {
        let clients: Vec<&Client> = self.clients.iter().collect();
        let policies = clients
            .iter()
            .enumerate()
            .map(|(i, client)| policy(&format!("c{i}"), client, &["ssh"]))
            .collect();
        self.server.restart(verifier_settings(&clients), judge_settings(policies));
    }

    /// Delivers a packet and checks what it opened.
    fn deliver(&mut self, packet: &Captured, source: SocketAddr, crash: Crash) -> Result<(), Refusal> {
        let now = self.now();
        let accepted = match self.server.judge(now, source, &packet.packet) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                if crash != Crash::No {
                    self.restart();
                }
                return Err(refusal);
            }
        };
        assert_eq!(accepted.record(), packet.record);
        if crash == Crash::BeforeRecord {
            self.restart();
            return Ok(());
        }
        self.server.record(now, &accepted);
        if crash == Crash::BeforeGrant {
            self.restart();
            return Ok(());
        }
        for change in self.server.judge.grant(now, accepted)? {
            let (Change::Opened(key, _) | Change::Renewed(key, _) | Change::Kept(key, _)) = change else {
                panic!("an open closed something");
            };
            assert!(!packet.bound || key.source == packet.source.ip(), "a bound packet opened for another");
        }
        assert!(self.opened.insert(packet.record), "a packet opened twice");
        Ok(())
    }

    fn any_captured(&mut self) -> Option<Captured> {
        let count = self.captured.len() as u64;
        (count > 0).then(|| self.captured[self.random.below(count) as usize].clone())
    }

    fn step(&mut self) {
        // At most 4 new packets a second, which is the clients' share.
        self.time += 260_000_000 + self.random.below(2 * SECOND);
        let now = self.now();
        self.server.judge.expire(now);
        let thief = from(&format!("198.51.100.{}", self.random.below(20)));
        match self.random.below(16) {
            0..6 => self.honest_knock(thief),
            6 | 7 => drop(self.knock()), // held back
            8..13 => {
                if let Some(packet) = self.any_captured() {
                    let source = if self.random.below(2) == 0 { packet.source } else { thief };
                    let _ = self.deliver(&packet, source, Crash::No);
                }
            }
            13 => {
                let packet = self.knock();
                let crash = if self.random.below(2) == 0 { Crash::BeforeRecord } else { Crash::BeforeGrant };
                let _ = self.deliver(&packet, packet.source, crash);
            }
            14 => {
                let steps = [20, -20, 59, -59, 70, -70, 3600, -3600, 86_400, -86_400];
                let step = steps[self.random.below(10) as usize] * SECOND as i64;
                self.server_skew = if self.server_skew == 0 { step } else { 0 };
            }
            _ => {
                let who = self.random.below(u64::from(CLIENTS)) as usize;
                self.client_skew[who] = (self.random.below(50) as i64 - 25) * SECOND as i64;
            }
        }
    }

    /// A knock that arrives at once, perhaps just after copies of it.
    fn honest_knock(&mut self, thief: SocketAddr) {
        let packet = self.knock();
        let mut overtaken = false;
        for _ in 0..self.random.below(3) {
            overtaken |= self.deliver(&packet, thief, Crash::No).is_ok();
        }
        let result = self.deliver(&packet, packet.source, Crash::No);
        let reason = result.err().map(Refusal::reason);
        if overtaken {
            assert!(!packet.bound, "a copy of a bound packet was accepted");
        } else if self.server_skew == 0 {
            assert_eq!(reason, None, "an honest client is shut out");
        } else if let Some(reason) = reason {
            // `replay` where a copy was refused for the clock just before.
            assert!([Reason::Stale, Reason::Clock, Reason::Replay].contains(&reason), "{reason}");
        }
    }
}

#[test]
fn random_schedules() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        for step in 0..STEPS {
            let failed = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| world.step())).is_err();
            assert!(!failed, "seed {seed}, step {step}");
        }
        assert!(world.opened.len() > 10, "seed {seed} shows nothing");
    }
}
