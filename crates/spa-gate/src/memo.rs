//! The memo: packets that passed the gate a moment ago, so that a copy costs nothing more.
//!
//! It is about cost alone; that no packet is accepted twice is the warden's replay state. Only packets whose `M` was
//! right are in it, so a holder of a cloak key alone cannot fill it.
//!
//! A copy of a packet that the warden has not judged yet may be the honest original, overtaken by a copy from
//! elsewhere. It goes on to the warden with the Diffie-Hellman result of the first, once for each source. When the
//! warden says that the packet is bound to an address, the memo stays open for that address, once.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::HashMap;

use spa_proto::{SharedSecret, Tag};

use crate::candidate::Outcome;
use crate::clients::Clients;

/// Packets remembered. When full, the oldest of all is forgotten.
pub const MEMO_ENTRIES: usize = 4096;
/// Packets remembered of one client. When full, that client's oldest is forgotten.
///
/// A client's packets that are no newer than one forgotten of it are refused as replays. So forgetting lets no
/// captured packet cost a second Diffie-Hellman; and it shuts out no honest client, whose times never fall.
pub const MEMO_ENTRIES_PER_CLIENT: u8 = 32;
/// Sources from which one packet goes to the warden before the warden has answered. When full, further copies are
/// refused as replays: an honest original is then lost only if 16 copies overtake it within the time that the warden
/// takes to open one packet.
pub const MEMO_SOURCES: usize = 16;

/// No slot.
const NONE: u16 = u16::MAX;

/// A client's part of the memo: its entries as a queue, oldest first.
#[derive(Clone, Copy)]
pub(crate) struct Remembered {
    oldest: u16,
    newest: u16,
    count: u8,
    /// The newest time, Unix seconds, of those forgotten.
    floor: u32,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { oldest: NONE, newest: NONE, count: 0, floor: 0 }
    }
}

impl Remembered {
    /// Whether a packet of this time may have been here and been forgotten.
    pub(crate) fn may_have_forgotten(self, time: u32) -> bool {
        time <= self.floor
    }

    /// The same, for a memo that is filled anew.
    pub(crate) fn without_entries(self) -> Self {
        Self { floor: self.floor, ..Self::default() }
    }
}

/// The sources that a packet came from, in a fixed buffer.
struct Sources {
    addresses: [IpAddr; MEMO_SOURCES],
    count: u8,
}

impl Sources {
    fn new(first: IpAddr) -> Self {
        let mut sources = Self { addresses: [IpAddr::V4(Ipv4Addr::UNSPECIFIED); MEMO_SOURCES], count: 0 };
        sources.push(first);
        sources
    }

    fn contains(&self, source: IpAddr) -> bool {
        self.addresses[..usize::from(self.count)].contains(&source)
    }

    fn is_full(&self) -> bool {
        usize::from(self.count) == MEMO_SOURCES
    }

    /// Adds a source where there is room.
    fn push(&mut self, source: IpAddr) {
        if let Some(free) = self.addresses.get_mut(usize::from(self.count)) {
            *free = source;
            self.count += 1;
        }
    }
}

/// A packet of which a copy may go on.
struct Open {
    es: SharedSecret,
    /// It went to the warden from these.
    sources: Sources,
    /// Once the warden has answered: the one source that it is open for, once.
    bound: Option<IpAddr>,
}

impl Open {
    fn is_for(&self, source: IpAddr) -> bool {
        match self.bound {
            Some(bound) => bound == source,
            None => !self.sources.contains(source) && !self.sources.is_full(),
        }
    }
}

struct Slot {
    tag: Tag,
    time: u32,
    client: u32,
    /// `None`: nothing more can come of it.
    open: Option<Open>,
    /// Neighbours in the queue of all entries.
    older: u16,
    newer: u16,
    /// Next in the queue of its client.
    next_of_client: u16,
}

/// An entry that [`Memo::recall`] found.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) client: u32,
    slot: u16,
}

/// What the memo knows of a packet from a source.
pub(crate) enum Recall {
    /// Nothing.
    New,
    /// A copy, to be refused.
    Replay,
    /// A copy that may go on, if its `M` is right: SipHash promises nothing against collisions to a holder of its key,
    /// the cloak key, so this may be another packet with the same tag.
    Copy(Entry),
}

/// The memo, of fixed size.
pub(crate) struct Memo {
    slots: Vec<Slot>,
    by_tag: HashMap<Tag, u16>,
    oldest: u16,
    newest: u16,
}

impl Memo {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::with_capacity(MEMO_ENTRIES),
            // Twice the room, so that the table cleans up deleted entries in place and never grows.
            by_tag: HashMap::with_capacity(2 * MEMO_ENTRIES),
            oldest: NONE,
            newest: NONE,
        }
    }

    /// Looks a packet up.
    pub(crate) fn recall(&self, tag: &Tag, source: IpAddr) -> Recall {
        let Some(slot) = self.by_tag.get(tag).copied() else {
            return Recall::New;
        };
        let entry = &self.slots[usize::from(slot)];
        let open = entry.open.as_ref().is_some_and(|open| open.is_for(source));
        if open { Recall::Copy(Entry { client: entry.client, slot }) } else { Recall::Replay }
    }

    /// Lets the copy go on: it is now remembered for this source as well. `None` where it is spent.
    pub(crate) fn pass(&mut self, entry: Entry, source: IpAddr) -> Option<SharedSecret> {
        let state = &mut self.slots[usize::from(entry.slot)].open;
        let open = state.as_mut()?;
        let es = open.es.clone();
        match open.bound {
            None => open.sources.push(source),
            Some(_) => *state = None,
        }
        Some(es)
    }

    /// The warden's answer. For a packet that was forgotten meanwhile, nothing.
    pub(crate) fn settle(&mut self, tag: &Tag, outcome: Outcome) {
        let Some(slot) = self.by_tag.get(tag) else {
            return;
        };
        let state = &mut self.slots[usize::from(*slot)].open;
        match (state.as_mut(), outcome) {
            // Bound to an address that it has not come from yet. A second answer says the same.
            (Some(open), Outcome::BoundTo(to)) if !open.sources.contains(to.to_canonical()) => {
                open.bound = Some(to.to_canonical());
            }
            _ => *state = None,
        }
    }

    /// Remembers a packet that the warden is about to judge.
    pub(crate) fn remember_pending(
        &mut self,
        clients: &mut Clients,
        client: u32,
        tag: Tag,
        time: u32,
        es: SharedSecret,
        source: IpAddr,
    ) {
        self.remember(
            clients,
            client,
            tag,
            time,
            Some(Open { es, sources: Sources::new(source), bound: None }),
        );
    }

    /// Remembers a packet that is refused whatever comes.
    pub(crate) fn remember_spent(&mut self, clients: &mut Clients, client: u32, tag: Tag, time: u32) {
        self.remember(clients, client, tag, time, None);
    }

    fn remember(&mut self, clients: &mut Clients, client: u32, tag: Tag, time: u32, open: Option<Open>) {
        let slot = Slot { tag, time, client, open, older: NONE, newer: NONE, next_of_client: NONE };
        let own = clients.get_mut(client).remembered;
        let forgotten = if own.count == MEMO_ENTRIES_PER_CLIENT {
            Some(own.oldest)
        } else if self.slots.len() == MEMO_ENTRIES {
            Some(self.oldest)
        } else {
            None
        };
        let index = match forgotten {
            Some(index) => {
                self.forget(clients, index);
                self.slots[usize::from(index)] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u16 // below MEMO_ENTRIES
            }
        };
        self.append(index);
        self.append_to_client(clients, client, index);
        self.by_tag.insert(tag, index);
    }

    /// Puts a slot at the new end of the queue of all.
    fn append(&mut self, index: u16) {
        self.slots[usize::from(index)].older = self.newest;
        match self.newest {
            NONE => self.oldest = index,
            newest => self.slots[usize::from(newest)].newer = index,
        }
        self.newest = index;
    }

    /// Puts a slot at the new end of its client's queue.
    fn append_to_client(&mut self, clients: &mut Clients, client: u32, index: u16) {
        let own = &mut clients.get_mut(client).remembered;
        match own.newest {
            NONE => own.oldest = index,
            newest => self.slots[usize::from(newest)].next_of_client = index,
        }
        own.newest = index;
        own.count += 1;
    }

    /// Takes an entry out of all queues. It is its client's oldest: either chosen as such, or the oldest of all.
    fn forget(&mut self, clients: &mut Clients, index: u16) {
        let slot = &self.slots[usize::from(index)];
        let (older, newer) = (slot.older, slot.newer);
        let own = &mut clients.get_mut(slot.client).remembered;
        own.oldest = slot.next_of_client;
        if own.oldest == NONE {
            own.newest = NONE;
        }
        own.count -= 1;
        own.floor = own.floor.max(slot.time);
        self.by_tag.remove(&slot.tag);
        match older {
            NONE => self.oldest = newer,
            older => self.slots[usize::from(older)].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.slots[usize::from(newer)].older = older,
        }
    }

    /// The memo for another list of clients: `moved` has the new indexes by the old, `None` for who is gone.
    pub(crate) fn for_clients(self, moved: &[Option<u32>], clients: &mut Clients) -> Self {
        let mut memo = Self::new();
        let mut next = self.oldest;
        let mut slots: Vec<Option<Slot>> = self.slots.into_iter().map(Some).collect();
        while let Some(slot) = slots.get_mut(usize::from(next)).and_then(Option::take) {
            next = slot.newer;
            if let Some(client) = moved[slot.client as usize] {
                memo.remember(clients, client, slot.tag, slot.time, slot.open);
            }
        }
        memo
    }
}

#[cfg(test)]
mod tests;
