//! The part of the warden that may block: replay, policy, the record on disk, the firewall. One thread, which takes one
//! command after the other; everything that changes a rule goes through [`Engine::enforce`].

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use spa_firewall::{Authors, Enforcer, GrantKey, Lifetime, Plan, Wanted};
use spa_gate::{Change, Counters, Ended, Judge, LeaseKey, Selector};
use spa_proto::{ClientName, Knock, PublicKey};
use tokio::sync::{oneshot, watch};

use super::addresses::Addresses;
use super::changes::Culprits;
use super::inbox::{Inbox, Notices, ShutOut};
use super::record::Record;
use super::settings::Settings;
use super::{bounds::PerMinute, events, provisional::Provisional, set_back::ClockNote};
use crate::cloak_use::{self, CloakUse};
use crate::clock;
use crate::config::Config;
use crate::control::{CutView, GrantView, Refusing};
use crate::error::Outcome;
use crate::firewall;
use crate::lock::Lock;

mod enforcement;
mod knocks;
mod orders;

pub use self::enforcement::{keep_connections, standing};

/// What others change is put right this many times in a minute, and the jump moved so many times.
const MAX_REPAIRS: usize = 20;
const MAX_JUMP_MOVES: usize = 3;
/// After more than that, the next attempt comes after this time.
const FIGHT_PAUSE: Duration = Duration::from_secs(20);
/// Two readings of two clocks are at most so far apart.
const CLOCK_JITTER: Duration = Duration::from_millis(10);
/// After a failure the firewall is tried again this often.
const RETRY: Duration = Duration::from_secs(1);
/// What was written is read back at the latest after this time, however many knocks follow one another.
const READ_BACK_WITHIN: Duration = Duration::from_millis(100);
/// How long to wait for word of who it was before what was put right is told.
const NAME_WITHIN: Duration = Duration::from_millis(500);

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
    /// The cloak key that it came under, by its id.
    pub cloak: Option<Arc<str>>,
}

/// What the engine is asked to do.
pub enum Command {
    /// Judge a knock and carry it out.
    Knock(Box<Arrival>),
    /// The moment of [`Published::wake`] has come.
    Wake,
    /// There are [`Notices`].
    Noticed,
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
    /// Why every packet is refused, if that is so.
    pub refusing: Option<Refusing>,
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
    /// How many of them last used each cloak key, by its id.
    pub cloaks: HashMap<Arc<str>, usize>,
}

/// What is told of when it is known to stand.
enum News {
    /// A knock did this, and came at this time.
    Changed(Change, Instant),
    /// These ended.
    Ended(Vec<Ended>),
}

/// How the daemon was started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Go back to the previous state unless confirmed in this time.
    pub confirm: Option<Duration>,
    /// Change no rule and record nothing.
    pub dry_run: bool,
    /// Held by whatever changes the firewall for us.
    pub lock: Option<Lock>,
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
    clock_note: ClockNote,
    /// When rules are dated anew, boot-time clock, if they could not be.
    date_at: Option<Duration>,
    /// Why no rule may be dated now.
    not_noted: Option<String>,
    /// The firewall's programs hang. Until this moment, boot-time clock, nobody tries again.
    hangs_until: Option<Duration>,
    /// During a fight: when it is looked at again, boot-time clock.
    pause_until: Option<Duration>,
    repairs: PerMinute<MAX_REPAIRS>,
    jump_moves: PerMinute<MAX_JUMP_MOVES>,
    /// What is told when the firewall has been read back; and since when something is to be.
    news: Vec<News>,
    ahead_since: Option<Instant>,
    /// What somebody changed between two readings, and until when (boot-time clock) to wait for word of who it was.
    put_right: Option<(Plan, Duration)>,
    /// Knocks that went to an address of another host, and knocks that could not be recorded.
    misdirected: u64,
    unrecorded: u64,
    addresses: Addresses,
    dry_run: bool,
    lock: Option<Lock>,
    cloak_use: CloakUse,
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
        let Options { confirm, dry_run, lock } = options;
        let names = settings.names();
        let EngineSettings { config, judge } = settings;
        let mut judge = Judge::new(judge);
        judge.restore(record.floors(names.keys().copied()));
        judge.restore_clock(record.clock());
        judge.set_proven(record.clients());
        firewall::refuse_chain_of_others(&mut enforcer, &config)?;
        let mut found = enforcer.adopt().map_err(events::firewall_failure)?;
        let before = standing(&mut enforcer, &config.state_dir, &found)?;
        let kept = before.as_ref().map_or_else(BTreeSet::new, |protection| protection.services.clone());
        let provisional = confirm.map(|within| Provisional::new(within, before));
        let cloak_use = CloakUse::open((!dry_run).then(|| config.state_dir.join(cloak_use::FILE)));
        let clock_note = if dry_run { ClockNote::none() } else { ClockNote::read(&config.state_dir) };
        let mut engine = Self {
            cloak_use,
            clock_note,
            date_at: None,
            not_noted: None,
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
            hangs_until: None,
            pause_until: None,
            repairs: PerMinute::default(),
            jump_moves: PerMinute::default(),
            news: Vec::new(),
            ahead_since: None,
            put_right: None,
            misdirected: 0,
            unrecorded: 0,
            addresses: Addresses::new(),
            dry_run,
            lock,
            published,
        };
        engine.refresh_addresses();
        let now = clock::now();
        engine.clock_note.undo(now, &engine.enforcer.name(), &mut found);
        // If it was set forward and that cannot be noted, what is found keeps its dates all the same.
        engine.may_date(now);
        engine.adopt(found);
        engine.clock_note.all_dated(now);
        if let (Some(provisional), Some(protection)) = (&engine.provisional, &mut engine.wanted.protection) {
            protection.provisional_until = provisional.kernel_deadline();
        }
        if !dry_run {
            // Conntrack may know nothing yet of who is logged in now. Not for what was closed before: what was cut
            // must not come back.
            keep_connections(&(&engine.config.endpoints() - &kept))?;
        }
        engine.enforcer.enforce(&engine.wanted).map_err(events::firewall_failure)?;
        engine.note_written();
        engine.enforcer.prepare();
        if let Some(refusing) = engine.refusing() {
            events::refusing(&refusing);
        }
        if engine.provisional.is_none() {
            engine.keep_as_last_good();
            engine.retire_others();
        }
        engine.publish();
        Ok(engine)
    }

    /// Who changes the firewall for us.
    pub fn authors(&self) -> Authors {
        self.enforcer.authors()
    }

    /// Whether each change of the firewall takes the lock of iptables-legacy.
    pub fn uses_xtables_lock(&self) -> bool {
        self.enforcer.uses_xtables_lock()
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
    pub fn run(mut self, inbox: &Inbox) {
        let mut next = None;
        while let Some(command) = next.take().or_else(|| self.await_command(inbox)) {
            self.heed(inbox.notices());
            match command {
                Command::Knock(first) => next = self.knocks(*first, inbox),
                Command::Wake => self.wake(),
                Command::Noticed => {} // just heeded
                // Who stops what nobody has confirmed wants it gone.
                Command::Stop => {
                    self.settle();
                    return self.give_up();
                }
                other => {
                    self.settle();
                    self.follow(other);
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

    /// The next command. What was written is read back while there is none, or when it has to be.
    fn await_command(&mut self, inbox: &Inbox) -> Option<Command> {
        if self.ahead_since.is_some_and(|since| since.elapsed() < READ_BACK_WITHIN)
            && let Ok(command) = inbox.poll()
        {
            return Some(command);
        }
        self.settle();
        self.record.tidy();
        self.enforcer.prepare();
        self.publish();
        inbox.wait()
    }

    /// What nobody waits for an answer to, and must not be lost.
    fn heed(&mut self, notices: Notices) {
        let Notices { shut_out, clock_set, changed } = notices;
        for ShutOut { keys, reply } in shut_out {
            let _ = reply.send(self.shut_out(&keys)); // who asked may have gone
        }
        if clock_set || changed.is_some() {
            self.settle();
        }
        if clock_set {
            self.clock_set();
        }
        if let Some(culprits) = changed {
            self.look(&culprits);
        }
    }

    fn follow(&mut self, command: Command) {
        match command {
            Command::Knock(_) | Command::Wake | Command::Noticed | Command::Stop => {} // taken by `run`
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

    fn name_of(&self, client: &PublicKey) -> String {
        self.names.get(client).map_or_else(|| client.to_string(), ToString::to_string)
    }

    fn wake(&mut self) {
        let now = clock::now();
        if self.provisional.as_ref().is_some_and(|provisional| provisional.deadline <= now.boot) {
            return self.give_up();
        }
        if let Some((plan, _)) = self.put_right.take_if(|(_, until)| *until <= now.boot) {
            events::repaired(&Culprits::default(), &plan);
        }
        let ended = self.judge.expire(now);
        self.forget_ended(&ended);
        if self.date_at.is_some_and(|at| at <= now.boot) {
            self.date_anew(now);
        }
        self.write([News::Ended(ended)]);
    }

    fn refresh_addresses(&mut self) {
        match self.addresses.refresh() {
            Ok(Some(addresses)) => self.judge.set_own_addresses(addresses.iter().copied()),
            Ok(None) => {}
            Err(error) => events::addresses_unknown(&error), // the ones known before go on counting
        }
    }

    fn next_wake(&self) -> Option<Duration> {
        let confirm_by = self.provisional.as_ref().map(|provisional| provisional.deadline);
        let name_by = self.put_right.as_ref().map(|(_, until)| *until);
        [self.judge.next_expiry(), self.retry_at, self.date_at, confirm_by, name_by]
            .into_iter()
            .flatten()
            .min()
    }

    fn publish(&self) {
        let wake = self.next_wake();
        self.published.send_if_modified(|published| std::mem::replace(&mut published.wake, wake) != wake);
    }
}

fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
