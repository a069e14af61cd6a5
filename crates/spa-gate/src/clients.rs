//! The clients as the verifier knows them, found by hint.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use spa_proto::{Envelope, GateKeys, Hint, PublicKey, epoch};

use crate::budget::Bucket;
use crate::fresh::Window;
use crate::memo::Remembered;
use crate::reason::Reason;
use crate::time::Now;

/// One client: what names it and lets it through, and what it has spent. About 100 bytes.
pub(crate) struct Client {
    pub(crate) key: PublicKey,
    pub(crate) gate: GateKeys,
    pub(crate) bucket: Bucket,
    pub(crate) remembered: Remembered,
}

/// Every client's hint in one epoch; about 2 MB for 100,000 clients.
struct Table {
    epoch: u64,
    clients: HashMap<Hint, u32>,
    /// Clients whose hint another one has too: with honest psks in 2^-64 of the cases, so nearly always empty.
    twins: Vec<(Hint, u32)>,
}

impl Table {
    fn new(epoch: u64, clients: &[Client]) -> Self {
        let mut table = Self { epoch, clients: HashMap::with_capacity(clients.len()), twins: Vec::new() };
        for (index, client) in (0..).zip(clients) {
            let hint = client.gate.hint(epoch);
            match table.clients.entry(hint) {
                Entry::Vacant(entry) => {
                    entry.insert(index);
                }
                Entry::Occupied(_) => table.twins.push((hint, index)),
            }
        }
        table
    }

    /// The client that has this hint and made this packet.
    fn find(&self, clients: &[Client], envelope: &Envelope) -> Result<u32, Reason> {
        let hint = envelope.hint();
        let first = *self.clients.get(&hint).ok_or(Reason::Name)?;
        let twins = self.twins.iter().filter(|(twin, _)| *twin == hint).map(|(_, index)| *index);
        core::iter::once(first)
            .chain(twins)
            .find(|index| clients[*index as usize].gate.admits(envelope))
            .ok_or(Reason::Gate)
    }
}

/// All clients, with the hint tables of the epochs in the window.
///
/// A table is built when a packet first needs it, once every 64 s: some ten milliseconds for 100,000 clients. Only
/// epochs in the window are ever built and others are dropped first, so there are at most 3 at a max-age of 60 s,
/// and 20 at 10 min.
pub(crate) struct Clients {
    list: Vec<Client>,
    tables: Vec<Table>,
}

impl Clients {
    /// Clients by key; of two for one key the last counts.
    pub(crate) fn new(clients: Vec<(PublicKey, GateKeys)>) -> Self {
        let mut indexes = HashMap::with_capacity(clients.len());
        let mut list: Vec<Client> = Vec::with_capacity(clients.len());
        for (key, gate) in clients {
            match indexes.insert(key, list.len()) {
                None => list.push(Client {
                    key,
                    gate,
                    bucket: Bucket::default(),
                    remembered: Remembered::default(),
                }),
                Some(index) => {
                    list[index].gate = gate;
                    indexes.insert(key, index);
                }
            }
        }
        Self { list, tables: Vec::new() }
    }

    /// Takes over what the clients of `old` that are still here had spent. Returns their new indexes by their old.
    pub(crate) fn inherit(&mut self, old: &Self) -> Vec<Option<u32>> {
        let indexes: HashMap<PublicKey, u32> =
            (0..).zip(&self.list).map(|(i, client)| (client.key, i)).collect();
        let mut moved = Vec::with_capacity(old.list.len());
        for client in &old.list {
            let index = indexes.get(&client.key).copied();
            if let Some(index) = index {
                let heir = &mut self.list[index as usize];
                heir.bucket = client.bucket;
                heir.remembered = client.remembered.without_entries();
            }
            moved.push(index);
        }
        moved
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> &mut Client {
        &mut self.list[index as usize]
    }

    /// Who made this packet: its hint is looked up, then `M` checked. The packet's time is in the window.
    pub(crate) fn find(&mut self, now: Now, window: Window, envelope: &Envelope) -> Result<u32, Reason> {
        let wanted = epoch(envelope.time());
        let table = match self.tables.iter().position(|table| table.epoch == wanted) {
            Some(position) => &self.tables[position],
            None => {
                let live = window.epochs(now);
                self.tables.retain(|table| live.contains(&table.epoch));
                self.tables.push(Table::new(wanted, &self.list));
                &self.tables[self.tables.len() - 1]
            }
        };
        table.find(&self.list, envelope)
    }
}
