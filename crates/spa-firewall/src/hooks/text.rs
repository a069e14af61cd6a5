//! A rule in the form of `iptables-save`, of either variant, understood word by word.
//!
//! What is not understood becomes [`Match::Unknown`] or [`Target::Strange`]; nothing is left out.

mod options;
mod targets;
mod values;

use std::net::IpAddr;

use self::options::Reader;
use super::expression::Answer;
use super::packet::State;
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
        let mut reader = Reader::new(&words);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::packet::TCP;

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
    fn headers_that_no_visitor_has() {
        for text in
            ["-m rt --rt-type 0 -j DROP", "-m rt ! --rt-type 0 --rt-segsleft 0 -j DROP", "-m frag -j DROP"]
        {
            assert_eq!(parse(text).matches, [(Match::Never, false)], "{text}");
        }
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
