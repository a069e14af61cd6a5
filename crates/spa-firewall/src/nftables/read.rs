//! What stands in the kernel.

use std::collections::BTreeSet;
use std::io;
use std::time::SystemTime;

use super::abi::{LIST_ELEMENT, chain, element, message, rule, set, table, verdict};
use super::expressions::zero_ended;
use super::{BASE_CHAIN, Names, Nftables, PRIORITY, TABLE, elements, not_permitted, rules, write};
use crate::elements::ElementPlan;
use crate::error::Error;
use crate::kernel::{Counted, Counters, Elements, FamilyState, Rule};
use crate::model::Family;
use crate::netlink::{ACK, DUMP, Request, attributes, find};

/// How often a listing that was disturbed is begun again.
const DUMP_ATTEMPTS: u32 = 5;

/// What is known of the table from its own attributes.
pub struct Table {
    flags: u32,
}

impl Nftables {
    /// The table, or `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Owned`] if it is another socket's.
    pub fn table(&mut self) -> Result<Option<Table>, Error> {
        let request = write::request(message::GET_TABLE, ACK).attribute(table::NAME, &zero_ended(TABLE));
        let Some(found) = self.one("reading the table", request)? else { return Ok(None) };
        let number = |kind| found.get(4..).and_then(|attributes| number(find(attributes, kind)?));
        let flags = number(table::FLAGS).unwrap_or_default();
        let own = self.socket.port().map_err(|source| Error::Io { doing: "asking for our port", source })?;
        match number(table::OWNER).filter(|_| flags & table::FLAG_OWNER != 0) {
            Some(port) if port != 0 && port != own => Err(Error::Owned { port }),
            _ => Ok(Some(Table { flags })),
        }
    }

    /// One family. A table that is not as we make it counts as one foreign rule, with no grants: it is made anew. So
    /// do sets with elements that cannot be ours.
    pub fn state(&mut self, family: Family) -> Result<FamilyState, Error> {
        let mut state = FamilyState { elements: Some(Elements::default()), ..FamilyState::default() };
        self.intact = false;
        self.astray.remove(&family);
        let Some(table) = self.table()? else {
            (self.takes, self.orphaned) = (self.makes, false);
            return Ok(state);
        };
        state.present = true;
        self.takes = taking_flags(table.flags);
        self.orphaned = self.takes & !table.flags != 0;
        if !self.is_intact(&table)? {
            state.rules.push(foreign(format!("table inet {TABLE} is not as spa-server makes it")));
            return Ok(state);
        }
        self.intact = true;
        state.jumps.push(1);
        state.rules = self.rules(family)?;
        match self.elements(family)? {
            Some(elements) => state.elements = Some(elements),
            None => {
                self.astray.insert(family);
                state.rules.push(foreign("a set holds what is no grant".into()));
            }
        }
        Ok(state)
    }

    /// Whether sets, chains and jumps are as we make them.
    fn is_intact(&mut self, table: &Table) -> Result<bool, Error> {
        if table.flags & table::FLAG_DORMANT != 0 {
            return Ok(false);
        }
        for family in Family::BOTH {
            let Names { chain, openings, owners } = Names::of(family);
            let (types, lengths) = (elements::key_types(family), elements::key_lengths(family));
            if self.chain(chain)?.is_none()
                || !self.has_set(openings, write::set_flags(self.counts), (types.0, lengths.0))?
                || !self.has_set(owners, write::set_flags(false), (types.1, lengths.1))?
            {
                return Ok(false);
            }
        }
        let Some(base) = self.chain(BASE_CHAIN)? else { return Ok(false) };
        if !is_our_hook(&base).unwrap_or(false) {
            return Ok(false);
        }
        let jumps = self.dump_rules(BASE_CHAIN)?;
        let wanted = Family::BOTH.map(|family| rules::jump(write::request(message::NEW_RULE, 0), family));
        Ok(jumps.len() == wanted.len()
            && jumps.iter().zip(&wanted).all(|(found, wanted)| rules::same(found, wanted)))
    }

    fn chain(&mut self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let request = write::request(message::GET_CHAIN, ACK)
            .attribute(chain::TABLE, &zero_ended(TABLE))
            .attribute(chain::NAME, &zero_ended(name));
        self.one("reading a chain", request)
    }

    fn has_set(&mut self, name: &str, flags: u32, (types, length): (u32, usize)) -> Result<bool, Error> {
        let request = write::request(message::GET_SET, ACK)
            .attribute(set::TABLE, &zero_ended(TABLE))
            .attribute(set::NAME, &zero_ended(name));
        let Some(found) = self.one("reading a set", request)? else { return Ok(false) };
        let number = |kind| found.get(4..).and_then(|attributes| number(find(attributes, kind)?));
        let same = [(set::FLAGS, flags), (set::KEY_TYPE, types), (set::KEY_LENGTH, length as u32)];
        Ok(same.into_iter().all(|(kind, wanted)| number(kind) == Some(wanted)))
    }

    fn rules(&mut self, family: Family) -> Result<Vec<Counted>, Error> {
        let found = self.dump_rules(Names::of(family).chain)?;
        let blank = || write::request(message::NEW_RULE, 0);
        let mark = self.mark;
        let read = |payload: &Vec<u8>| rules::read(payload, family, mark, blank).ok_or_else(malformed);
        found.iter().map(read).collect()
    }

    fn dump_rules(&mut self, chain: &str) -> Result<Vec<Vec<u8>>, Error> {
        let rules = self.dump("reading rules", || {
            write::request(message::GET_RULE, DUMP)
                .attribute(rule::TABLE, &zero_ended(TABLE))
                .attribute(rule::CHAIN, &zero_ended(chain))
        })?;
        Ok(rules.into_iter().map(|(_, rule)| rule).collect())
    }

    /// The grants of a family; `None` if there are elements that are none.
    fn elements(&mut self, family: Family) -> Result<Option<Elements>, Error> {
        let names = Names::of(family);
        let openings =
            self.dump_elements(names.openings, |element, now| elements::read_open(element, family, now))?;
        let owners =
            self.dump_elements(names.owners, |element, now| elements::read_own(element, family, now))?;
        Ok(openings.zip(owners).map(|(openings, owners)| Elements {
            owners: owners.into_iter().collect(),
            openings: openings.into_iter().collect(),
        }))
    }

    fn dump_elements<T>(
        &mut self,
        set: &str,
        read: impl Fn(&[u8], SystemTime) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Error> {
        let lists =
            self.dump("reading a set", || write::place(write::request(message::GET_ELEMENT, DUMP), set))?;
        let mut found = Some(Vec::new());
        for (now, list) in &lists {
            for element in list_of(list).ok_or_else(malformed)? {
                found = found.zip(read(element, *now)).map(|(mut all, one)| {
                    all.push(one);
                    all
                });
            }
        }
        Ok(found)
    }

    /// Reads again the elements that the plan names, one by one.
    pub fn reread_elements(
        &mut self,
        family: Family,
        plan: &ElementPlan,
        state: &mut FamilyState,
    ) -> Result<(), Error> {
        let names = Names::of(family);
        let Some(held) = &mut state.elements else { return Ok(()) };
        // What is written again stands twice in a plan: deleted, and added.
        let openings: BTreeSet<_> =
            plan.close.iter().chain(plan.open.iter().map(|(opening, _)| opening)).collect();
        for opening in openings {
            let read = self.element(names.openings, &elements::opening_key(opening))?;
            match read.and_then(|(element, now)| elements::read_open(&element, family, now)) {
                Some((_, open)) => held.openings.insert(*opening, open),
                None => held.openings.remove(opening),
            };
        }
        let owners: BTreeSet<_> = plan.remove.iter().chain(plan.insert.iter().map(|(key, _)| key)).collect();
        for key in owners {
            let read = self.element(names.owners, &elements::owner_key(key))?;
            match read.and_then(|(element, now)| elements::read_own(&element, family, now)) {
                Some((_, lifetime)) => held.owners.insert(key.clone(), lifetime),
                None => held.owners.remove(key),
            };
        }
        Ok(())
    }

    fn element(&mut self, set: &str, key: &[u8]) -> Result<Option<(Vec<u8>, SystemTime)>, Error> {
        let request = write::place(write::request(message::GET_ELEMENT, ACK), set)
            .nest(element::LIST_ELEMENTS, |list| elements::bare(list, key));
        let Some(answer) = self.one("reading an element", request)? else { return Ok(None) };
        let now = SystemTime::now();
        let element = list_of(&answer).ok_or_else(malformed)?.first().map(|element| (element.to_vec(), now));
        Ok(element)
    }

    /// The answer to a question for one thing, or `None` if there is no such thing.
    fn one(&mut self, doing: &'static str, request: Request) -> Result<Option<Vec<u8>>, Error> {
        let mut found = None;
        match self.socket.request(request, |payload| found = Some(payload.to_vec())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(doing, error)),
            Ok(()) => Ok(found),
        }
    }

    /// All answers and when each came, for a long list takes its time; none if what is asked for is not there.
    fn dump(
        &mut self,
        doing: &'static str,
        request: impl Fn() -> Request,
    ) -> Result<Vec<(SystemTime, Vec<u8>)>, Error> {
        let mut left = DUMP_ATTEMPTS;
        loop {
            left -= 1;
            let mut found = Vec::new();
            match self.socket.request(request(), |payload| found.push((SystemTime::now(), payload.to_vec())))
            {
                Ok(()) => return Ok(found),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted && left > 0 => {}
                Err(error) => return Err(failed(doing, error)),
            }
        }
    }
}

/// A table that outlived its owner has lost the one flag and kept the other, and may be taken over; one that was made
/// without both stays without.
fn taking_flags(found: u32) -> u32 {
    if found & table::FLAG_PERSIST != 0 { table::FLAG_OWNER | table::FLAG_PERSIST } else { 0 }
}

fn foreign(text: String) -> Counted {
    Counted { rule: Rule::Foreign(text), counters: Counters::default() }
}

fn failed(doing: &'static str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => not_permitted(),
        io::ErrorKind::InvalidData => Error::Netlink { doing },
        _ => Error::Io { doing, source: error },
    }
}

fn malformed() -> Error {
    Error::Netlink { doing: "reading nf_tables" }
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// The elements of one answer, header included.
fn list_of(payload: &[u8]) -> Option<Vec<&[u8]>> {
    let Some(list) = find(payload.get(4..)?, element::LIST_ELEMENTS) else { return Some(Vec::new()) };
    let elements = attributes(list)?;
    Some(elements.into_iter().filter(|(kind, _)| *kind == LIST_ELEMENT).map(|(_, element)| element).collect())
}

fn is_our_hook(payload: &[u8]) -> Option<bool> {
    let attributes = payload.get(4..)?;
    let hook = find(attributes, chain::HOOK)?;
    let number_of = |bytes, kind| number(find(bytes, kind)?);
    Some(
        number_of(hook, chain::HOOK_NUMBER)? == chain::LOCAL_IN
            && number_of(hook, chain::HOOK_PRIORITY)? == PRIORITY as u32
            && number_of(attributes, chain::POLICY)? == verdict::ACCEPT as u32
            && find(attributes, chain::TYPE)? == b"filter\0",
    )
}
