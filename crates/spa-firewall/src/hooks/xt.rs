//! Carries out one rule of iptables.

use std::net::IpAddr;

use super::model::octets;
use super::packet::{Interface, State, TCP, UDP};
use super::place::Place;
use super::text::{AddressType, CtState, Match, Target, TextRule};
use super::walk::{Action, Walk};
use crate::model::Family;

const SECOND: u64 = 1_000_000_000;

/// Carries out a rule. What is known to fail is not asked about.
pub fn run(walk: &mut Walk<'_>, place: &Place, rule: &TextRule) -> Action {
    let mut unknown = false;
    for (one, negated) in &rule.matches {
        match holds(walk, one) {
            Some(holds) if holds == *negated => return Action::Continue,
            Some(_) => {}
            None => unknown = true,
        }
    }
    if unknown && !walk.ask(place) {
        return Action::Continue;
    }
    target(walk, &rule.target)
}

fn target(walk: &mut Walk<'_>, target: &Target) -> Action {
    match target {
        Target::Nothing => {}
        Target::Accept => return Action::Accept,
        Target::Drop => return Action::Drop,
        Target::Reject(how) => return Action::Reject(*how),
        Target::Return => return Action::Return,
        Target::Jump(chain) => return Action::Jump(chain.clone()),
        Target::Goto(chain) => return Action::Goto(chain.clone()),
        Target::Mark(clear, flip) => walk.packet.mark = walk.packet.mark & !clear ^ flip,
        Target::ConnectionMark(clear, flip) => walk.connection.mark = walk.connection.mark & !clear ^ flip,
        Target::SaveMark(connection, packet) => {
            walk.connection.mark = walk.connection.mark & !connection ^ walk.packet.mark & packet;
        }
        Target::RestoreMark(connection, packet) => {
            walk.packet.mark = walk.packet.mark & !packet ^ walk.connection.mark & connection;
        }
        Target::NoTrack => walk.packet.untracked |= !walk.packet.tracked,
        Target::Destination(address, port) => return Action::Destination(*address, *port),
        Target::Redirect(port) => return Action::Redirect(*port),
        Target::Strange => return Action::Strange,
    }
    Action::Continue
}

/// Whether a condition holds, where that can be known.
fn holds(walk: &Walk<'_>, one: &Match) -> Option<bool> {
    let packet = &walk.packet;
    let connection = &walk.connection;
    let has_ports = matches!(packet.protocol, TCP | UDP);
    let among =
        |port: u16, ranges: &[(u16, u16)]| ranges.iter().any(|(low, high)| (*low..=*high).contains(&port));
    let tracked = packet.tracked && !packet.untracked;
    Some(match one {
        Match::Source(address, mask) => within(packet.source, address, mask),
        Match::Destination(address, mask) => within(packet.destination, address, mask),
        Match::SourceRange(low, high) => (low..=high).contains(&&packet.source),
        Match::DestinationRange(low, high) => (low..=high).contains(&&packet.destination),
        Match::Input(name, prefix) => is_named(&packet.input, name, *prefix),
        Match::Output(name, prefix) => is_named(&packet.output, name, *prefix),
        Match::Protocol(number) => packet.protocol == *number,
        Match::SourcePorts(ranges) => has_ports && among(packet.source_port, ranges),
        Match::DestinationPorts(ranges) => has_ports && among(packet.destination_port, ranges),
        Match::Ports(ranges) => {
            has_ports && (among(packet.source_port, ranges) || among(packet.destination_port, ranges))
        }
        Match::TcpFlags(mask, set) => packet.flags & mask == *set,
        Match::States(states) => return any_known(states.iter().map(|state| is_in(walk, *state))),
        Match::Direction(original) => tracked && packet.original_direction == *original,
        Match::OriginalSource(address, mask) => tracked && within(connection.original.0, address, mask),
        Match::OriginalDestination(address, mask) => tracked && within(connection.original.1, address, mask),
        Match::OriginalPort(low, high) => tracked && (*low..=*high).contains(&connection.original.3),
        Match::Mark(value, mask) => packet.mark & mask == *value,
        Match::ConnectionMark(value, mask) => tracked && connection.mark & mask == *value,
        Match::Dates(start, stop) => (*start..=*stop).contains(&(walk.host.now / SECOND)),
        Match::SourceType(types) => is_of_type(packet.family, types, packet.input.is_none()),
        Match::DestinationType(types) => is_of_type(packet.family, types, packet.input.is_some()),
        Match::ReversePath => return packet.symmetric,
        Match::Always => true,
        Match::Never => false,
        Match::Unknown => return None,
    })
}

fn within(address: IpAddr, network: &[u8], mask: &[u8]) -> bool {
    let address = octets(address);
    address.len() == network.len()
        && address.iter().zip(network).zip(mask).all(|((byte, wanted), mask)| byte & mask == wanted & mask)
}

fn is_named(interface: &Option<Interface>, name: &str, prefix: bool) -> bool {
    let own = interface.as_ref().map_or("", |interface| interface.name.as_str());
    if prefix { own.starts_with(name) } else { own == name }
}

fn is_in(walk: &Walk<'_>, state: CtState) -> Option<bool> {
    let (packet, connection) = (&walk.packet, &walk.connection);
    let tracked = packet.tracked && !packet.untracked;
    if tracked && packet.state == State::Unknown && state != CtState::Untracked {
        return None;
    }
    Some(match state {
        CtState::Untracked => packet.untracked,
        CtState::Invalid => !packet.untracked && (!packet.tracked || packet.state == State::Invalid),
        CtState::DestinationChanged => tracked && connection.rewritten.is_some(),
        CtState::SourceChanged => false,
        CtState::Is(state) => tracked && packet.state == state,
    })
}

/// Whether one of them holds; not known if none does for certain.
fn any_known(mut all: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    all.try_fold(Some(false), |so_far, one| match one {
        Some(true) => Err(()),
        one => Ok(so_far.and(one)),
    })
    .unwrap_or(Some(true))
}

/// `xt_addrtype`: IPv4 asks the routing table, and any of the types will do. IPv6 first looks at the address itself,
/// where all that is named must hold, and asks the routing table only for the others.
fn is_of_type(family: Family, types: &[AddressType], ours: bool) -> bool {
    let named = |one| types.contains(&one);
    match family {
        Family::V4 => named(if ours { AddressType::Local } else { AddressType::Unicast }),
        Family::V6 if named(AddressType::Multicast) || named(AddressType::Unspecified) => false,
        Family::V6 if named(AddressType::Local) || named(AddressType::Other) => {
            ours && named(AddressType::Local)
        }
        Family::V6 => true,
    }
}
