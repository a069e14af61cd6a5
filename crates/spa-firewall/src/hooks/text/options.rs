//! The conditions of a rule, option by option.

use std::borrow::Cow;

use super::Match;
use super::values::{flags, interface, list, masked, network, ports, protocol, range, states, types};
use crate::iptables::seconds_of_date;

/// Matches that hold for packets with such a header of IPv6 alone, whatever their options. A visitor's have none.
const EXTENSION_HEADERS: [&str; 5] = ["rt", "frag", "hbh", "dst", "mh"];

/// The words of one rule, read one after the other.
pub(super) struct Reader<'a> {
    words: &'a [Cow<'a, str>],
    at: usize,
    /// The last `-m`.
    module: &'a str,
    pub(super) matches: Vec<(Match, bool)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(words: &'a [Cow<'a, str>]) -> Self {
        Self { words, at: 0, module: "", matches: Vec::new() }
    }

    pub(super) fn take(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    pub(super) fn value(&mut self) -> &'a str {
        self.take().unwrap_or_default()
    }

    fn add(&mut self, found: Option<Match>, negated: bool) {
        self.matches.push((found.unwrap_or(Match::Unknown), negated));
    }

    /// One option with its value.
    pub(super) fn one(&mut self, word: &'a str, negated: bool) {
        let found = match word {
            "-m" => {
                self.module = self.value();
                match self.module {
                    "rpfilter" => Some(Match::ReversePath),
                    module if EXTENSION_HEADERS.contains(&module) => Some(Match::Never),
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
                if EXTENSION_HEADERS.contains(&self.module) {
                    return; // more about a header that is not there
                }
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
}
