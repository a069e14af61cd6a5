//! A rule in the form of `iptables-save`, of either variant, understood word by word.
//!
//! What is not understood becomes [`Match::Unknown`] or [`Target::Strange`]; nothing is left out.

use std::borrow::Cow;
use std::net::IpAddr;

use super::expression::Answer;
use super::model::octets;
use super::packet::{ICMP, ICMPV6, State, TCP, UDP};
use crate::iptables::seconds_of_date;
use crate::words;

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Address and mask, in network order.
    Source(Vec<u8>, Vec<u8>),
    Destination(Vec<u8>, Vec<u8>),
    SourceRange(IpAddr, IpAddr),
    DestinationRange(IpAddr, IpAddr),
    /// The name; a prefix of it if the second is true.
    Input(String, bool),
    Output(String, bool),
    Protocol(u8),
    SourcePorts(Vec<(u16, u16)>),
    DestinationPorts(Vec<(u16, u16)>),
    /// Either of them.
    Ports(Vec<(u16, u16)>),
    /// Of the mask, these are set.
    TcpFlags(u8, u8),
    States(Vec<CtState>),
    /// Whether it is the original one.
    Direction(bool),
    OriginalSource(Vec<u8>, Vec<u8>),
    OriginalDestination(Vec<u8>, Vec<u8>),
    OriginalPort(u16, u16),
    /// Value and mask.
    Mark(u32, u32),
    ConnectionMark(u32, u32),
    /// Both inclusive, seconds since 1970.
    Dates(u64, u64),
    SourceType(Vec<AddressType>),
    DestinationType(Vec<AddressType>),
    /// The route back leaves where the packet came in.
    ReversePath,
    /// Holds for every packet here, or for none.
    Always,
    Never,
    Unknown,
}

/// What conntrack says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtState {
    Is(State),
    Invalid,
    Untracked,
    /// Sent elsewhere by a rule.
    DestinationChanged,
    SourceChanged,
}

/// Of `-m addrtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressType {
    Local,
    Unicast,
    Multicast,
    Unspecified,
    Other,
}

/// What a rule does with a packet that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Goes on.
    Nothing,
    Accept,
    Drop,
    Reject(Answer),
    Return,
    Jump(String),
    Goto(String),
    /// Clears these bits, then flips those.
    Mark(u32, u32),
    ConnectionMark(u32, u32),
    /// The packet's mark to the connection, or back: masks of the connection's and the packet's.
    SaveMark(u32, u32),
    RestoreMark(u32, u32),
    NoTrack,
    Destination(Option<IpAddr>, Option<u16>),
    Redirect(Option<u16>),
    Strange,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextRule {
    /// The conditions, each with whether it is turned round.
    pub matches: Vec<(Match, bool)>,
    pub target: Target,
}

impl TextRule {
    /// The rule without `-A CHAIN`. `is_chain` tells which targets are chains of the table.
    pub fn parse(text: &str, is_chain: impl Fn(&str) -> bool) -> Self {
        let unknown = || Self { matches: vec![(Match::Unknown, false)], target: Target::Strange };
        let Some(words) = words::split(text) else { return unknown() };
        let mut reader = Reader { words: &words, at: 0, module: "", matches: Vec::new() };
        let mut target = Target::Nothing;
        while let Some(word) = reader.take() {
            match word {
                "-j" => {
                    let name = reader.take().unwrap_or_default();
                    target = if is_chain(name) { Target::Jump(name.to_owned()) } else { reader.target(name) };
                    break; // what follows are the target's options
                }
                "-g" => {
                    target = Target::Goto(reader.take().unwrap_or_default().to_owned());
                    break;
                }
                "!" => match reader.take() {
                    Some(word) => reader.one(word, true),
                    None => return unknown(),
                },
                word => reader.one(word, false),
            }
        }
        Self { matches: reader.matches, target }
    }

    /// A grant's, as our own driver makes it.
    pub fn accept(matches: Vec<Match>) -> Self {
        Self { matches: matches.into_iter().map(|one| (one, false)).collect(), target: Target::Accept }
    }
}

struct Reader<'a> {
    words: &'a [Cow<'a, str>],
    at: usize,
    /// The last `-m`.
    module: &'a str,
    matches: Vec<(Match, bool)>,
}

impl<'a> Reader<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    fn value(&mut self) -> &'a str {
        self.take().unwrap_or_default()
    }

    fn add(&mut self, found: Option<Match>, negated: bool) {
        self.matches.push((found.unwrap_or(Match::Unknown), negated));
    }

    /// One option with its value.
    fn one(&mut self, word: &'a str, negated: bool) {
        let found = match word {
            "-m" => {
                self.module = self.value();
                match self.module {
                    "rpfilter" => Some(Match::ReversePath),
                    _ => return,
                }
            }
            "--comment" => {
                self.value();
                return;
            }
            "-s" => network(self.value()).map(|(address, mask)| Match::Source(address, mask)),
            "-d" => network(self.value()).map(|(address, mask)| Match::Destination(address, mask)),
            "-i" => Some(interface(self.value(), Match::Input)),
            "-o" => Some(interface(self.value(), Match::Output)),
            "-p" => protocol(self.value()),
            "--sport" => ports(self.value(), ':').map(|range| Match::SourcePorts(vec![range])),
            "--dport" => ports(self.value(), ':').map(|range| Match::DestinationPorts(vec![range])),
            "--sports" => list(self.value()).map(Match::SourcePorts),
            "--dports" => list(self.value()).map(Match::DestinationPorts),
            "--ports" => list(self.value()).map(Match::Ports),
            "--tcp-flags" => {
                let (mask, set) = (self.value(), self.value());
                flags(mask).zip(flags(set)).map(|(mask, set)| Match::TcpFlags(mask, set))
            }
            "--ctstate" | "--state" => states(self.value()).map(Match::States),
            "--ctdir" => match self.value() {
                "ORIGINAL" => Some(Match::Direction(true)),
                "REPLY" => Some(Match::Direction(false)),
                _ => None,
            },
            "--ctproto" => protocol(self.value()),
            "--ctorigsrc" => {
                network(self.value()).map(|(address, mask)| Match::OriginalSource(address, mask))
            }
            "--ctorigdst" => {
                network(self.value()).map(|(address, mask)| Match::OriginalDestination(address, mask))
            }
            "--ctorigdstport" => ports(self.value(), ':').map(|(low, high)| Match::OriginalPort(low, high)),
            "--mark" => masked(self.value()).and_then(|(value, mask)| match self.module {
                "mark" => Some(Match::Mark(value, mask)),
                "connmark" => Some(Match::ConnectionMark(value, mask)),
                _ => None,
            }),
            "--src-range" => range(self.value()).map(|(low, high)| Match::SourceRange(low, high)),
            "--dst-range" => range(self.value()).map(|(low, high)| Match::DestinationRange(low, high)),
            "--datestart" => seconds_of_date(self.value()).map(|start| Match::Dates(start, u64::MAX)),
            "--datestop" => seconds_of_date(self.value()).map(|stop| Match::Dates(0, stop)),
            "--src-type" => types(self.value()).map(Match::SourceType),
            "--dst-type" => types(self.value()).map(Match::DestinationType),
            "--limit-iface-in" if self.module == "addrtype" => return,
            "--pkt-type" => match self.value() {
                "unicast" => Some(Match::Always),
                "broadcast" | "multicast" => Some(Match::Never),
                _ => None,
            },
            _ => {
                self.skip_values();
                None
            }
        };
        self.add(found, negated);
    }

    /// Of an option that is not known: up to the next one.
    fn skip_values(&mut self) {
        while self.words.get(self.at).is_some_and(|word| !word.starts_with('-') && *word != "!") {
            self.at += 1;
        }
    }

    fn target(&mut self, name: &str) -> Target {
        match name {
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "REJECT" => match (self.take(), self.take()) {
                (Some("--reject-with"), Some("tcp-reset")) => Target::Reject(Answer::Reset),
                _ => Target::Reject(Answer::Icmp),
            },
            "RETURN" => Target::Return,
            "LOG" | "NFLOG" | "ULOG" | "TRACE" | "AUDIT" | "CLASSIFY" | "TOS" | "DSCP" | "TTL" | "HL"
            | "TCPMSS" | "CHECKSUM" | "SECMARK" | "CONNSECMARK" | "SET" | "TEE" | "LED" => Target::Nothing,
            "MARK" => self.mark(false).unwrap_or(Target::Strange),
            "CONNMARK" => self.mark(true).unwrap_or(Target::Strange),
            "NOTRACK" => Target::NoTrack,
            "CT" if self.take() == Some("--notrack") => Target::NoTrack,
            "CT" => Target::Nothing,
            "MASQUERADE" | "SNAT" | "NETMAP" => Target::Accept,
            "DNAT" => self.destination().unwrap_or(Target::Strange),
            "REDIRECT" => match self.take() {
                None => Target::Redirect(None),
                Some("--to-ports") => {
                    let port = self.value().parse().ok();
                    port.map_or(Target::Strange, |port| Target::Redirect(Some(port)))
                }
                Some(_) => Target::Strange,
            },
            _ => Target::Strange,
        }
    }

    fn mark(&mut self, of_connection: bool) -> Option<Target> {
        let what = self.take()?;
        match what {
            "--set-xmark" | "--set-mark" => {
                let (value, mask) = masked(self.value())?;
                let (clear, flip) = if what == "--set-xmark" { (mask, value) } else { (mask | value, value) };
                Some(if of_connection {
                    Target::ConnectionMark(clear, flip)
                } else {
                    Target::Mark(clear, flip)
                })
            }
            "--save-mark" | "--restore-mark" if of_connection => {
                let (mut packet, mut connection) = (u32::MAX, u32::MAX);
                while let Some(option) = self.take() {
                    let mask = masked(self.value())?.0;
                    match option {
                        "--nfmask" => packet = mask,
                        "--ctmask" => connection = mask,
                        "--mask" => (packet, connection) = (mask, mask),
                        _ => return None,
                    }
                }
                let make = if what == "--save-mark" { Target::SaveMark } else { Target::RestoreMark };
                Some(make(connection, packet))
            }
            _ => None,
        }
    }

    /// `192.0.2.1:80`, `192.0.2.1`, `[2001:db8::1]:80`, `:80`; ranges are strange.
    fn destination(&mut self) -> Option<Target> {
        if self.take()? != "--to-destination" {
            return None;
        }
        let text = self.value();
        let (address, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => (address, port.strip_prefix(':')),
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.split_once(':') {
                Some((address, port)) => (address, Some(port)),
                None => (text, None),
            },
        };
        let address = if address.is_empty() { None } else { Some(address.parse().ok()?) };
        let port = match port {
            Some(port) => Some(port.parse().ok()?),
            None => None,
        };
        Some(Target::Destination(address, port))
    }
}

/// An address, a network, or an address and a mask.
fn network(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
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

fn interface(text: &str, make: impl Fn(String, bool) -> Match) -> Match {
    match text.strip_suffix('+') {
        Some(prefix) => make(prefix.to_owned(), true),
        None => make(text.to_owned(), false),
    }
}

fn protocol(text: &str) -> Option<Match> {
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

fn ports(text: &str, separator: char) -> Option<(u16, u16)> {
    let (low, high) = text.split_once(separator).unwrap_or((text, text));
    let low = if low.is_empty() { 0 } else { low.parse().ok()? };
    let high = if high.is_empty() { u16::MAX } else { high.parse().ok()? };
    Some((low, high))
}

fn list(text: &str) -> Option<Vec<(u16, u16)>> {
    text.split(',').map(|range| ports(range, ':')).collect()
}

fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    Some((low.parse().ok()?, high.parse().ok()?))
}

fn flags(text: &str) -> Option<u8> {
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

fn states(text: &str) -> Option<Vec<CtState>> {
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

fn types(text: &str) -> Option<Vec<AddressType>> {
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
fn masked(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> TextRule {
        TextRule::parse(text, |name| name == "mine")
    }

    #[test]
    fn rules_of_every_day() {
        let rule = parse("! -i eth+ -p tcp -m tcp --dport 20:25 -m comment --comment \"a -j DROP\" -j mine");
        assert_eq!(rule.target, Target::Jump("mine".into()));
        assert_eq!(
            rule.matches,
            [
                (Match::Input("eth".into(), true), true),
                (Match::Protocol(TCP), false),
                (Match::DestinationPorts(vec![(20, 25)]), false)
            ]
        );
        let rule = parse("-m mark ! --mark 0x1/0xff -j MARK --set-xmark 0x2/0xffffffff");
        assert_eq!(rule.matches, [(Match::Mark(1, 255), true)]);
        assert_eq!(rule.target, Target::Mark(u32::MAX, 2));
        let rule = parse("-s 10.0.0.1/255.0.0.255 -g mine");
        assert_eq!(rule.matches, [(Match::Source(vec![10, 0, 0, 1], vec![255, 0, 0, 255]), false)]);
        assert_eq!(rule.target, Target::Goto("mine".into()));
        let rule = parse("-p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:8080");
        assert_eq!(rule.target, Target::Destination("172.17.0.2".parse().ok(), Some(8080)));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let unknown = (Match::Unknown, false);
        for text in [
            "-m limit --limit 3/min -j ACCEPT",
            "-m set --match-set bad src -j DROP",
            "-m recent --rcheck --seconds 60 --name X --mask 255.255.255.255 --rsource -j DROP",
            "-m somewhat --new-option with values -j ACCEPT",
        ] {
            assert!(parse(text).matches.contains(&unknown), "{text}");
        }
        for text in ["-j TPROXY --on-port 1", "-j NFQUEUE --queue-num 1", "-j SYNPROXY", "\"open"] {
            assert_eq!(parse(text).target, Target::Strange, "{text}");
        }
    }
}
