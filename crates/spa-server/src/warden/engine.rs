//! The part of the warden that may block: replay, policy, the record on disk, the firewall. One thread, which takes one
//! command after the other; everything that changes a rule goes through [`Engine::enforce`].

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

use spa_firewall::{Enforcer, GrantKey, Lifetime, Opening, Protection, Report, Wanted};
use spa_gate::{Accepted, Change, Counters, Ended, Judge, Lease, LeaseKey, Now, Refusal, Selector};
use spa_proto::{ClientName, Endpoint, Knock, PublicKey};
use tokio::sync::{oneshot, watch};

use super::changes::Author;
use super::record::Record;
use super::settings::Settings;
use super::{bounds::PerMinute, events, provisional::Provisional};
use crate::clock;
use crate::config::Config;
use crate::control::{CutView, GrantView};
use crate::error::{Exit, Failure, Outcome};

/// Commands that wait for the engine. Only authenticated knocks and root fill it; more knocks are refused.
pub const QUEUE: usize = 1_024;
/// Knocks that one write to the record and one change of the firewall take together.
const GROUP: usize = 64;
/// The host's own addresses are looked up again before a knock when they are older than this.
const ADDRESSES_AGE: Duration = Duration::from_secs(1);
/// What others change is put right this many times in a minute, and the jump moved so many times.
const MAX_REPAIRS: usize = 20;
const MAX_JUMP_MOVES: usize = 3;
/// After more than that, the next attempt comes after this time.
const FIGHT_PAUSE: Duration = Duration::from_secs(20);
/// Two readings of two clocks are at most so far apart.
const CLOCK_JITTER: Duration = Duration::from_millis(10);
/// After a failure the firewall is tried again this often.
const RETRY: Duration = Duration::from_secs(1);

/// An authentic knock and how it came.
pub struct Arrival {
    /// Who made it.
    pub client: PublicKey,
    /// Where it came from.
    pub source: IpAddr,
    /// Where it was sent to.
    pub destination: IpAddr,
    /// What it asks.
    pub knock: Knock,
    /// When the warden got it.
    pub at: Instant,
}

/// What the engine is asked to do.
pub enum Command {
    /// Judge a knock and carry it out.
    Knock(Box<Arrival>),
    /// The moment of [`Published::wake`] has come.
    Wake,
    /// The wall clock was set.
    ClockSet,
    /// Somebody changed the firewall, perhaps this engine.
    Look(Author),
    /// Take new settings.
    Reload(Box<EngineSettings>, oneshot::Sender<Outcome>),
    /// Close what the selector picks.
    Revoke(Selector, oneshot::Sender<Outcome<Vec<GrantView>>>),
    /// Close what the selector picks, and end its connections.
    Cut(Selector, oneshot::Sender<Outcome<CutView>>),
    /// List what is open.
    Grants(oneshot::Sender<Outcome<Vec<GrantView>>>),
    /// How it goes.
    Status(oneshot::Sender<EngineStatus>),
    /// Keep what was laid provisionally; false where nothing was.
    Confirm(oneshot::Sender<Outcome<bool>>),
    /// End.
    Stop,
}

/// What the engine needs of the settings.
pub struct EngineSettings {
    /// The file.
    pub config: Config,
    /// For the judge.
    pub judge: spa_gate::JudgeSettings,
}

impl EngineSettings {
    /// Takes its part.
    pub fn of(settings: &Settings) -> Self {
        Self { config: settings.config.clone(), judge: settings.judge.clone() }
    }

    fn names(&self) -> HashMap<PublicKey, ClientName> {
        self.judge.clients.iter().map(|client| (client.key, client.name.clone())).collect()
    }
}

/// What the rest of the daemon follows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Published {
    /// When the engine wants [`Command::Wake`], boot-time clock.
    pub wake: Option<Duration>,
    /// The confirmation did not come: the previous state is back, and the daemon ends.
    pub unconfirmed: bool,
}

/// The engine's part of `status`.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// The firewall driver.
    pub driver: String,
    /// What is wrong, if anything.
    pub trouble: Vec<String>,
    /// Knocks that went to an address of another host.
    pub misdirected: u64,
    /// Knocks that could not be recorded.
    pub unrecorded: u64,
    /// Open grants.
    pub grants: usize,
    /// Knocks that were granted, and refusals by reason.
    pub counters: Counters,
    /// Seconds left to confirm.
    pub confirm_within: Option<u64>,
    /// The number of clients.
    pub clients: usize,
}

/// How the daemon was started.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Go back to the previous state unless confirmed in this time.
    pub confirm: Option<Duration>,
    /// Change no rule and record nothing.
    pub dry_run: bool,
}

/// Replay, policy, record and firewall.
pub struct Engine {
    judge: Judge,
    record: Record,
    enforcer: Enforcer,
    wanted: Wanted,
    /// The grants that changed in `wanted` since the firewall was last brought to it.
    changed: Vec<GrantKey>,
    config: Config,
    names: HashMap<PublicKey, ClientName>,
    provisional: Option<Provisional>,
    counters: Counters,
    /// Why the firewall is not as wanted, if it is not.
    degraded: Option<String>,
    retry_at: Option<Duration>,
    /// During a fight: when it is looked at again, boot-time clock.
    pause_until: Option<Duration>,
    repairs: PerMinute<MAX_REPAIRS>,
    jump_moves: PerMinute<MAX_JUMP_MOVES>,
    /// Knocks that went to an address of another host, and knocks that could not be recorded.
    misdirected: u64,
    unrecorded: u64,
    addresses: Vec<IpAddr>,
    addresses_read: Option<Instant>,
    dry_run: bool,
    published: watch::Sender<Published>,
}

impl Engine {
    /// Brings the firewall to what the configuration wants, with the grants that it still allows, cutting nobody off.
    ///
    /// # Errors
    /// Where the record or the firewall cannot be used. Then the firewall is as it was found, or protected.
    pub fn start(
        settings: EngineSettings,
        mut enforcer: Enforcer,
        record: Record,
        options: Options,
        published: watch::Sender<Published>,
    ) -> Outcome<Self> {
        let dry_run = options.dry_run;
        let names = settings.names();
        let EngineSettings { config, judge } = settings;
        let mut judge = Judge::new(judge);
        judge.restore(record.floors(names.keys().copied()));
        let found = enforcer.adopt().map_err(events::firewall_failure)?;
        let before = standing(&mut enforcer, &config.state_dir, &found)?;
        let kept = before.as_ref().map_or_else(BTreeSet::new, |protection| protection.services.clone());
        let provisional = options.confirm.map(|within| Provisional::new(within, before));
        let mut engine = Self {
            judge,
            record,
            enforcer,
            wanted: Wanted { protection: Some(config.protection()), ..Wanted::default() },
            changed: Vec::new(),
            names,
            config,
            provisional,
            counters: Counters::default(),
            degraded: None,
            retry_at: None,
            pause_until: None,
            repairs: PerMinute::default(),
            jump_moves: PerMinute::default(),
            misdirected: 0,
            unrecorded: 0,
            addresses: Vec::new(),
            addresses_read: None,
            dry_run,
            published,
        };
        engine.refresh_addresses();
        engine.adopt(found);
        if let (Some(provisional), Some(protection)) = (&engine.provisional, &mut engine.wanted.protection) {
            protection.provisional_until = provisional.kernel_deadline();
        }
        if !dry_run {
            // Conntrack may know nothing yet of who is logged in now. Not for what was closed before: what was cut
            // must not come back.
            keep_connections(&(&engine.config.endpoints() - &kept))?;
        }
        engine.enforcer.enforce(&engine.wanted).map_err(events::firewall_failure)?;
        if engine.provisional.is_none() {
            engine.keep_as_last_good();
        }
        engine.publish();
        Ok(engine)
    }

    /// Takes over the grants that stand in the kernel and that policy still allows; the others go with the next write.
    fn adopt(&mut self, found: Vec<(GrantKey, Lifetime)>) {
        let now = clock::now();
        for (key, lifetime) in found {
            let lease_key = LeaseKey { client: key.client, source: key.source, endpoint: key.endpoint };
            match self.judge.adopt(
                now,
                lease_key.clone(),
                unix_nanos(lifetime.from),
                unix_nanos(lifetime.until),
            ) {
                Ok(lease) => {
                    events::adopted(&lease_key, &lease, now);
                    self.want(now, &lease_key, &lease);
                }
                Err(refusal) => events::not_adopted(&lease_key, refusal),
            }
        }
    }

    /// Takes commands until told to stop, or until the confirmation has not come in time.
    pub fn run(mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            let mut next = Some(command);
            while let Some(command) = next.take() {
                match command {
                    Command::Knock(first) => next = self.knocks(*first, commands),
                    // Who stops what nobody has confirmed wants it gone.
                    Command::Stop => return self.give_up(),
                    other => self.follow(other),
                }
            }
            if self.next_wake().is_some_and(|at| at <= clock::boot()) {
                self.wake(); // its own command may have found the queue full
            }
            self.publish();
            if self.published.borrow().unconfirmed {
                return;
            }
        }
    }

    fn follow(&mut self, command: Command) {
        match command {
            Command::Knock(_) | Command::Stop => {} // taken by `run`
            Command::Wake => self.wake(),
            Command::ClockSet => self.clock_set(),
            Command::Look(author) => self.look(&author),
            Command::Reload(settings, reply) => {
                let _ = reply.send(self.reload(*settings)); // who asked may have gone
            }
            Command::Revoke(selector, reply) => {
                let _ = reply.send(self.revoke(&selector)); // as above
            }
            Command::Cut(selector, reply) => {
                let _ = reply.send(self.cut(&selector));
            }
            Command::Grants(reply) => {
                let _ = reply.send(self.grants());
            }
            Command::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Command::Confirm(reply) => {
                let _ = reply.send(self.confirm("the administrator"));
            }
        }
    }

    /// Carries out a knock and those that wait behind it, with one write to the record and one change of the firewall.
    /// Returns the command that came after them.
    fn knocks(&mut self, first: Arrival, commands: &Receiver<Command>) -> Option<Command> {
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
                match commands.try_recv() {
                    Ok(Command::Knock(more)) => next = Some(*more),
                    Ok(other) => after = Some(other),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
                }
            }
        }
        if !accepted.is_empty() {
            self.grant(accepted);
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
            Some(Ok(accepted)) => Some((accepted, arrival.at)),
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

    fn grant(&mut self, accepted: Vec<(Accepted, Instant)>) {
        let records: Vec<_> = accepted.iter().map(|(accepted, _)| accepted.record()).collect();
        if let Err(error) = self.record.append(&records) {
            self.unrecorded += accepted.len() as u64;
            events::record_failed(&error);
            return;
        }
        let now = clock::now(); // the write took its time
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
        if self.provisional.is_some() {
            let _ = self.confirm("a valid knock"); // failure is logged, and tried again
        } else {
            self.enforce();
        }
        for (change, at) in &changes {
            events::changed(change, at.elapsed(), self.not_written());
        }
        self.record.tidy();
    }

    fn refused(&mut self, client: &PublicKey, source: IpAddr, refusal: Refusal) {
        self.counters.count::<()>(&Err(refusal));
        self.refused_uncounted(client, source, refusal);
    }

    fn refused_uncounted(&self, client: &PublicKey, source: IpAddr, refusal: Refusal) {
        events::refused(&self.name_of(client), source, refusal);
    }

    fn name_of(&self, client: &PublicKey) -> String {
        self.names.get(client).map_or_else(|| client.to_string(), ToString::to_string)
    }

    fn wake(&mut self) {
        let now = clock::now();
        if self.provisional.as_ref().is_some_and(|provisional| provisional.deadline <= now.boot) {
            return self.give_up();
        }
        let ended = self.judge.expire(now);
        self.forget_ended(&ended);
        self.enforce();
        events::ended(&ended, self.not_written());
    }

    /// Puts right what somebody else changed, unless that has gone on for too long: nobody is helped by a fight.
    fn look(&mut self, author: &Author) {
        let now = clock::boot();
        if self.pause_until.is_some_and(|until| now < until) {
            return; // whatever else changes meanwhile: the next attempt is at its time
        }
        self.enforcer.forget();
        match self.enforcer.plan(&self.wanted) {
            Ok(plan) if plan.is_empty() => {}
            Ok(_) if !self.repairs.has_room(now) => self.fighting(now, author),
            Ok(plan) => {
                if self.enforce_now().is_ok_and(|report| report.attempts > 0) {
                    self.repairs.note(now);
                    if self.degraded.is_none() {
                        events::repaired(author, &plan);
                    }
                }
            }
            Err(_) => self.enforce(), // it says what is wrong, and is tried again
        }
    }

    fn fighting(&mut self, now: Duration, author: &Author) {
        let why = format!("another program keeps changing our rules: {author}");
        events::fighting(&why);
        self.degraded = Some(why);
        self.retry_at = Some(now + FIGHT_PAUSE);
        self.pause_until = self.retry_at;
    }

    /// Rewrites the kernel's times, so that the step moves no expiry.
    fn clock_set(&mut self) {
        let now = clock::now();
        events::clock_set();
        let ended = self.judge.expire(now);
        self.forget_ended(&ended);
        let leases: Vec<_> = self.judge.leases().map(|(key, lease)| (key.clone(), lease.clone())).collect();
        for (key, lease) in leases {
            self.want(now, &key, &lease);
        }
        self.enforce();
        events::ended(&ended, self.not_written());
    }

    fn reload(&mut self, settings: EngineSettings) -> Outcome {
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
        self.wanted.protection = Some(protection);
        self.enforcer.forget(); // who reloads may have changed the firewall as well
        if let Err(error) = self.enforcer.enforce(&self.wanted) {
            self.wanted.protection = old.0;
            self.enforce();
            return Err(events::firewall_failure(error));
        }
        let ended = self.judge.reconfigure(now, judge);
        self.judge.restore(self.record.floors(names.keys().copied()));
        self.names = names;
        self.config = config;
        self.forget_ended(&ended);
        let leases: Vec<_> = self.judge.leases().map(|(key, lease)| (key.clone(), lease.clone())).collect();
        for (key, lease) in leases {
            self.want(now, &key, &lease); // a shorter limit may have ended some sooner
        }
        self.enforce();
        events::ended(&ended, self.not_written());
        if self.provisional.is_none() {
            self.keep_as_last_good();
        }
        Ok(())
    }

    fn revoke(&mut self, selector: &Selector) -> Outcome<Vec<GrantView>> {
        let now = clock::now();
        let ended = self.judge.revoke(selector);
        let unknown =
            selector.client.as_ref().filter(|name| !self.names.values().any(|known| known == *name));
        if let (Some(name), true) = (unknown, ended.is_empty()) {
            return Err(Failure::new(Exit::Usage, format_args!("there is no client {name}"))
                .hint("spa-server client list"));
        }
        self.forget_ended(&ended);
        self.enforce();
        events::ended(&ended, self.not_written());
        match self.not_written() {
            Some(why) if !ended.is_empty() => Err(events::not_closed(why)),
            _ => Ok(ended.iter().map(|ended| view(&ended.key, &ended.lease, now, 0, 0)).collect()),
        }
    }

    /// Ends the connections only when the rules are seen to be gone, or they could begin anew.
    fn cut(&mut self, selector: &Selector) -> Outcome<CutView> {
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

    fn grants(&mut self) -> Outcome<Vec<GrantView>> {
        let now = clock::now();
        let standing = self.enforcer.grants().map_err(events::firewall_failure)?;
        let counters = |key: &LeaseKey| {
            let rule = standing.iter().find(|status| {
                (status.key.source, status.key.endpoint) == (key.source, key.endpoint)
                    && status.key.client.as_str() == key.client.as_str()
            });
            rule.map_or((0, 0), |status| (status.counters.packets, status.counters.bytes))
        };
        let views = self.judge.leases().map(|(key, lease)| {
            let (packets, bytes) = counters(key);
            view(key, lease, now, packets, bytes)
        });
        Ok(views.collect())
    }

    fn status(&self) -> EngineStatus {
        let left = |provisional: &Provisional| provisional.deadline.saturating_sub(clock::boot()).as_secs();
        EngineStatus {
            driver: self.enforcer.name(),
            trouble: self.degraded.clone().into_iter().chain(self.record.trouble()).collect(),
            misdirected: self.misdirected,
            unrecorded: self.unrecorded,
            grants: self.wanted.grants.len(),
            counters: self.counters,
            confirm_within: self.provisional.as_ref().map(left),
            clients: self.names.len(),
        }
    }

    fn confirm(&mut self, by: &str) -> Outcome<bool> {
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
        Ok(true)
    }

    /// Nobody confirmed: back to how it was.
    fn give_up(&mut self) {
        let Some(provisional) = self.provisional.take() else { return };
        self.wanted =
            Wanted { protection: provisional.previous, grants: std::mem::take(&mut self.wanted.grants) };
        if self.enforce_now().is_ok() {
            events::unconfirmed();
        }
        self.published.send_modify(|published| published.unconfirmed = true);
    }

    /// Brings the firewall to what is wanted; where that fails, says so and tries again soon.
    fn enforce(&mut self) {
        let _ = self.enforce_now(); // logged, and kept in `degraded`
    }

    fn enforce_now(&mut self) -> Outcome<Report> {
        let now = clock::boot();
        if self.degraded.is_some() {
            self.enforcer.forget(); // what was known then is not to be relied on
        }
        self.enforcer.allow_moving_jump(self.jump_moves.has_room(now));
        let changed = std::mem::take(&mut self.changed); // after a failure all is compared
        match self.enforcer.enforce_grants(&self.wanted, &changed) {
            Ok(report) => {
                events::written(&report, self.degraded.as_deref());
                if report.jump_moved {
                    self.jump_moves.note(now);
                }
                if report.jump_behind {
                    // Looking again does not put it off.
                    self.retry_at = self.retry_at.filter(|at| *at > now).or(Some(now + FIGHT_PAUSE));
                    self.degraded = Some(events::JUMP_BEHIND.to_owned());
                } else {
                    self.retry_at = None;
                    if self.degraded.take().is_some() {
                        events::restored();
                    }
                }
                Ok(report)
            }
            Err(error) => {
                let text = error.to_string();
                if self.degraded.as_ref() != Some(&text) {
                    events::degraded(&error);
                }
                self.degraded = Some(text);
                self.retry_at = Some(now + RETRY);
                Err(events::firewall_failure(error))
            }
        }
    }

    /// Why the rules do not stand as wanted, if they do not. A jump that is behind another rule leaves ours as they are.
    fn not_written(&self) -> Option<&str> {
        self.degraded.as_deref().filter(|why| *why != events::JUMP_BEHIND)
    }

    fn want(&mut self, now: Now, key: &LeaseKey, lease: &Lease) {
        let lifetime = Lifetime { from: wall(lease.wall_since(now)), until: wall(lease.wall_until(now)) };
        let key = grant_key(key);
        if self.wanted.grants.get(&key).is_some_and(|old| is_about(old, &lifetime)) {
            return;
        }
        self.changed.push(key.clone());
        self.wanted.grants.insert(key, lifetime);
    }

    fn want_no_more(&mut self, key: &LeaseKey) {
        let key = grant_key(key);
        self.wanted.grants.remove(&key);
        self.changed.push(key);
    }

    fn forget_ended(&mut self, ended: &[Ended]) {
        for ended in ended {
            self.want_no_more(&ended.key);
        }
    }

    fn refresh_addresses(&mut self) {
        if self.addresses_read.is_some_and(|read| read.elapsed() < ADDRESSES_AGE) {
            return;
        }
        match spa_capture::local_addresses() {
            Ok(addresses) => {
                self.judge.set_own_addresses(addresses.iter().copied());
                self.addresses = addresses;
                self.addresses_read = Some(Instant::now());
            }
            Err(error) => events::addresses_unknown(&error), // the ones known before go on counting
        }
    }

    fn keep_as_last_good(&self) {
        if self.dry_run {
            return;
        }
        if let Err(failure) = self.config.keep_as_last_good() {
            events::last_good_not_kept(&failure);
        }
    }

    fn next_wake(&self) -> Option<Duration> {
        let wakes = [self.judge.next_expiry(), self.retry_at, self.provisional.as_ref().map(|p| p.deadline)];
        wakes.into_iter().flatten().min()
    }

    fn publish(&self) {
        let wake = self.next_wake();
        self.published.send_if_modified(|published| std::mem::replace(&mut published.wake, wake) != wake);
    }
}

/// The protection that stands, with these grants: the one that worked last, if the firewall is just as it says.
///
/// # Errors
/// Where the firewall cannot be read.
pub fn standing(
    enforcer: &mut Enforcer,
    state_dir: &Path,
    grants: &[(GrantKey, Lifetime)],
) -> Outcome<Option<Protection>> {
    let Ok(last_good) = Config::load_last_good(state_dir) else { return Ok(None) };
    let protection = last_good.protection();
    let as_it_says =
        Wanted { protection: Some(protection.clone()), grants: grants.iter().cloned().collect() };
    let plan = enforcer.plan(&as_it_says).map_err(events::firewall_failure)?;
    Ok(plan.is_empty().then_some(protection))
}

/// Whether two lifetimes are one but for the two clocks' being read one after the other. Without this a rule's whole
/// seconds would move, one at each reload.
fn is_about(old: &Lifetime, new: &Lifetime) -> bool {
    let is_near = |a: SystemTime, b: SystemTime| {
        a.duration_since(b).or_else(|_| b.duration_since(a)).is_ok_and(|gap| gap < CLOCK_JITTER)
    };
    is_near(old.from, new.from) && is_near(old.until, new.until)
}

/// Keeps the connections that conntrack may not know, before what they use is closed to others.
///
/// # Errors
/// Where conntrack cannot be told at all: then nothing is closed, lest the administrator be cut off.
pub fn keep_connections(endpoints: &BTreeSet<Endpoint>) -> Outcome {
    if endpoints.is_empty() {
        return Ok(());
    }
    let adopted = spa_firewall::conntrack::adopt_established(endpoints).map_err(events::firewall_failure)?;
    events::kept_connections(&adopted);
    Ok(())
}

/// The commands' end of the engine.
pub type Sender = SyncSender<Command>;

fn grant_key(key: &LeaseKey) -> GrantKey {
    GrantKey::new(key.client.clone(), key.source, key.endpoint)
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

fn wall(unix_nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_nanos)
}

fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
