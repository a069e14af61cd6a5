//! Our rules as the kernel holds them, and back.
//!
//! Each has a comment that says what it is (`spa drop tcp/22`). A rule read back is what its comment says only if its
//! expressions are those that we would write for it; otherwise it is foreign.

use std::net::IpAddr;

use spa_proto::Endpoint;

use super::abi::{rule as attribute, verdict};
use super::comment;
use super::expressions::{
    Comparison, Conntrack, DESTINATION_PORT, Expressions, Meta, Normal, SOURCE_V4, SOURCE_V6, zero_ended,
};
use super::{BASE_CHAIN, Mark, Names, TABLE};
use crate::kernel::{Counted, Counters, Rule};
use crate::model::Family;
use crate::names::Except;
use crate::netlink::{Request, find};

/// `IFNAMSIZ`, `linux/if.h`.
const INTERFACE_NAME: usize = 16;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`, `linux/netfilter/nf_conntrack_common.h`; in the machine's byte order.
const ESTABLISHED: u32 = 1 << 1;
/// `IP_CT_DIR_ORIGINAL`, `linux/netfilter/nf_conntrack_tuple_common.h`.
const ORIGINAL: u8 = 0;
const NANOSECONDS: u64 = 1_000_000_000;

/// Appends the attributes of a rule of the family's chain; `None` for a foreign one, which is never written.
pub fn write(
    request: Request,
    rule: &Rule,
    family: Family,
    mark: Option<Mark>,
    counters: Counters,
) -> Option<Request> {
    let comment = comment::of_rule(rule)?;
    let request = place(request, Names::of(family).chain);
    let request = request
        .nest(attribute::EXPRESSIONS, |list| expressions(Expressions(list), rule, family, mark, counters).0)
        .attribute(attribute::USERDATA, &comment::encode(&comment));
    Some(request)
}

/// The rules of the base chain: each family to its own.
pub fn jump(request: Request, family: Family) -> Request {
    place(request, BASE_CHAIN).nest(attribute::EXPRESSIONS, |list| {
        of_family(Expressions(list), family).verdict(verdict::JUMP, Some(Names::of(family).chain)).0
    })
}

/// In our families' chains this is known already, but `nft list` goes by it to show what is looked at.
fn of_family(list: Expressions, family: Family) -> Expressions {
    let number = match family {
        Family::V4 => 2, // NFPROTO_IPV4, NFPROTO_IPV6, linux/netfilter.h
        Family::V6 => 10,
    };
    list.meta(Meta::Family, 0).compare(Comparison::Equal, &[number])
}

fn place(request: Request, chain: &str) -> Request {
    request.attribute(attribute::TABLE, &zero_ended(TABLE)).attribute(attribute::CHAIN, &zero_ended(chain))
}

/// Whether the attributes of a rule as read back do the same as this request's.
pub fn same(payload: &[u8], wanted: &Request) -> bool {
    let normal = |payload: &[u8]| {
        Normal::read(find(payload.get(4..)?, attribute::EXPRESSIONS)?).map(|(normal, _)| normal)
    };
    normal(payload).is_some_and(|found| Some(found) == normal(wanted.payload()))
}

/// Reads a rule of the family's chain, header included.
pub fn read(
    payload: &[u8],
    family: Family,
    mark: Option<Mark>,
    blank: impl FnOnce() -> Request,
) -> Option<Counted> {
    let attributes = payload.get(4..)?;
    let (_, counters) = Normal::read(find(attributes, attribute::EXPRESSIONS)?)?;
    let comment = find(attributes, attribute::USERDATA).and_then(comment::decode);
    let said = comment.as_deref().and_then(comment::rule);
    let rule = said.filter(|rule| {
        write(blank(), rule, family, mark, Counters::default()).is_some_and(|wanted| same(payload, &wanted))
    });
    let rule = rule.unwrap_or_else(|| Rule::Foreign(comment.unwrap_or_default()));
    Some(Counted { rule, counters })
}

fn expressions(
    list: Expressions,
    rule: &Rule,
    family: Family,
    mark: Option<Mark>,
    counters: Counters,
) -> Expressions {
    let source = match family {
        Family::V4 => &SOURCE_V4,
        Family::V6 => &SOURCE_V6,
    };
    let (list, code) = match rule {
        Rule::Loopback => (interface(list, "lo"), verdict::RETURN),
        Rule::Except(Except::Interface(name)) => (interface(list, name.as_str()), verdict::RETURN),
        Rule::Except(Except::Network(network)) => {
            let list = of_family(list, family).payload(source, 0);
            let list = match mask(network.prefix(), family) {
                Some(mask) => list.mask(&mask),
                None => list,
            };
            let list = match network.address() {
                IpAddr::V4(v4) => list.compare(Comparison::Equal, &v4.octets()),
                IpAddr::V6(v6) => list.compare(Comparison::Equal, &v6.octets()),
            };
            (list, verdict::RETURN)
        }
        Rule::Established(endpoint) => (
            to(list, *endpoint)
                .conntrack(Conntrack::State)
                .compare(Comparison::Equal, &ESTABLISHED.to_ne_bytes())
                .conntrack(Conntrack::Direction)
                .compare(Comparison::Equal, &[ORIGINAL]),
            verdict::ACCEPT,
        ),
        Rule::Openings => {
            let words = u32::from(family.bits()) / 32;
            let list = of_family(list, family).payload(source, 0).meta(Meta::Protocol, words);
            (list.payload(&DESTINATION_PORT, words + 1).lookup(Names::of(family).openings), verdict::ACCEPT)
        }
        Rule::Drop(endpoint, until) => {
            let list = match until {
                Some(second) => {
                    let end = second.saturating_add(1).saturating_mul(NANOSECONDS);
                    list.meta(Meta::Time, 0).big_endian().compare(Comparison::Less, &end.to_be_bytes())
                }
                None => list,
            };
            (to(list, *endpoint), verdict::DROP)
        }
        Rule::Grant(..) | Rule::Foreign(_) => return list, // have no comment, so are not written
    };
    let list = match mark {
        Some(mark) if code == verdict::ACCEPT => list.mark(mark.bits()),
        _ => list,
    };
    list.counter(counters).verdict(code, None)
}

fn interface(list: Expressions, name: &str) -> Expressions {
    let mut padded = [0; INTERFACE_NAME];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    list.meta(Meta::InterfaceName, 0).compare(Comparison::Equal, &padded)
}

fn to(list: Expressions, endpoint: Endpoint) -> Expressions {
    list.meta(Meta::Protocol, 0)
        .compare(Comparison::Equal, &[endpoint.protocol().number()])
        .payload(&DESTINATION_PORT, 0)
        .compare(Comparison::Equal, &endpoint.port().to_be_bytes())
}

/// The first bits of an address, or `None` for all of them.
fn mask(prefix: u8, family: Family) -> Option<Vec<u8>> {
    if prefix >= family.bits() {
        return None;
    }
    let bits = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0).to_be_bytes();
    Some(bits[..usize::from(family.bits() / 8)].to_vec())
}
