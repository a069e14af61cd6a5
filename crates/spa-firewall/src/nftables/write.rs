//! A plan as transactions.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::abi::{INET, SUBSYSTEM, chain, element, message, rule, set, table, verdict};
use super::expressions::{count, named, zero_ended};
use super::{BASE_CHAIN, Mark, Names, PRIORITY, TABLE, elements, rules};
use crate::elements::ElementPlan;
use crate::kernel::{Counted, Counters};
use crate::model::Family;
use crate::netlink::{APPEND, CREATE, Request};
use crate::plan::{ChainPlan, Plan};

/// What a request does, for messages, and the request.
pub type Step = (String, Request);

/// Elements in one request: a list must stay below 64 KiB, and one takes less than 300 bytes.
const LIST: usize = 128;
/// Openings or owners in one transaction. Written again, one takes less than 500 bytes, and the kernel's default for
/// one transaction is 208 KiB.
const PIECE: usize = 256;
/// A name that nothing has.
const PROBE: &str = "spa-probe";

/// A request of nf_tables, in family inet: `struct nfgenmsg`.
pub fn request(kind: u16, flags: u16) -> Request {
    Request::new(SUBSYSTEM << 8 | kind, flags).fixed(&[INET, 0, 0, 0])
}

/// A table with these flags and a set, to be tried.
pub fn probe(flags: u32, counts: bool) -> Vec<Request> {
    vec![make_table(PROBE, flags), make_set(PROBE, Names::of(Family::V4).openings, 1, counts, (0, 4))]
}

/// Removes the table. Making it first takes it over, or makes up for its absence.
pub fn removal(flags: u32) -> Vec<Step> {
    vec![take_over(flags), remove_table()]
}

/// Everything but the elements.
///
/// The flags are those that take over the table as it stands, and those that it is made with. `standing` is `None` if
/// the table is missing or not as we make it; otherwise it has the families whose sets hold what does not belong there.
pub fn chains(
    plan: &Plan,
    (takes, makes): (u32, u32),
    counts: bool,
    mark: Option<Mark>,
    standing: Option<&BTreeSet<Family>>,
) -> Vec<Step> {
    let mut first = vec![take_over(takes)];
    let fills =
        Family::BOTH.into_iter().any(|family| matches!(plan.family(family).chain, ChainPlan::Fill(_)));
    if fills && standing.is_none() {
        first.push(remove_table());
        first.extend(frame(makes, counts));
    }
    for family in Family::BOTH {
        if let ChainPlan::Fill(rules) = &plan.family(family).chain {
            if standing.is_some_and(|astray| astray.contains(&family)) {
                first.extend(empty_sets(family));
            }
            first.extend(fill(family, rules, mark));
        }
    }
    first
}

/// The changes to the sets, in parts that each fit one transaction. What closes comes first.
pub fn pieces(plan: &Plan) -> impl Iterator<Item = (Family, ElementPlan)> {
    Family::BOTH.into_iter().flat_map(|family| {
        pieces_of(&plan.family(family).elements).into_iter().map(move |piece| (family, piece))
    })
}

fn make_table(name: &str, flags: u32) -> Request {
    request(message::NEW_TABLE, CREATE)
        .attribute(table::NAME, &zero_ended(name))
        .attribute(table::FLAGS, &flags.to_be_bytes())
}

/// Makes the table ours if it is nobody's, so that others cannot change it between one transaction and the next.
pub fn take_over(flags: u32) -> Step {
    ("taking over the table".into(), make_table(TABLE, flags))
}

fn remove_table() -> Step {
    let request = request(message::DELETE_TABLE, 0).attribute(table::NAME, &zero_ended(TABLE));
    ("removing the table".into(), request)
}

/// Table, sets, chains and jumps.
fn frame(flags: u32, counts: bool) -> Vec<Step> {
    let mut steps = vec![("making the table".to_owned(), make_table(TABLE, flags))];
    for (family, id) in [(Family::V4, 1), (Family::V6, 3)] {
        let Names { chain, openings, owners } = Names::of(family);
        let (types, lengths) = (elements::key_types(family), elements::key_lengths(family));
        let set = make_set(TABLE, openings, id, counts, (types.0, lengths.0));
        steps.push((format!("making the set {openings}"), set));
        let set = make_set(TABLE, owners, id + 1, false, (types.1, lengths.1));
        steps.push((format!("making the set {owners}"), set));
        steps.push((format!("making the chain {chain}"), make_chain(chain)));
    }
    let base = make_chain(BASE_CHAIN)
        .nest(chain::HOOK, |hook| {
            hook.attribute(chain::HOOK_NUMBER, &chain::LOCAL_IN.to_be_bytes())
                .attribute(chain::HOOK_PRIORITY, &PRIORITY.to_be_bytes())
        })
        .attribute(chain::POLICY, &verdict::ACCEPT.to_be_bytes())
        .attribute(chain::TYPE, &zero_ended("filter"));
    steps.push((format!("making the chain {BASE_CHAIN}"), base));
    for family in Family::BOTH {
        let jump = rules::jump(request(message::NEW_RULE, CREATE | APPEND), family);
        steps.push((format!("jumping for {family}"), jump));
    }
    steps
}

fn make_chain(name: &str) -> Request {
    request(message::NEW_CHAIN, CREATE)
        .attribute(chain::TABLE, &zero_ended(TABLE))
        .attribute(chain::NAME, &zero_ended(name))
}

/// The flags of a set of ours.
pub fn set_flags(counts: bool) -> u32 {
    set::FLAG_TIMEOUT | if counts { set::FLAG_EXPRESSION } else { 0 }
}

/// `id` tells the new sets of one transaction apart.
fn make_set(table: &str, name: &str, id: u32, counts: bool, (types, length): (u32, usize)) -> Request {
    let request = request(message::NEW_SET, CREATE)
        .attribute(set::TABLE, &zero_ended(table))
        .attribute(set::NAME, &zero_ended(name))
        .attribute(set::FLAGS, &set_flags(counts).to_be_bytes())
        .attribute(set::KEY_TYPE, &types.to_be_bytes())
        .attribute(set::KEY_LENGTH, &(length as u32).to_be_bytes())
        .attribute(set::ID, &id.to_be_bytes());
    match counts {
        true => request
            .nest(set::EXPRESSION, |one| named(one, "counter", |data| count(data, Counters::default()))),
        false => request,
    }
}

/// Empties the family's chain and fills it.
fn fill(family: Family, wanted: &[Counted], mark: Option<Mark>) -> Vec<Step> {
    let chain = Names::of(family).chain;
    let empty = request(message::DELETE_RULE, 0)
        .attribute(rule::TABLE, &zero_ended(TABLE))
        .attribute(rule::CHAIN, &zero_ended(chain));
    let mut steps = vec![(format!("emptying the chain {chain}"), empty)];
    steps.extend(wanted.iter().filter_map(|Counted { rule, counters }| {
        let blank = request(message::NEW_RULE, CREATE | APPEND);
        let request = rules::write(blank, rule, family, mark, *counters)?;
        Some((format!("adding the {family} rule \"{rule}\""), request))
    }));
    steps
}

fn empty_sets(family: Family) -> [Step; 2] {
    let Names { openings, owners, .. } = Names::of(family);
    [openings, owners]
        .map(|set| (format!("emptying the set {set}"), place(request(message::DELETE_ELEMENT, 0), set)))
}

/// Parts of bounded size, what only goes first. An opening or owner that is written again stays in one part.
fn pieces_of(plan: &ElementPlan) -> Vec<ElementPlan> {
    let size = plan.close.len() + plan.open.len() + plan.remove.len() + plan.insert.len();
    if size <= PIECE {
        return if plan.is_empty() { Vec::new() } else { vec![plan.clone()] };
    }
    let closed: BTreeSet<_> = plan.close.iter().collect();
    let opened: BTreeSet<_> = plan.open.iter().map(|(opening, _)| opening).collect();
    let removed: BTreeSet<_> = plan.remove.iter().collect();
    let inserted: BTreeSet<_> = plan.insert.iter().map(|(key, _)| key).collect();
    let only_closed: Vec<_> =
        plan.close.iter().filter(|opening| !opened.contains(opening)).copied().collect();
    let only_removed: Vec<_> = plan.remove.iter().filter(|key| !inserted.contains(key)).cloned().collect();
    let none = ElementPlan::default;
    let mut pieces = Vec::new();
    pieces.extend(only_closed.chunks(PIECE).map(|close| ElementPlan { close: close.to_vec(), ..none() }));
    pieces.extend(plan.open.chunks(PIECE).map(|open| {
        let again = open.iter().map(|(opening, _)| *opening).filter(|opening| closed.contains(opening));
        ElementPlan { close: again.collect(), open: open.to_vec(), ..none() }
    }));
    pieces.extend(only_removed.chunks(PIECE).map(|remove| ElementPlan { remove: remove.to_vec(), ..none() }));
    pieces.extend(plan.insert.chunks(PIECE).map(|insert| {
        let again = insert.iter().map(|(key, _)| key).filter(|key| removed.contains(key)).cloned();
        ElementPlan { remove: again.collect(), insert: insert.to_vec(), ..none() }
    }));
    pieces
}

/// The changes to the sets of a family, as of `now`.
///
/// What goes is first added, which succeeds whether it is there or not, and then deleted: it may have ended by itself
/// meanwhile, and deleting what is not there would fail. Deleting and adding is also how a time-out is set anew on
/// every kernel; adding alone does so only on newer ones.
pub fn change(family: Family, plan: &ElementPlan, counts: bool, now: SystemTime) -> Vec<Step> {
    let Names { openings, owners, .. } = Names::of(family);
    let close: Vec<_> = plan.close.iter().map(elements::opening_key).collect();
    let remove: Vec<_> = plan.remove.iter().map(elements::owner_key).collect();
    let mut steps = forget(openings, &close);
    steps.extend(lists(message::NEW_ELEMENT, openings, &plan.open, |list, (opening, open)| {
        elements::opening(list, opening, open, counts, now)
    }));
    steps.extend(forget(owners, &remove));
    steps.extend(lists(message::NEW_ELEMENT, owners, &plan.insert, |list, (key, lifetime)| {
        elements::owner(list, key, lifetime, now)
    }));
    steps
}

fn forget(set: &str, keys: &[Vec<u8>]) -> Vec<Step> {
    let mut steps = lists(message::NEW_ELEMENT, set, keys, |list, key| elements::fleeting(list, key));
    steps.extend(lists(message::DELETE_ELEMENT, set, keys, |list, key| elements::bare(list, key)));
    steps
}

fn lists<T>(kind: u16, set: &str, items: &[T], each: impl Fn(Request, &T) -> Request) -> Vec<Step> {
    let verb = if kind == message::NEW_ELEMENT { "adding to" } else { "deleting from" };
    let requests = items.chunks(LIST).map(|items| {
        let flags = if kind == message::NEW_ELEMENT { CREATE } else { 0 };
        let request = place(request(kind, flags), set)
            .nest(element::LIST_ELEMENTS, |list| items.iter().fold(list, &each));
        (format!("{verb} the set {set}"), request)
    });
    requests.collect()
}

/// Appends which set it is.
pub fn place(request: Request, set: &str) -> Request {
    request.attribute(element::LIST_TABLE, &zero_ended(TABLE)).attribute(element::LIST_SET, &zero_ended(set))
}
