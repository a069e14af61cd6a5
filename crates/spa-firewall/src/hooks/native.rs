//! nf_tables, listed over netlink.

use std::collections::BTreeSet;
use std::io;

use rustix::net::netlink;

use super::expression::{Expression, decode, zero_ended};
use super::model::{Base, Body, Chain, Hook, Rule, Table};
use super::place::{Place, Which};
use super::sets::{Element, INTERVAL, Set};
use crate::netlink::{ACK, DUMP, Request, Socket, attributes, find, malformed};

/// `NFNL_SUBSYS_NFTABLES`, and of `enum nf_tables_msg_types` those that ask.
const SUBSYSTEM: u16 = 10 << 8;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_SET: u16 = SUBSYSTEM | 10;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
/// `NFT_TABLE_F_DORMANT`
const DORMANT: u32 = 1;
/// How often it is read again because it changed meanwhile.
const ATTEMPTS: usize = 5;

/// All tables on a packet's way. A kernel without nf_tables has none.
pub fn read() -> io::Result<Vec<Table>> {
    let mut socket = Socket::open(netlink::NETFILTER)?;
    let mut result = Err(io::ErrorKind::Interrupted.into());
    for _ in 0..ATTEMPTS {
        let before = match generation(&mut socket) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(Vec::new()),
            other => other?,
        };
        result = once(&mut socket);
        match &result {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
            Ok(_) if generation(&mut socket)? == before => break,
            _ => result = Err(io::ErrorKind::Interrupted.into()),
        }
    }
    result
}

fn generation(socket: &mut Socket) -> io::Result<Vec<u8>> {
    let mut found = Vec::new();
    let request = Request::new(GET_GENERATION, ACK).fixed(&[0; 4]);
    socket.request(request, |payload| found = payload.to_vec())?;
    Ok(found)
}

fn dump(
    socket: &mut Socket,
    request: Request,
    mut each: impl FnMut(u8, &[u8]) -> Option<()>,
) -> io::Result<()> {
    let mut bad = false;
    socket.request(request, |payload| {
        let read = payload.split_first().and_then(|(family, rest)| each(*family, rest.get(3..)?));
        bad |= read.is_none();
    })?;
    if bad { Err(malformed()) } else { Ok(()) }
}

fn all(kind: u16) -> Request {
    Request::new(kind, DUMP).fixed(&[0; 4])
}

/// `NFPROTO_…`, `linux/netfilter.h`. Others (bridge, arp) are not on the way.
fn which(family: u8) -> Option<Which> {
    Some(match family {
        1 => Which::Inet,
        2 => Which::Ip,
        5 => Which::Netdev,
        10 => Which::Ip6,
        _ => return None,
    })
}

fn family_of(which: Which) -> u8 {
    match which {
        Which::Inet => 1,
        Which::Ip | Which::LegacyV4 => 2,
        Which::Netdev => 5,
        Which::Ip6 | Which::LegacyV6 => 10,
    }
}

fn text(list: &[u8], kind: u16) -> Option<String> {
    find(list, kind).map(zero_ended)
}

fn number(list: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(list, kind)?.try_into().ok()?))
}

fn once(socket: &mut Socket) -> io::Result<Vec<Table>> {
    let mut tables: Vec<Table> = Vec::new();
    dump(socket, all(GET_TABLE), |family, table| {
        let asleep = number(table, 2).is_some_and(|flags| flags & DORMANT != 0);
        if let Some(which) = which(family).filter(|_| !asleep) {
            tables.push(Table::new(which, &text(table, 1)?));
        }
        Some(())
    })?;
    dump(socket, all(GET_CHAIN), |family, chain| {
        if let Some(table) = table_of(&mut tables, family, &text(chain, 1)?) {
            let base = base(table.which, chain)?;
            table.chains.insert(text(chain, 3)?, Chain { base, rules: Vec::new() });
        }
        Some(())
    })?;
    dump(socket, all(GET_RULE), |family, rule| {
        if let Some(table) = table_of(&mut tables, family, &text(rule, 1)?) {
            let name = text(rule, 2)?;
            let body = match find(rule, 4) {
                Some(list) => decode(list).map_or(Body::Opaque, Body::Native),
                None => Body::Native(Vec::new()),
            };
            let handle = find(rule, 3).and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
            let place = Place { handle, ..table.place(&name, "") };
            table.chains.get_mut(&name)?.rules.push(Rule { place, body });
        }
        Some(())
    })?;
    read_sets(socket, &mut tables)?;
    Ok(tables)
}

fn table_of<'a>(tables: &'a mut [Table], family: u8, name: &str) -> Option<&'a mut Table> {
    let which = which(family)?;
    tables.iter_mut().find(|table| table.which == which && table.name == name)
}

/// `None` if malformed; `Some(None)` if the chain is not a base chain on the way.
fn base(which: Which, chain: &[u8]) -> Option<Option<Base>> {
    /// `NF_DROP`
    const DROP: u32 = 0;
    let Some(hook) = find(chain, 4) else { return Some(None) };
    let number_of_hook = number(hook, 1)?;
    let found = match (which, number_of_hook) {
        (Which::Netdev, 0) | (Which::Inet, 5) => Hook::Ingress,
        (Which::Netdev, _) => return Some(None),
        (_, 0) => Hook::Prerouting,
        (_, 1) => Hook::Input,
        (_, 3) => Hook::Output,
        (_, 4) => Hook::Postrouting,
        _ => return Some(None),
    };
    let devices = match (find(hook, 4), find(hook, 3)) {
        (Some(list), _) => attributes(list)?.into_iter().map(|(_, name)| zero_ended(name)).collect(),
        (None, Some(one)) => vec![zero_ended(one)],
        (None, None) => Vec::new(),
    };
    Some(Some(Base {
        hook: found,
        priority: number(hook, 2)?.cast_signed(),
        is_nat: text(chain, 7).as_deref() == Some("nat"),
        drops_the_rest: number(chain, 5) == Some(DROP),
        devices,
    }))
}

/// Only those that a rule looks up.
fn read_sets(socket: &mut Socket, tables: &mut [Table]) -> io::Result<()> {
    let mut wanted = BTreeSet::new();
    for (at, table) in tables.iter().enumerate() {
        for rule in table.chains.values().flat_map(|chain| &chain.rules) {
            let Body::Native(expressions) = &rule.body else { continue };
            for expression in expressions {
                if let Expression::Lookup(set, ..) = expression {
                    wanted.insert((at, set.clone()));
                }
            }
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    dump(socket, all(GET_SET), |family, set| {
        if let Some(table) = table_of(tables, family, &text(set, 1)?) {
            let fields = find(set, 9).and_then(|description| find(description, 2));
            let fields = fields.map_or(Some(Vec::new()), |list| {
                attributes(list)?.into_iter().map(|(_, field)| Some(number(field, 1)? as usize)).collect()
            })?;
            let is_interval = number(set, 3).is_some_and(|flags| flags & INTERVAL != 0);
            table.sets.insert(text(set, 2)?, Set { is_interval, fields, elements: Vec::new() });
        }
        Some(())
    })?;
    for (at, name) in wanted {
        let table = &mut tables[at];
        let request = Request::new(GET_ELEMENTS, DUMP)
            .fixed(&[family_of(table.which), 0, 0, 0])
            .attribute(1, &[table.name.as_bytes(), &[0]].concat())
            .attribute(2, &[name.as_bytes(), &[0]].concat());
        let Some(set) = table.sets.get_mut(&name) else { continue };
        dump(socket, request, |_, answer| {
            let Some(list) = find(answer, 3) else { return Some(()) };
            for (_, element) in attributes(list)? {
                set.elements.push(Element::read(element)?);
            }
            Some(())
        })?;
    }
    Ok(())
}
