//! Which sources the rules tell apart, so that one of each can be tried.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::expression::{Expression, Load};
use super::model::{Body, Ruleset};
use super::text::Match;
use crate::model::Family;

/// Most sources that are tried.
const MAX_SOURCES: usize = 256;

impl Ruleset {
    /// An address of each network that a rule names as a source, the first and the second of it: the first may be
    /// named by itself.
    pub fn sources(&self, family: Family) -> Vec<IpAddr> {
        let mut found = BTreeSet::new();
        for table in self.tables.iter().filter(|table| table.sees(family)) {
            for rule in table.chains.values().flat_map(|chain| &chain.rules) {
                match &rule.body {
                    Body::Text(text) => {
                        for (one, _) in &text.matches {
                            match one {
                                Match::Source(address, _) => add(&mut found, family, address),
                                Match::SourceRange(low, _) => {
                                    add(&mut found, family, &super::model::octets(*low))
                                }
                                _ => {}
                            }
                        }
                    }
                    Body::Native(expressions) => {
                        let mut of_source = false;
                        for expression in expressions {
                            match expression {
                                Expression::Load(load, _) => of_source = is_source(load, family),
                                Expression::Compare(_, _, value) if of_source => {
                                    add(&mut found, family, value)
                                }
                                Expression::Range(_, _, low, _) if of_source => add(&mut found, family, low),
                                Expression::Lookup(set, ..) if of_source => {
                                    let elements =
                                        table.sets.get(set).into_iter().flat_map(|set| &set.elements);
                                    elements.for_each(|element| add(&mut found, family, &element.key));
                                }
                                _ => {}
                            }
                        }
                    }
                    Body::Opaque => {}
                }
            }
        }
        found.into_iter().take(MAX_SOURCES).collect()
    }
}

fn is_source(load: &Load, family: Family) -> bool {
    matches!((load, family), (Load::Payload(1, 12, _), Family::V4) | (Load::Payload(1, 8, _), Family::V6))
}

/// Short ones are prefixes that end at a byte.
fn add(found: &mut BTreeSet<IpAddr>, family: Family, bytes: &[u8]) {
    let length = usize::from(family.bits() / 8);
    let mut padded = bytes.to_vec();
    padded.resize(length, 0);
    let address: IpAddr = match family {
        Family::V4 => match <[u8; 4]>::try_from(padded) {
            Ok(octets) => Ipv4Addr::from(octets).into(),
            Err(_) => return,
        },
        Family::V6 => match <[u8; 16]>::try_from(padded) {
            Ok(octets) => Ipv6Addr::from(octets).into(),
            Err(_) => return,
        },
    };
    let next = match address {
        IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().wrapping_add(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().wrapping_add(1).into()),
    };
    found.extend(
        [address, next].into_iter().filter(|address| !address.is_unspecified() && !address.is_multicast()),
    );
}
