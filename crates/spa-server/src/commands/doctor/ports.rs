//! The four states of each port: open or closed, with a program behind it or without; now, for a stranger and for
//! somebody with a grant.

use std::net::IpAddr;

use serde::Serialize;
use spa_firewall::Family;
use spa_firewall::hooks::{Journey, Ruleset, Verdict, Visit};
use spa_proto::{Endpoint, ServiceName};

use super::scene::{Ours, Scene, Vantage};

/// The visitor's port: any that clients take.
const CLIENT_PORT: u16 = 50_000;

/// How a port is for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// The firewall lets packets through, and a program takes them.
    #[serde(rename = "open, listening")]
    OpenListening,
    /// The firewall lets packets through, and nobody takes them: the kernel refuses.
    #[serde(rename = "open, no listener")]
    OpenAlone,
    /// The firewall stops packets to a program.
    #[serde(rename = "closed, listening")]
    ClosedListening,
    /// The firewall stops packets, and nobody would take them.
    #[serde(rename = "closed, no listener")]
    ClosedAlone,
    /// It connects, and later packets are stopped.
    #[serde(rename = "open, then stalls")]
    Stalls,
    /// Packets are handed on to another address.
    #[serde(rename = "forwarded")]
    Forwarded,
    /// It depends on what cannot be known.
    #[serde(rename = "not known")]
    Unknown,
}

impl State {
    fn of(verdict: Verdict, listening: bool) -> Self {
        match (verdict, listening) {
            (Verdict::Open, true) => Self::OpenListening,
            (Verdict::Open, false) => Self::OpenAlone,
            (Verdict::Refused | Verdict::Silent | Verdict::Closed, true) => Self::ClosedListening,
            (Verdict::Refused | Verdict::Silent | Verdict::Closed, false) => Self::ClosedAlone,
            (Verdict::Stalled, _) => Self::Stalls,
            (Verdict::Elsewhere(..), _) => Self::Forwarded,
            (Verdict::Unknown, _) => Self::Unknown,
        }
    }

    /// As printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenListening => "open, listening",
            Self::OpenAlone => "open, no listener",
            Self::ClosedListening => "closed, listening",
            Self::ClosedAlone => "closed, no listener",
            Self::Stalls => "open, then stalls",
            Self::Forwarded => "forwarded",
            Self::Unknown => "not known",
        }
    }
}

/// One visitor's luck.
pub struct Luck {
    /// The state.
    pub state: State,
    /// How it came to that.
    pub journey: Journey,
}

/// One port of one service, at one interface.
pub struct Port {
    /// The service.
    pub service: ServiceName,
    /// Its port.
    pub endpoint: Endpoint,
    /// Where it was looked at from.
    pub vantage: Vantage,
    /// Whether a program takes what comes to the address there.
    pub listening: bool,
    /// The stranger's.
    pub stranger: Luck,
    /// The same address's with a grant; nothing where there is no place for one.
    pub granted: Option<Luck>,
}

/// Every port of every service, at every interface.
pub fn look(scene: &Scene) -> Vec<Port> {
    let mut ports = Vec::new();
    for (service, endpoints) in &scene.config.services {
        for endpoint in endpoints {
            for vantage in &scene.vantages {
                ports.push(port(scene, service, *endpoint, vantage));
            }
        }
    }
    ports
}

fn port(scene: &Scene, service: &ServiceName, endpoint: Endpoint, vantage: &Vantage) -> Port {
    let listeners = scene.listeners(endpoint.protocol());
    let listening = listeners.iter().any(|one| one.takes(vantage.address, endpoint.port()));
    let luck = |rules: &Ruleset| {
        let journey = rules.journey(&scene.host, &visit(vantage, vantage.stranger, endpoint));
        Luck { state: State::of(journey.verdict, listening), journey }
    };
    let mut with_grant = scene.rules.clone();
    let granted = grant(scene, &mut with_grant, vantage.stranger, endpoint).then(|| luck(&with_grant));
    Port {
        service: service.clone(),
        endpoint,
        vantage: vantage.clone(),
        listening,
        stranger: luck(&scene.rules),
        granted,
    }
}

fn grant(scene: &Scene, rules: &mut Ruleset, source: IpAddr, endpoint: Endpoint) -> bool {
    match scene.ours {
        Ours::Iptables(_) => rules.grant_in_chain(scene.ours.which(Family::of(source)), source, endpoint),
        Ours::Nftables => rules.grant_in_set(source, endpoint),
    }
}

/// Somebody who comes in there. That a program listens is taken for granted: this is about the firewall.
pub fn visit(vantage: &Vantage, source: IpAddr, endpoint: Endpoint) -> Visit {
    Visit {
        source,
        source_port: CLIENT_PORT,
        destination: vantage.address,
        endpoint,
        interface: vantage.interface.clone(),
        symmetric: vantage.symmetric,
        listening: true,
    }
}
