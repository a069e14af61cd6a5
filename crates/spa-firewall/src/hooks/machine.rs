//! The machine of nf_tables: carries out the expressions of one rule.
//!
//! A byte of a register is `None` where it cannot be known beforehand; what is compared with it is asked of the oracle.

use std::net::IpAddr;

use super::expression::{Code, Expression, Load, REGISTERS};
use super::model::{Table, octets};
use super::packet::{Host, Interface, Packet, State};
use super::place::Place;
use super::sets::Mapped;
use super::walk::{Action, Walk};
use crate::model::Family;

/// Length of an interface's name in a register, `IFNAMSIZ`.
const NAME_LENGTH: usize = 16;
const DAY: u64 = 86_400;
const SECOND: u64 = 1_000_000_000;

type Registers = [Option<u8>; REGISTERS];

/// Carries out a rule.
pub fn run(walk: &mut Walk<'_>, table: &Table, place: &Place, expressions: &[Expression]) -> Action {
    let mut registers: Registers = [None; REGISTERS];
    for expression in expressions {
        match step(walk, table, place, &mut registers, expression) {
            Action::Continue => {}
            Action::NoMatch => return Action::Continue,
            other => return other,
        }
    }
    Action::Continue
}

fn step(
    walk: &mut Walk<'_>,
    table: &Table,
    place: &Place,
    registers: &mut Registers,
    expression: &Expression,
) -> Action {
    let goes_on = |holds: bool| if holds { Action::Continue } else { Action::NoMatch };
    match expression {
        Expression::Load(what, to) => match load(walk, what) {
            Some(value) => store(registers, *to, &value),
            None => return Action::NoMatch,
        },
        Expression::LoadUnknown(to, length) => {
            if !walk.ask(place) {
                return Action::NoMatch; // it may not be there at all
            }
            store(registers, *to, &vec![None; *length]);
        }
        Expression::Value(to, value) => store(registers, *to, &known(value)),
        Expression::Mask(from, to, mask, flip) => {
            let value = slice(registers, *from, mask.len());
            let masked = value.iter().zip(mask).zip(flip).map(|((byte, mask), flip)| match (byte, mask) {
                (_, 0) => Some(*flip),
                (byte, mask) => byte.map(|byte| byte & mask ^ flip),
            });
            store(registers, *to, &masked.collect::<Vec<_>>());
        }
        Expression::Swap(from, to, length, size) => {
            let value = slice(registers, *from, *length);
            let swapped = value.chunks((*size).max(1)).flat_map(|number| number.iter().rev().copied());
            store(registers, *to, &swapped.collect::<Vec<_>>());
        }
        Expression::Compare(from, how, with) => {
            let holds = |value: &[u8]| match (how, value.cmp(with)) {
                (0, order) => order.is_eq(),
                (1, order) => order.is_ne(),
                (2, order) => order.is_lt(),
                (3, order) => order.is_le(),
                (4, order) => order.is_gt(),
                (_, order) => order.is_ge(),
            };
            return goes_on(decide(walk, place, &slice(registers, *from, with.len()), holds));
        }
        Expression::Range(from, outside, low, high) => {
            let holds = |value: &[u8]| (value >= low.as_slice() && value <= high.as_slice()) != *outside;
            return goes_on(decide(walk, place, &slice(registers, *from, low.len()), holds));
        }
        Expression::Lookup(set, from, to, inverted) => {
            return lookup(walk, table, place, registers, (set, *from, *to, *inverted));
        }
        Expression::Verdict(code) => return of_code(code),
        Expression::SetMark(from) => match all_known(&slice(registers, *from, 4)) {
            Some(bytes) => walk.packet.mark = number(&bytes),
            None => return Action::Strange,
        },
        Expression::SetConnectionMark(from) => match all_known(&slice(registers, *from, 4)) {
            Some(bytes) => walk.connection.mark = number(&bytes),
            None => return Action::Strange,
        },
        Expression::NoTrack => walk.packet.untracked |= !walk.packet.tracked,
        Expression::Reject(how) => return Action::Reject(*how),
        Expression::Destination(address, port) => {
            let length = octets(walk.packet.destination).len();
            let address = address.map(|from| all_known(&slice(registers, from, length)).and_then(address_of));
            let port = port.map(|from| all_known(&slice(registers, from, 2)).map(port_of));
            return match (address, port) {
                (Some(None), _) | (_, Some(None)) => Action::Strange,
                (address, port) => Action::Destination(address.flatten(), port.flatten()),
            };
        }
        Expression::Redirect(port) => {
            return match port.map(|from| all_known(&slice(registers, from, 2)).map(port_of)) {
                Some(None) => Action::Strange,
                port => Action::Redirect(port.flatten()),
            };
        }
        Expression::Source => return Action::Accept,
        Expression::Nothing => {}
        Expression::Perhaps => return goes_on(walk.ask(place)),
        Expression::Strange => return Action::Strange,
    }
    Action::Continue
}

fn lookup(
    walk: &mut Walk<'_>,
    table: &Table,
    place: &Place,
    registers: &mut Registers,
    (name, from, to, inverted): (&str, usize, Option<usize>, bool),
) -> Action {
    let Some(set) = table.sets.get(name) else { return Action::Strange };
    let length = set.elements.iter().map(|element| element.key.len()).max().unwrap_or(0);
    let mapped = match all_known(&slice(registers, from, length)) {
        Some(key) => set.find(&key).cloned(),
        None if to.is_some() => return Action::Strange,
        None => walk.ask(place).then_some(Mapped::Nothing),
    };
    match mapped {
        Some(Mapped::Perhaps) if !walk.ask(place) => Action::NoMatch,
        Some(Mapped::Perhaps) if to.is_some() => Action::Strange,
        Some(Mapped::Verdict(code)) if to.is_some() => of_code(&code),
        found => {
            if found.is_some() == inverted {
                return Action::NoMatch;
            }
            if let (Some(Mapped::Value(value)), Some(to)) = (found, to) {
                store(registers, to, &known(&value));
            }
            Action::Continue
        }
    }
}

fn of_code(code: &Code) -> Action {
    match code {
        Code::Accept => Action::Accept,
        Code::Drop => Action::Drop,
        Code::Continue => Action::Continue,
        Code::Break => Action::NoMatch,
        Code::Return => Action::Return,
        Code::Jump(chain) => Action::Jump(chain.clone()),
        Code::Goto(chain) => Action::Goto(chain.clone()),
        Code::Other => Action::Strange,
    }
}

/// What is loaded, or `None` where the kernel ends the rule.
fn load(walk: &Walk<'_>, what: &Load) -> Option<Vec<Option<u8>>> {
    let packet = &walk.packet;
    match what {
        Load::Meta(key) => Some(meta(packet, walk.host, *key)),
        Load::Payload(base, offset, length) => {
            let header = match base {
                1 => packet.network_header(),
                2 => packet.transport_header(),
                _ => Vec::new(),
            };
            let byte = |at: u32| header.get(at as usize).copied().flatten();
            Some((*offset..offset.checked_add(*length)?).map(byte).collect())
        }
        Load::Conntrack(key, direction) => conntrack(walk, *key, *direction),
        Load::Route(result, flags) => Some(route(packet, *result, *flags)),
    }
}

/// `enum nft_meta_keys`; numbers are in the machine's byte order unless they stand in a packet.
fn meta(packet: &Packet, host: &Host, key: u32) -> Vec<Option<u8>> {
    let name = |of: &Option<Interface>| {
        let mut bytes = of.as_ref().map(|one| one.name.clone().into_bytes()).unwrap_or_default();
        bytes.resize(NAME_LENGTH, 0);
        known(&bytes)
    };
    let index = |of: &Option<Interface>| known(&of.as_ref().map_or(0, |one| one.index).to_ne_bytes());
    let seconds = host.now / SECOND;
    match key {
        1 => known(&(if packet.family == Family::V4 { 0x0800_u16 } else { 0x86dd }).to_be_bytes()),
        3 => known(&packet.mark.to_ne_bytes()),
        4 => index(&packet.input),
        5 => index(&packet.output),
        6 => name(&packet.input),
        7 => name(&packet.output),
        15 => vec![Some(if packet.family == Family::V4 { 2 } else { 10 })],
        16 => vec![Some(packet.protocol)],
        19 if packet.input.is_some() => vec![Some(0)], // to this host
        30 => known(&host.now.to_ne_bytes()),
        31 => vec![Some(((seconds / DAY + 4) % 7) as u8)], // 1970-01-01 was a Thursday
        32 => known(&((seconds % DAY) as u32).to_ne_bytes()),
        _ => vec![None; NAME_LENGTH],
    }
}

/// `enum nft_ct_keys`. All but the state end the rule where there is no connection.
fn conntrack(walk: &Walk<'_>, key: u32, direction: Option<u8>) -> Option<Vec<Option<u8>>> {
    const STATE: u32 = 0;
    let (packet, connection) = (&walk.packet, &walk.connection);
    if key == STATE {
        let bits: u32 = match packet.state {
            _ if packet.untracked => 64,
            _ if !packet.tracked => 1, // not seen yet counts as invalid
            State::Invalid => 1,
            State::Established => 2,
            State::Related => 4,
            State::New => 8,
            State::Unknown => return Some(vec![None; 4]),
        };
        return Some(known(&bits.to_ne_bytes()));
    }
    if !packet.tracked || packet.untracked || packet.state == State::Invalid {
        return None;
    }
    let (source, destination, source_port, destination_port) = connection.original;
    let reply = connection.rewritten.unwrap_or((destination, destination_port));
    let ends = match direction {
        Some(1) => (reply.0, source, reply.1, source_port),
        _ => (source, destination, source_port, destination_port),
    };
    Some(match key {
        1 => vec![Some(u8::from(!packet.original_direction))],
        2 => {
            // IPS_DST_NAT; that it is confirmed, seen in reply and the like is not looked up. Of a first packet none of
            // these is set before the last hook, but that a destination was looked for (IPS_DST_NAT_DONE).
            let bits: u32 = if connection.rewritten.is_some() { 1 << 5 } else { 0 };
            let unknown: u32 = if packet.state == State::New { 0x1f << 8 } else { 0b1_1111 | 0x3f << 7 };
            let bytes = bits.to_ne_bytes().into_iter().zip(unknown.to_ne_bytes());
            bytes.map(|(byte, unknown)| (unknown == 0).then_some(byte)).collect()
        }
        3 => known(&connection.mark.to_ne_bytes()),
        7 => vec![Some(if packet.family == Family::V4 { 2 } else { 10 })],
        8 | 19 | 21 => known(&octets(ends.0)),
        9 | 20 | 22 => known(&octets(ends.1)),
        10 => vec![Some(packet.protocol)],
        11 => known(&ends.2.to_be_bytes()),
        12 => known(&ends.3.to_be_bytes()),
        17 => vec![Some(0); 2],
        _ => vec![None; NAME_LENGTH],
    })
}

/// `enum nft_fib_result`, `enum nft_fib_flags`: where an address leads.
fn route(packet: &Packet, result: u32, flags: u32) -> Vec<Option<u8>> {
    const SOURCE: u32 = 1;
    const DESTINATION: u32 = 2;
    const INCOMING: u32 = 8;
    const PRESENT: u32 = 32;
    const ADDRESS_TYPE: u32 = 3;
    // `RTN_UNICAST`, `RTN_LOCAL`, linux/rtnetlink.h.
    const UNICAST: u32 = 1;
    const LOCAL: u32 = 2;
    let towards_us = packet.input.is_some();
    match (result, flags) {
        (ADDRESS_TYPE, flags) if flags & (SOURCE | DESTINATION) != 0 => {
            let ours = (flags & DESTINATION != 0) == towards_us;
            known(&(if ours { LOCAL } else { UNICAST }).to_ne_bytes())
        }
        // Whether, or by which interface, a packet would go back.
        (1 | 2, flags) if flags & SOURCE != 0 && flags & INCOMING != 0 => {
            let back = packet.symmetric;
            match (back, &packet.input) {
                (Some(true), _) if flags & PRESENT != 0 => vec![Some(1)],
                (Some(true), Some(interface)) if result == 1 => known(&interface.index.to_ne_bytes()),
                (Some(false), _) => vec![Some(0); if result == 1 { 4 } else { NAME_LENGTH }],
                _ => vec![None; NAME_LENGTH],
            }
        }
        _ => vec![None; NAME_LENGTH],
    }
}

/// Whether it holds; asked if what is looked at is not known.
fn decide(walk: &mut Walk<'_>, place: &Place, value: &[Option<u8>], holds: impl Fn(&[u8]) -> bool) -> bool {
    match all_known(value) {
        Some(value) => holds(&value),
        None => walk.ask(place),
    }
}

fn known(bytes: &[u8]) -> Vec<Option<u8>> {
    bytes.iter().copied().map(Some).collect()
}

fn all_known(bytes: &[Option<u8>]) -> Option<Vec<u8>> {
    bytes.iter().copied().collect()
}

/// The rest of the last register is zero, as in the kernel.
fn store(registers: &mut Registers, to: usize, value: &[Option<u8>]) {
    let padded = value.len().next_multiple_of(4);
    for (at, register) in registers.iter_mut().skip(to).take(padded).enumerate() {
        *register = value.get(at).copied().unwrap_or(Some(0));
    }
}

/// What is beyond the registers is not known.
fn slice(registers: &Registers, from: usize, length: usize) -> Vec<Option<u8>> {
    (from..from.saturating_add(length)).map(|at| registers.get(at).copied().flatten()).collect()
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn port_of(bytes: Vec<u8>) -> u16 {
    bytes.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

fn address_of(bytes: Vec<u8>) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}
