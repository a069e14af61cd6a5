//! The values of options.

use std::net::IpAddr;

use super::{AddressType, CtState, Match};
use crate::hooks::model::octets;
use crate::hooks::packet::{ICMP, ICMPV6, State, TCP, UDP};

/// An address, a network, or an address and a mask.
pub(super) fn network(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (address, mask) = text.split_once('/').unwrap_or((text, ""));
    let address = octets(address.parse().ok()?);
    let bits = address.len() * 8;
    let prefix = if mask.is_empty() { Some(bits) } else { mask.parse::<usize>().ok() };
    let mask = match prefix {
        Some(prefix) if prefix <= bits => {
            let ones = u128::MAX.checked_shl(128 - prefix as u32).unwrap_or(0).to_be_bytes();
            ones[..address.len()].to_vec()
        }
        Some(_) => return None,
        None => octets(mask.parse().ok()?),
    };
    (mask.len() == address.len()).then_some((address, mask))
}

pub(super) fn interface(text: &str, make: impl Fn(String, bool) -> Match) -> Match {
    match text.strip_suffix('+') {
        Some(prefix) => make(prefix.to_owned(), true),
        None => make(text.to_owned(), false),
    }
}

pub(super) fn protocol(text: &str) -> Option<Match> {
    let number = match text {
        "all" => 0,
        "tcp" => TCP,
        "udp" => UDP,
        "icmp" => ICMP,
        "icmpv6" | "ipv6-icmp" => ICMPV6,
        "igmp" => 2,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "ospf" => 89,
        "vrrp" => 112,
        "sctp" => 132,
        "udplite" => 136,
        other => other.parse().ok()?,
    };
    Some(if number == 0 { Match::Always } else { Match::Protocol(number) })
}

pub(super) fn ports(text: &str, separator: char) -> Option<(u16, u16)> {
    let (low, high) = text.split_once(separator).unwrap_or((text, text));
    let low = if low.is_empty() { 0 } else { low.parse().ok()? };
    let high = if high.is_empty() { u16::MAX } else { high.parse().ok()? };
    Some((low, high))
}

pub(super) fn list(text: &str) -> Option<Vec<(u16, u16)>> {
    text.split(',').map(|range| ports(range, ':')).collect()
}

pub(super) fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    Some((low.parse().ok()?, high.parse().ok()?))
}

pub(super) fn flags(text: &str) -> Option<u8> {
    let one = |name: &str| {
        Some(match name {
            "FIN" => 1,
            "SYN" => 2,
            "RST" => 4,
            "PSH" => 8,
            "ACK" => 16,
            "URG" => 32,
            "ALL" => 63,
            "NONE" => 0,
            _ => return None,
        })
    };
    text.split(',').try_fold(0, |bits, name| Some(bits | one(name)?))
}

pub(super) fn states(text: &str) -> Option<Vec<CtState>> {
    let one = |name: &str| {
        Some(match name {
            "NEW" => CtState::Is(State::New),
            "ESTABLISHED" => CtState::Is(State::Established),
            "RELATED" => CtState::Is(State::Related),
            "INVALID" => CtState::Invalid,
            "UNTRACKED" => CtState::Untracked,
            "DNAT" => CtState::DestinationChanged,
            "SNAT" => CtState::SourceChanged,
            _ => return None,
        })
    };
    text.split(',').map(one).collect()
}

pub(super) fn types(text: &str) -> Option<Vec<AddressType>> {
    let one = |name: &str| {
        Some(match name {
            "LOCAL" => AddressType::Local,
            "UNICAST" => AddressType::Unicast,
            "MULTICAST" => AddressType::Multicast,
            "UNSPEC" => AddressType::Unspecified,
            "BROADCAST" | "ANYCAST" | "BLACKHOLE" | "UNREACHABLE" | "PROHIBIT" => AddressType::Other,
            _ => return None,
        })
    };
    text.split(',').map(one).collect()
}

/// `0x1/0xff`, `1`.
pub(super) fn masked(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}
