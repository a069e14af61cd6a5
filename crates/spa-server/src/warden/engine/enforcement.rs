//! The engine's side of the firewall: what is wanted, bringing it about, and putting right what others change.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use spa_firewall::{Driver, Enforcer, GrantKey, Lifetime, Protection, Report, Wanted};
use spa_gate::{Ended, Lease, LeaseKey, Now};
use spa_proto::Endpoint;

use super::super::changes::Culprits;
use super::super::events;
use super::{CLOCK_JITTER, Engine, FIGHT_PAUSE, NAME_WITHIN, News, RETRY};
use crate::clock;
use crate::config::Config;
use crate::error::{Exit, Failure, Outcome};
use crate::firewall;

impl Engine {
    /// Puts right what somebody else changed, unless that has gone on for too long: nobody is helped by a fight.
    pub(super) fn look(&mut self, culprits: &Culprits) {
        let now = clock::boot();
        if let Some((plan, _)) = self.put_right.take() {
            events::repaired(culprits, &plan);
        }
        if let Some(until) = self.pause_until.filter(|until| now < *until) {
            // Whatever else changes meanwhile, the next attempt is at its time; also where a knock put all right before.
            self.enforcer.forget();
            self.retry_at = Some(self.retry_at.map_or(until, |at| at.min(until)));
            self.degraded.get_or_insert_with(|| fight(culprits));
            return;
        }
        self.enforcer.forget();
        if self.hangs().is_some() {
            return; // the next attempt looks first
        }
        match self.enforcer.plan(&self.wanted) {
            Ok(plan) if plan.is_empty() => {}
            Ok(_) if !self.repairs.has_room(now) => self.fighting(now, culprits),
            Ok(plan) => {
                if self.enforce_now().is_ok_and(|report| report.attempts > 0) {
                    self.repairs.note(now);
                    if self.degraded.is_none() {
                        events::repaired(culprits, &plan);
                    }
                }
            }
            Err(error) if self.note_hang(&error) => {}
            Err(_) => self.enforce(), // it says what is wrong, and is tried again
        }
    }

    pub(super) fn fighting(&mut self, now: Duration, culprits: &Culprits) {
        let why = fight(culprits);
        events::fighting(&why);
        self.degraded = Some(why);
        self.retry_at = Some(now + FIGHT_PAUSE);
        self.pause_until = self.retry_at;
    }

    /// Rewrites the kernel's times, so that the step moves no expiry.
    pub(super) fn clock_set(&mut self) {
        let now = clock::now();
        events::clock_set();
        let ended = self.judge.clock_set(now);
        self.forget_ended(&ended);
        self.date_anew(now);
        self.enforce();
        events::ended(&ended, self.not_written());
    }

    /// Wants all rules by this wall clock. Where that cannot be noted for who takes them over, they keep their dates, and it
    /// is tried again.
    pub(super) fn date_anew(&mut self, now: Now) {
        if !self.may_date(now) {
            return;
        }
        let leases: Vec<_> = self.judge.leases().map(|(key, lease)| (key.clone(), lease.clone())).collect();
        for (key, lease) in leases {
            self.want(now, &key, &lease);
        }
        self.clock_note.all_dated(now);
        self.date_at = None;
    }

    /// Whether rules may be dated by this moment: it is noted, or they count down and need no note.
    pub(super) fn may_date(&mut self, now: Now) -> bool {
        match self.clock_note.before_dating(now) {
            Ok(()) => self.not_noted = None,
            Err(_) if self.enforcer.name() == Driver::Nftables.name() => {}
            Err(failure) => {
                if self.date_at.is_none() {
                    events::clock_not_noted(&failure);
                }
                self.date_at = Some(now.boot + RETRY);
                self.not_noted = Some(format!("nothing is granted: {failure}"));
                return false;
            }
        }
        true
    }

    /// All rules stand as they are wanted.
    pub(super) fn note_written(&mut self) {
        if let Err(failure) = self.clock_note.all_written() {
            events::clock_note_kept(&failure);
        }
    }

    /// Writes what is wanted. Nobody waits for the reading back, which [`Self::settle`] does, and which comes before
    /// the news is told.
    pub(super) fn write(&mut self, news: impl IntoIterator<Item = News>) {
        self.news.extend(news);
        if self.degraded.is_none() && self.enforcer.write_ahead(&self.wanted) {
            if self.enforcer.is_ahead() {
                self.ahead_since.get_or_insert_with(Instant::now);
            } else {
                self.tell();
            }
        } else {
            self.enforce();
            self.tell();
        }
    }

    /// Reads back what was written, and tells of it.
    pub(super) fn settle(&mut self) {
        if self.enforcer.is_ahead() {
            self.enforce();
            self.tell();
        }
    }

    /// Tells what is known to stand, or why it does not.
    pub(super) fn tell(&mut self) {
        self.ahead_since = None;
        for news in std::mem::take(&mut self.news) {
            match news {
                News::Changed(change, at) => events::changed(&change, at.elapsed(), self.not_written()),
                News::Ended(ended) => events::ended(&ended, self.not_written()),
            }
        }
    }

    /// Now that this backend protects: what another holds from an earlier configuration goes.
    pub(super) fn retire_others(&self) {
        if !self.dry_run {
            firewall::retire_others(&self.enforcer.name(), self.lock.as_ref());
        }
    }

    /// Brings the firewall to what is wanted; where that fails, says so and tries again soon.
    pub(super) fn enforce(&mut self) {
        let _ = self.enforce_now(); // logged, and kept in `degraded`
    }

    pub(super) fn enforce_now(&mut self) -> Outcome<Report> {
        if let Some(why) = self.hangs() {
            return Err(why);
        }
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
                if let Some(plan) = &report.put_right {
                    self.repairs.note(now);
                    self.put_right = Some((plan.clone(), now + NAME_WITHIN));
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
                self.note_written();
                Ok(report)
            }
            Err(error) => {
                if !self.note_hang(&error) {
                    self.note_failure(&error);
                }
                Err(events::firewall_failure(error))
            }
        }
    }

    fn note_failure(&mut self, error: &spa_firewall::Error) {
        let text = error.to_string();
        if self.degraded.as_ref() != Some(&text) {
            events::degraded(error);
        }
        self.degraded = Some(text);
        self.retry_at = Some(clock::boot() + RETRY); // it may have taken its time
    }

    /// If a program hung, nobody but the timer has it tried again, and everybody else hears so at once: so whatever is
    /// asked waits for one time limit at most.
    pub(super) fn note_hang(&mut self, error: &spa_firewall::Error) -> bool {
        let hangs = matches!(error, spa_firewall::Error::TimedOut { .. });
        if hangs {
            self.note_failure(error);
            self.enforcer.forget(); // what it did is not known
            self.hangs_until = self.retry_at;
        }
        hangs
    }

    /// Why the firewall is not tried now, if it hangs.
    pub(super) fn hangs(&self) -> Option<Failure> {
        self.hangs_until.filter(|until| clock::boot() < *until)?;
        self.degraded.as_ref().map(|why| Failure::new(Exit::System, format_args!("firewall: {why}")))
    }

    /// Why the rules do not stand as wanted, if they do not. A jump that is behind another rule leaves ours as they are.
    pub(super) fn not_written(&self) -> Option<&str> {
        self.degraded.as_deref().filter(|why| *why != events::JUMP_BEHIND)
    }

    pub(super) fn want(&mut self, now: Now, key: &LeaseKey, lease: &Lease) {
        let lifetime = Lifetime { from: wall(lease.wall_since(now)), until: wall(lease.wall_until(now)) };
        let key = grant_key(key);
        if self.wanted.grants.get(&key).is_some_and(|old| is_about(old, &lifetime)) {
            return;
        }
        self.changed.push(key.clone());
        self.wanted.grants.insert(key, lifetime);
    }

    pub(super) fn want_no_more(&mut self, key: &LeaseKey) {
        let key = grant_key(key);
        self.wanted.grants.remove(&key);
        self.changed.push(key);
    }

    pub(super) fn forget_ended(&mut self, ended: &[Ended]) {
        for ended in ended {
            self.want_no_more(&ended.key);
        }
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

/// The same key, for the firewall.
pub(super) fn grant_key(key: &LeaseKey) -> GrantKey {
    GrantKey::new(key.client.clone(), key.source, key.endpoint)
}

fn wall(unix_nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_nanos)
}

fn fight(culprits: &Culprits) -> String {
    format!("another program keeps changing our rules: {culprits}")
}
