//! A connection, from its first packet on: what somebody who tries it meets.

use core::fmt;
use std::net::IpAddr;

use super::expression::Answer;
use super::model::{Hook, Ruleset};
use super::oracle::{Oracle, all_runs};
use super::packet::{ACK, Connection, Host, ICMP, ICMPV6, Packet, RST, SYN, State, TCP, UDP, Visit};
use super::place::{Place, Step};
use super::walk::{End, Walk};
use crate::model::Family;

/// What somebody who tries it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The program behind the port.
    Open,
    /// The first packets pass both ways, and later ones do not: it connects, and hangs.
    Stalled,
    /// An answer that refuses: a reset, an ICMP error.
    Refused,
    /// Nothing.
    Silent,
    /// One of the two before, depending on what cannot be looked up.
    Closed,
    /// Another address: packets are handed on, and what becomes of them there is not looked at.
    Elsewhere(IpAddr, u16),
    /// It depends on what is not understood or cannot be known.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Stalled => "stalled",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Closed => "closed",
            Self::Elsewhere(..) => "elsewhere",
            Self::Unknown => "unknown",
        })
    }
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    /// The end.
    pub verdict: Verdict,
    /// Each base chain that was crossed, in order, until the end.
    pub steps: Vec<Step>,
    /// Whether conntrack knows the connection.
    pub tracked: bool,
    /// What it depends on, if the verdict is unknown.
    pub unknown: Vec<Place>,
}

impl Journey {
    /// Who decided, if it did not get through.
    pub fn stopped_by(&self) -> Option<&Step> {
        self.steps.last().filter(|step| !step.is_accept())
    }
}

/// One run.
struct Trip {
    verdict: Verdict,
    steps: Vec<Step>,
    tracked: bool,
    strange: Vec<Place>,
}

impl Ruleset {
    /// Takes a visitor through.
    pub fn journey(&self, host: &Host, visit: &Visit) -> Journey {
        let mut runs = all_runs(|oracle| travel(self, host, visit, oracle));
        let verdict = runs.results.iter().map(|trip| trip.verdict).reduce(both).unwrap_or(Verdict::Unknown);
        let verdict = if runs.unfinished { Verdict::Unknown } else { verdict };
        let strange = runs.results.iter_mut().flat_map(|trip| std::mem::take(&mut trip.strange));
        let mut unknown: Vec<_> = strange.collect();
        unknown.append(&mut runs.asked);
        unknown.sort();
        unknown.dedup();
        if verdict != Verdict::Unknown {
            unknown.clear();
        }
        let same = runs.results.iter().position(|trip| trip.verdict == verdict).unwrap_or(0);
        let Trip { steps, tracked, .. } = runs.results.swap_remove(same);
        Journey { verdict, steps, tracked, unknown }
    }
}

/// What holds for both runs.
fn both(one: Verdict, other: Verdict) -> Verdict {
    let closed = |verdict| matches!(verdict, Verdict::Refused | Verdict::Silent | Verdict::Closed);
    match (one, other) {
        _ if one == other => one,
        _ if closed(one) && closed(other) => Verdict::Closed,
        _ => Verdict::Unknown,
    }
}

fn travel(rules: &Ruleset, host: &Host, visit: &Visit, oracle: &mut Oracle) -> Trip {
    let packet = Packet::first(visit);
    let connection = Connection {
        mark: 0,
        original: (packet.source, packet.destination, packet.source_port, packet.destination_port),
        rewritten: None,
    };
    let mut walk = Walk { rules, host, packet, connection, oracle, steps: Vec::new(), strange: Vec::new() };
    let verdict = walk.visit(visit.listening);
    Trip { verdict, steps: walk.steps, tracked: !walk.packet.untracked, strange: walk.strange }
}

impl Walk<'_> {
    fn visit(&mut self, listening: bool) -> Verdict {
        if let Err(verdict) = self.way_in() {
            return verdict;
        }
        let first = self.packet.clone();
        if !listening {
            let how = if first.protocol == TCP { Answer::Reset } else { Answer::Icmp };
            return self.refuse(how, answer_state(&first, State::Established));
        }
        let flags = if first.protocol == TCP { SYN | ACK } else { 0 };
        match self.way_out(first.answer(answer_state(&first, State::Established), flags)) {
            End::Through if first.protocol == UDP => return Verdict::Open,
            End::Through => {}
            End::Unclear => return Verdict::Unknown,
            End::Dropped | End::Rejected(_) => return Verdict::Silent,
        }
        let (source, destination, source_port, destination_port) = self.connection.original;
        self.packet = Packet {
            source,
            destination,
            source_port,
            destination_port,
            flags: ACK,
            mark: 0,
            state: if first.untracked { State::New } else { State::Established },
            tracked: false,
            untracked: false,
            ..first
        };
        match self.way_in() {
            Ok(()) => Verdict::Open,
            Err(Verdict::Unknown) => Verdict::Unknown,
            Err(_) => Verdict::Stalled,
        }
    }

    /// From the wire to the socket.
    fn way_in(&mut self) -> Result<(), Verdict> {
        for hook in [Hook::Ingress, Hook::Prerouting, Hook::Input] {
            // Later packets go where the first one was sent.
            if hook == Hook::Input
                && self.packet.state != State::New
                && let Some((address, port)) = self.connection.rewritten
            {
                (self.packet.destination, self.packet.destination_port) = (address, port);
            }
            if hook == Hook::Input && !self.host.addresses.contains(&self.packet.destination) {
                return Err(Verdict::Elsewhere(self.packet.destination, self.packet.destination_port));
            }
            match self.hook(hook) {
                End::Through => {}
                End::Dropped => return Err(Verdict::Silent),
                End::Unclear => return Err(Verdict::Unknown),
                End::Rejected(answer) => {
                    let state = match answer {
                        Answer::Reset => answer_state(&self.packet, State::Related),
                        Answer::Icmp => State::Unknown,
                    };
                    return Err(self.refuse(answer, state));
                }
            }
        }
        Ok(())
    }

    /// The kernel answers instead of a program.
    fn refuse(&mut self, how: Answer, state: State) -> Verdict {
        let mut answer = self.packet.answer(state, RST | ACK);
        if how == Answer::Icmp {
            answer.protocol = if answer.family == Family::V4 { ICMP } else { ICMPV6 };
            (answer.source_port, answer.destination_port) = (0, 0);
        }
        let refused = self.steps.len();
        match self.way_out(answer) {
            End::Through => {
                self.steps.truncate(refused); // who refused is what matters
                Verdict::Refused
            }
            End::Unclear => Verdict::Unknown,
            End::Dropped | End::Rejected(_) => Verdict::Silent,
        }
    }

    fn way_out(&mut self, answer: Packet) -> End {
        self.packet = answer;
        match self.hook(Hook::Output) {
            End::Through => self.hook(Hook::Postrouting),
            other => other,
        }
    }
}

/// What conntrack makes of an answer, if it saw the question.
fn answer_state(question: &Packet, seen: State) -> State {
    match (question.untracked, question.protocol) {
        (false, _) => seen,
        (true, TCP) => State::Invalid,
        (true, _) => State::New,
    }
}
