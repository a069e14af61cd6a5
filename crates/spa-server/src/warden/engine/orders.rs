//! What the administrator orders: reload, revoke, cut, list, status, confirm.

use std::collections::{BTreeSet, HashMap};

use spa_firewall::{GrantKey, Opening, Wanted};
use spa_gate::{Ended, Lease, LeaseKey, Now, Selector};
use spa_proto::{NANOS_PER_SECOND, PublicKey};

use super::super::events;
use super::super::provisional::Provisional;
use super::enforcement::{grant_key, keep_connections};
use super::{Engine, EngineSettings, EngineStatus};
use crate::clock;
use crate::config::date::Date;
use crate::control::{CutView, GrantView, Refusing};
use crate::error::{Exit, Failure, Outcome};

impl Engine {
    pub(super) fn reload(&mut self, settings: EngineSettings) -> Outcome {
        let names = settings.names();
        let EngineSettings { config, judge } = settings;
        let now = clock::now();
        let old = (self.wanted.protection.clone(), self.config.clone());
        // First the firewall, which may refuse; the judge's part cannot fail.
        let mut protection = config.protection();
        protection.provisional_until = old.0.as_ref().and_then(|protection| protection.provisional_until);
        let new_endpoints = &config.endpoints() - &old.1.endpoints();
        if !self.dry_run && !new_endpoints.is_empty() {
            keep_connections(&new_endpoints)?;
        }
        if let Some(why) = self.hangs() {
            return Err(why);
        }
        self.wanted.protection = Some(protection);
        self.enforcer.forget(); // who reloads may have changed the firewall as well
        if let Err(error) = self.enforcer.enforce(&self.wanted) {
            self.wanted.protection = old.0;
            if !self.note_hang(&error) {
                self.enforce();
            }
            return Err(events::firewall_failure(error));
        }
        let ended = self.judge.reconfigure(now, judge);
        self.judge.restore(self.record.floors(names.keys().copied()));
        self.names = names;
        self.config = config;
        self.forget_ended(&ended);
        self.date_anew(now); // a shorter limit may have ended some sooner
        self.enforce();
        events::ended(&ended, self.not_written());
        if self.provisional.is_none() {
            self.keep_as_last_good();
        }
        Ok(())
    }

    pub(super) fn revoke(&mut self, selector: &Selector) -> Outcome<Vec<GrantView>> {
        let now = clock::now();
        let ended = self.judge.revoke(selector);
        let unknown =
            selector.client.as_ref().filter(|name| !self.names.values().any(|known| known == *name));
        if let (Some(name), true) = (unknown, ended.is_empty()) {
            return Err(Failure::new(Exit::Usage, format_args!("there is no client {name}"))
                .hint("spa-server client list"));
        }
        self.close(now, &ended)
    }

    /// Lets these clients in no more, and closes what is open for them.
    pub(super) fn shut_out(&mut self, keys: &[PublicKey]) -> Outcome<Vec<GrantView>> {
        let now = clock::now();
        let ended = self.judge.shut_out(keys);
        for key in keys {
            if let Some(name) = self.names.remove(key) {
                events::shut_out(&name);
            }
        }
        if ended.is_empty() {
            // What ended at an earlier order may stand all the same.
            return self.not_written().map_or(Ok(Vec::new()), |why| Err(events::not_known_closed(why)));
        }
        self.settle();
        self.close(now, &ended)
    }

    fn close(&mut self, now: Now, ended: &[Ended]) -> Outcome<Vec<GrantView>> {
        self.forget_ended(ended);
        self.enforce();
        events::ended(ended, self.not_written());
        match self.not_written() {
            Some(why) if !ended.is_empty() => Err(events::not_closed(why)),
            _ => Ok(ended.iter().map(|ended| view(&ended.key, &ended.lease, now, 0, 0)).collect()),
        }
    }

    /// Ends the connections only when the rules are seen to be gone, or they could begin anew.
    pub(super) fn cut(&mut self, selector: &Selector) -> Outcome<CutView> {
        let closed = self.revoke(selector)?;
        if let Some(why) = self.not_written() {
            return Err(events::not_closed(why));
        }
        let endpoint_of = |view: &GrantView| view.endpoint.parse().ok();
        let mut openings: BTreeSet<Opening> = closed
            .iter()
            .filter_map(|view| Some(Opening { source: view.source, endpoint: endpoint_of(view)? }))
            .collect();
        if let (Some(source), None) = (selector.source, &selector.client) {
            // A connection outlives its grant, so there may be some where no grant is left to name them.
            let endpoints = match selector.endpoint {
                Some(endpoint) => BTreeSet::from([endpoint]),
                None => self.config.endpoints(),
            };
            openings.extend(endpoints.into_iter().map(|endpoint| Opening { source, endpoint }));
        }
        let live: BTreeSet<_> = self.wanted.grants.keys().map(GrantKey::opening).collect();
        let (spared, openings): (BTreeSet<_>, _) =
            openings.into_iter().partition(|opening| live.contains(opening));
        let done = if self.dry_run || openings.is_empty() {
            spa_firewall::Cut::default()
        } else {
            let own = spa_capture::local_addresses().map_err(|error| events::not_cut(&error))?;
            spa_firewall::cut(&openings, &own)
        };
        events::cut(&done, &spared);
        Ok(CutView {
            closed,
            connections: done.connections,
            sockets: done.sockets,
            spared: spared.iter().map(ToString::to_string).collect(),
            refused: done.refused.iter().map(ToString::to_string).collect(),
        })
    }

    pub(super) fn grants(&mut self) -> Outcome<Vec<GrantView>> {
        if let Some(why) = self.hangs() {
            return Err(why);
        }
        let now = clock::now();
        let standing = self.enforcer.grants().map_err(|error| {
            self.note_hang(&error);
            events::firewall_failure(error)
        })?;
        let standing: HashMap<_, _> =
            standing.into_iter().map(|status| (status.key, status.counters)).collect();
        let counters = |key: &LeaseKey| {
            standing.get(&grant_key(key)).map_or((0, 0), |counters| (counters.packets, counters.bytes))
        };
        let views = self.judge.leases().map(|(key, lease)| {
            let (packets, bytes) = counters(key);
            view(key, lease, now, packets, bytes)
        });
        Ok(views.collect())
    }

    pub(super) fn status(&self) -> EngineStatus {
        let left = |provisional: &Provisional| provisional.deadline.saturating_sub(clock::boot()).as_secs();
        EngineStatus {
            driver: self.enforcer.name(),
            trouble: [self.degraded.clone(), self.record.trouble(), self.not_noted.clone()]
                .into_iter()
                .flatten()
                .collect(),
            refusing: self.refusing(),
            misdirected: self.misdirected,
            unrecorded: self.unrecorded,
            grants: self.wanted.grants.len(),
            counters: self.counters,
            confirm_within: self.provisional.as_ref().map(left),
            clients: self.names.len(),
            cloaks: self.cloak_use.counts(self.names.keys()),
        }
    }

    /// Why every packet is refused at present, and until when, if that is so.
    pub(super) fn refusing(&self) -> Option<Refusing> {
        let now = clock::now();
        let floor = self.record.floor_of_all();
        let (until, why) = match self.judge.clock_wrong_until(now) {
            Some(until) => (until, Refusing::CLOCK),
            None if floor > now.wall => (floor, Refusing::RECORD),
            None => return None,
        };
        let until = Date(until.div_ceil(NANOS_PER_SECOND)).to_string();
        Some(Refusing { until, why: why.to_owned() })
    }

    pub(super) fn confirm(&mut self, by: &str) -> Outcome<bool> {
        let Some(provisional) = self.provisional.take() else { return Ok(false) };
        if let Some(protection) = &mut self.wanted.protection {
            protection.provisional_until = None;
        }
        if let Err(error) = self.enforce_now() {
            self.provisional = Some(provisional);
            return Err(error);
        }
        self.keep_as_last_good();
        events::confirmed(by);
        self.retire_others();
        Ok(true)
    }

    /// Nobody confirmed: back to how it was.
    pub(super) fn give_up(&mut self) {
        let Some(provisional) = self.provisional.take() else { return };
        self.hangs_until = None; // there is no later attempt
        self.wanted =
            Wanted { protection: provisional.previous, grants: std::mem::take(&mut self.wanted.grants) };
        if self.enforce_now().is_ok() {
            events::unconfirmed();
        }
        self.published.send_modify(|published| published.unconfirmed = true);
    }

    pub(super) fn keep_as_last_good(&self) {
        if self.dry_run {
            return;
        }
        if let Err(failure) = self.config.keep_as_last_good() {
            events::last_good_not_kept(&failure);
        }
    }
}

fn view(key: &LeaseKey, lease: &Lease, now: Now, packets: u64, bytes: u64) -> GrantView {
    GrantView {
        client: key.client.to_string(),
        source: key.source,
        endpoint: key.endpoint.to_string(),
        remaining: lease.until.saturating_sub(now.boot).as_secs(),
        packets,
        bytes,
    }
}
