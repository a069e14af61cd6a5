//! Knocks: judged, recorded, and carried out together.

use std::net::IpAddr;
use std::sync::mpsc::TryRecvError;
use std::time::Instant;

use spa_gate::{Accepted, Change, Now, Refusal};
use spa_proto::PublicKey;

use super::super::events;
use super::super::inbox::Inbox;
use super::{Arrival, Command, Engine, News};
use crate::clock;

/// Knocks that one write to the record and one change of the firewall take together.
const GROUP: usize = 64;

impl Engine {
    /// Carries out a knock and those that wait behind it, with one write to the record and one change of the firewall,
    /// which is read back later. Returns the command that came after them.
    pub(super) fn knocks(&mut self, first: Arrival, inbox: &Inbox) -> Option<Command> {
        self.refresh_addresses();
        let now = clock::now();
        let mut accepted = Vec::new();
        let mut next = Some(first);
        let mut after = None;
        let mut taken = 0;
        while let Some(arrival) = next.take() {
            if let Some(knock) = self.judge(now, arrival) {
                accepted.push(knock);
            }
            taken += 1;
            if taken < GROUP {
                match inbox.poll() {
                    Ok(Command::Knock(more)) => next = Some(*more),
                    Ok(other) => after = Some(other),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
                }
            }
        }
        if !accepted.is_empty() {
            self.grant(now, accepted);
        }
        after
    }

    fn judge(&mut self, now: Now, arrival: Arrival) -> Option<(Accepted, Instant)> {
        if !self.addresses.contains(&arrival.destination) {
            // Only routed through this host: for another server, or astray.
            self.misdirected += 1;
            events::not_ours(&self.name_of(&arrival.client), arrival.source, arrival.destination);
            return None;
        }
        let judged = if self.record.is_broken() && !self.record.try_reopen(now.boot) {
            None
        } else {
            Some(self.judge.judge(now, &arrival.client, arrival.source, &arrival.knock))
        };
        match judged {
            Some(Ok(accepted)) => {
                if let Some(cloak) = &arrival.cloak {
                    self.cloak_use.note(&arrival.client, cloak);
                }
                Some((accepted, arrival.at))
            }
            Some(Err(refusal)) => {
                self.refused(&arrival.client, arrival.source, refusal);
                None
            }
            None => {
                self.unrecorded += 1;
                events::record_broken(&self.name_of(&arrival.client), arrival.source);
                None
            }
        }
    }

    fn grant(&mut self, judged: Now, accepted: Vec<(Accepted, Instant)>) {
        let records: Vec<_> = accepted.iter().map(|(accepted, _)| accepted.record()).collect();
        if let Err(error) = self.record.append(&records, judged.wall) {
            self.unrecorded += accepted.len() as u64;
            events::record_failed(&error);
            return;
        }
        let now = clock::now(); // the write took its time
        if !self.may_date(now) {
            self.unrecorded += accepted.len() as u64;
            return;
        }
        let mut changes = Vec::new();
        for (knock, at) in accepted {
            let (client, source) = (knock.record().0, knock.source());
            let granted = self.judge.grant(now, knock);
            self.counters.count(&granted);
            match granted {
                Ok(list) => changes.extend(list.into_iter().map(|change| (change, at))),
                Err(refusal) => self.refused_uncounted(&client, source, refusal),
            }
        }
        if changes.is_empty() {
            return;
        }
        for (change, _) in &changes {
            match change {
                Change::Opened(key, lease) | Change::Renewed(key, lease) => self.want(now, key, lease),
                Change::Kept(..) => {}
                Change::Closed(ended) => self.want_no_more(&ended.key),
            }
        }
        let news = changes.into_iter().map(|(change, at)| News::Changed(change, at));
        if self.provisional.is_some() {
            self.news.extend(news);
            let _ = self.confirm("a valid knock"); // failure is logged, and tried again
            self.tell();
        } else {
            self.write(news);
        }
        self.cloak_use.write();
    }

    fn refused(&mut self, client: &PublicKey, source: IpAddr, refusal: Refusal) {
        self.counters.count::<()>(&Err(refusal));
        self.refused_uncounted(client, source, refusal);
    }

    fn refused_uncounted(&self, client: &PublicKey, source: IpAddr, refusal: Refusal) {
        events::refused(&self.name_of(client), source, refusal);
    }
}
