//! The only writer of the firewall: read, reconcile, apply, read back, compare.

use std::collections::BTreeMap;
use std::time::SystemTime;

use spa_proto::{Endpoint, Protocol};

use crate::authors::Authors;
use crate::driver::Firewall;
use crate::error::Error;
use crate::kernel::{Counters, FamilyState, Kernel, LAST_SECOND, Span};
use crate::model::{Family, GrantKey, Lifetime, Protection, Wanted};
use crate::plan::{JumpPlan, Plan, reconcile, reconcile_grants};

/// How often a difference is written again before it is an error.
pub const ATTEMPTS: u32 = 3;

/// What [`Enforcer::enforce`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How often something was written; 0 if all stood already.
    pub attempts: u32,
    /// The first plan that was written.
    pub plan: Plan,
    /// The jump was there but behind a host rule that could accept a protected port, and was moved.
    pub jump_moved: bool,
    /// The same, but moving was not allowed: protection may be void.
    pub jump_behind: bool,
    /// Wanted grants of a family that this kernel does not have.
    pub unreachable: Vec<GrantKey>,
    /// What somebody else's change made necessary besides. It came between two readings, so that this is the only sign
    /// of it.
    pub put_right: Option<Plan>,
}

/// A standing grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantStatus {
    /// Who, from where, to what.
    pub key: GrantKey,
    /// From when to when, as the kernel has it.
    pub lifetime: Lifetime,
    /// How much it let in.
    pub counters: Counters,
}

/// Brings the firewall to what is wanted, through one driver.
pub struct Enforcer {
    driver: Box<dyn Firewall>,
    /// What was read last, while nothing says that it is stale.
    known: Option<Kernel>,
    /// The protection that stood after the last success.
    laid: Option<Protection>,
    /// The families that were written and not read since: `known` has them as they should be.
    ahead: Vec<Family>,
    /// What was written ahead and refused.
    refused: Option<Plan>,
    /// Writing ahead took all the time that there is: who comes to settle it hears of that, and waits no second time.
    hung: Option<Error>,
    may_move_jump: bool,
}

impl Enforcer {
    /// Nothing is read yet.
    pub fn new(driver: Box<dyn Firewall>) -> Self {
        Self {
            driver,
            known: None,
            laid: None,
            ahead: Vec::new(),
            refused: None,
            hung: None,
            may_move_jump: true,
        }
    }

    /// The driver's name.
    pub fn name(&self) -> String {
        self.driver.name()
    }

    /// Somebody else changed the firewall: the next call reads it first.
    pub fn forget(&mut self) {
        self.known = None;
        self.ahead.clear();
        self.hung = None;
    }

    /// Gets ready what the next change needs, while nobody waits for it.
    pub fn prepare(&mut self) {
        self.driver.prepare();
    }

    /// Who changes the firewall for us, as notices of changes name them.
    pub fn authors(&self) -> Authors {
        self.driver.authors()
    }

    /// Whether each change takes the lock of iptables-legacy.
    pub fn uses_xtables_lock(&self) -> bool {
        self.driver.uses_xtables_lock()
    }

    /// Whether a jump that is there may be moved to INPUT 1. The caller bounds how often; a missing one always comes
    /// back.
    pub fn allow_moving_jump(&mut self, allowed: bool) {
        self.may_move_jump = allowed;
    }

    /// What would be written, without writing it.
    ///
    /// # Errors
    /// If `wanted` cannot be written, or the firewall cannot be read.
    pub fn plan(&mut self, wanted: &Wanted) -> Result<Plan, Error> {
        let kernel = self.read()?;
        check(wanted, &kernel)?;
        let plan = reconcile(wanted, &kernel, SystemTime::now());
        self.take_as_known(kernel); // so that what follows need not read it again
        Ok(plan)
    }

    /// Writes what changed in the grants of `wanted` and leaves the reading back to the next [`Self::enforce`], which must
    /// follow: only then it is known to stand. For a driver that reads slowly, while more is to be written. True if
    /// nothing is left to write; otherwise it was not that simple, and nothing is known to have changed.
    pub fn write_ahead(&mut self, wanted: &Wanted) -> bool {
        let Some(mut kernel) = self.known.take() else { return false };
        let sets = kernel.v4.elements.is_some(); // their driver reads back what changed, and no more
        let simple = check(wanted, &kernel).is_ok() && unreachable(wanted, &kernel).is_empty();
        if sets || self.laid != wanted.protection || !simple {
            self.known = Some(kernel);
            return false;
        }
        let plan = reconcile(wanted, &kernel, SystemTime::now());
        let expected = |family| match plan.family(family) {
            simple if simple.only_grants() => kernel.family(family).after(simple).ok(),
            _ => None,
        };
        let (Some(v4), Some(v6)) = (expected(Family::V4), expected(Family::V6)) else {
            self.known = Some(kernel);
            return false;
        };
        if let Err(error) = self.in_time(|enforcer| enforcer.driver.apply(&plan)) {
            self.forget(); // what stands now is not known
            match error {
                Error::Refused { .. } | Error::Rejected { .. } => self.refused = Some(plan),
                Error::TimedOut { .. } => self.hung = Some(error),
                _ => {}
            }
            return false;
        }
        let written = Family::BOTH.into_iter().filter(|family| !plan.family(*family).is_empty());
        let new: Vec<_> = written.filter(|family| !self.ahead.contains(family)).collect();
        self.ahead.extend(new);
        (kernel.v4, kernel.v6) = (v4, v6);
        self.known = Some(kernel);
        true
    }

    /// Whether something was written that has not been read back.
    pub fn is_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Makes `wanted` stand and reads it back. If nothing changed since the last call, and nobody called
    /// [`Self::forget`], nothing is run.
    ///
    /// # Errors
    /// If it cannot be written or read, or still differs after [`ATTEMPTS`]. What stands then is unknown; the next
    /// call reads first.
    pub fn enforce(&mut self, wanted: &Wanted) -> Result<Report, Error> {
        self.in_time(|enforcer| enforcer.settle(wanted, None))
    }

    /// As [`Self::enforce`], where of the grants only these were added, changed or removed in `wanted` since the last
    /// success. With a driver that keeps grants in sets, only they are compared, written and read back, so the cost
    /// does not grow with the others. In all other cases everything is compared: grants kept as rules, another
    /// protection, a failure or another reading of the firewall since then.
    ///
    /// # Errors
    /// As [`Self::enforce`].
    pub fn enforce_grants(&mut self, wanted: &Wanted, changed: &[GrantKey]) -> Result<Report, Error> {
        self.in_time(|enforcer| enforcer.settle(wanted, Some(changed)))
    }

    /// Has all that `work` makes the driver run share one time limit.
    fn in_time<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.driver.begin();
        let done = work(self);
        self.driver.end();
        done
    }

    fn read(&mut self) -> Result<Kernel, Error> {
        self.in_time(|enforcer| enforcer.driver.read())
    }

    fn settle(&mut self, wanted: &Wanted, mut changed: Option<&[GrantKey]>) -> Result<Report, Error> {
        if let Some(error) = self.hung.take() {
            return Err(error);
        }
        // What there would be to do if nobody else changed anything.
        let mut expected = self.refused.take();
        let (mut kernel, mut fresh) = match self.known.take() {
            Some(kernel) => (kernel, false),
            None => (self.driver.read()?, true),
        };
        if fresh || self.laid != wanted.protection {
            changed = None; // the others may not stand
        }
        let ahead = std::mem::take(&mut self.ahead);
        if !ahead.is_empty() {
            expected = Some(self.plan_from(wanted, &kernel, changed).0);
        }
        for family in ahead {
            *kernel.family_mut(family) = self.driver.read_family(family)?;
        }
        check(wanted, &kernel)?;
        let mut report = Report::default();
        let mut refusal = None;
        loop {
            let (plan, jump_behind) = self.plan_from(wanted, &kernel, changed);
            if expected.take().is_some_and(|expected| is_disturbed(&kernel, &expected, &plan)) {
                report.put_right.get_or_insert_with(|| plan.clone());
            }
            if plan.is_empty() {
                if wanted.protection.is_some() {
                    self.driver.hold()?;
                }
                report.jump_behind = jump_behind;
                report.unreachable = unreachable(wanted, &kernel);
                self.known = Some(kernel);
                if self.laid != wanted.protection {
                    self.laid.clone_from(&wanted.protection);
                }
                return Ok(report);
            }
            if !fresh && (plan.v4.rewrites() || plan.v6.rewrites()) {
                // For the counters. A new grant, which somebody waits for, does not come this way.
                for family in Family::BOTH.into_iter().filter(|family| plan.family(*family).rewrites()) {
                    self.driver.reread(family, plan.family(family), kernel.family_mut(family))?;
                }
                fresh = true;
                expected = Some(plan);
                continue;
            }
            if report.attempts == ATTEMPTS {
                let differs = plan.to_string();
                return Err(refusal.unwrap_or_else(|| Error::Unsettled {
                    driver: self.driver.name(),
                    attempts: ATTEMPTS,
                    differs,
                }));
            }
            if wanted.protection.is_none() {
                let references = kernel.v4.references.iter().chain(&kernel.v6.references);
                if let Some(rule) = references.clone().next() {
                    return Err(Error::InUse { rule: rule.clone() });
                }
            }
            report.attempts += 1;
            report.jump_moved |= plan.v4.jump.moved || plan.v6.jump.moved;
            refusal = match self.driver.apply(&plan) {
                Ok(()) => None,
                // Perhaps what we knew was stale: look again, and try again.
                Err(error @ (Error::Refused { .. } | Error::Rejected { .. })) => Some(error),
                Err(error) => return Err(error),
            };
            for family in Family::BOTH {
                if refusal.is_some() {
                    *kernel.family_mut(family) = self.driver.read_family(family)?;
                } else if !plan.family(family).is_empty() {
                    self.driver.reread(family, plan.family(family), kernel.family_mut(family))?;
                }
            }
            expected = Some(if refusal.is_some() { plan.clone() } else { Plan::default() });
            if refusal.is_some() {
                (fresh, changed) = (true, None);
            }
            if report.attempts == 1 {
                report.plan = plan;
            }
        }
    }

    /// The plan, without moves of the jump if they are not allowed, and whether one was held back.
    fn plan_from(&self, wanted: &Wanted, kernel: &Kernel, changed: Option<&[GrantKey]>) -> (Plan, bool) {
        let now = SystemTime::now();
        let only = changed.and_then(|changed| reconcile_grants(wanted, kernel, changed, now));
        let mut plan = only.unwrap_or_else(|| reconcile(wanted, kernel, now));
        let mut behind = false;
        for family in Family::BOTH {
            let jump = &mut plan.family_mut(family).jump;
            if jump.moved && !self.may_move_jump {
                *jump = JumpPlan::default();
                behind = true;
            }
        }
        (plan, behind)
    }

    /// The grants that stand, whoever laid them: for a daemon that starts. Of several rules with one key the longest
    /// counts.
    ///
    /// # Errors
    /// If the firewall cannot be read.
    pub fn adopt(&mut self) -> Result<Vec<(GrantKey, Lifetime)>, Error> {
        let kernel = self.read()?;
        let mut adopted = BTreeMap::<GrantKey, Lifetime>::new();
        for (key, lifetime, _) in kernel.grants() {
            let kept = adopted.entry(key.clone()).or_insert(lifetime);
            if lifetime.until > kept.until {
                *kept = lifetime;
            }
        }
        self.take_as_known(kernel);
        Ok(adopted.into_iter().collect())
    }

    /// The grants that stand now, with their counters.
    ///
    /// # Errors
    /// If the firewall cannot be read.
    pub fn grants(&mut self) -> Result<Vec<GrantStatus>, Error> {
        let kernel = self.read()?;
        let status = |(key, lifetime, counters): (&GrantKey, Lifetime, Counters)| GrantStatus {
            key: key.clone(),
            lifetime,
            counters,
        };
        let grants = kernel.grants().map(status).collect();
        self.take_as_known(kernel);
        Ok(grants)
    }

    fn take_as_known(&mut self, kernel: Kernel) {
        self.forget();
        (self.known, self.laid) = (Some(kernel), None);
    }

    /// Whether anything stands that we laid, in any family.
    ///
    /// # Errors
    /// If the firewall cannot be read.
    pub fn stands(&mut self) -> Result<bool, Error> {
        let kernel = self.read()?;
        let ours = |state: &FamilyState| {
            let grants = state.elements.as_ref().is_some_and(|elements| !elements.owners.is_empty());
            !state.is_of_others() && (!state.rules.is_empty() || !state.jumps.is_empty() || grants)
        };
        Ok(ours(&kernel.v4) || ours(&kernel.v6))
    }

    /// The families in which the chain of our name holds the rules of somebody else.
    ///
    /// # Errors
    /// If the firewall cannot be read.
    pub fn chains_of_others(&mut self) -> Result<Vec<Family>, Error> {
        let kernel = self.read()?;
        Ok(Family::BOTH.into_iter().filter(|family| kernel.family(*family).is_of_others()).collect())
    }

    /// Removes every trace of us.
    ///
    /// # Errors
    /// As [`Self::enforce`], and [`Error::NotRemoved`]: what can be removed is, whatever the other family's trouble.
    pub fn remove_all(&mut self) -> Result<Report, Error> {
        self.forget();
        self.enforce(&Wanted::default())
            .or_else(|_| self.remove_from(&Family::BOTH).map(|()| Report::default()))
    }

    /// As [`Self::remove_all`], but a chain of our name that holds the rules of somebody else stays as it is.
    ///
    /// # Errors
    /// As [`Self::remove_all`].
    pub fn remove_ours(&mut self) -> Result<(), Error> {
        let others = self.chains_of_others()?;
        if others.is_empty() {
            return self.remove_all().map(|_| ());
        }
        let ours: Vec<_> = Family::BOTH.into_iter().filter(|family| !others.contains(family)).collect();
        self.remove_from(&ours)
    }

    /// Removes every trace of us from these families, one after the other.
    ///
    /// # Errors
    /// [`Error::NotRemoved`], with each family that could not be freed of us.
    pub fn remove_from(&mut self, families: &[Family]) -> Result<(), Error> {
        self.forget();
        let mut remove = |family| self.in_time(|enforcer| enforcer.remove_family(family));
        let failed = |family: &Family| remove(*family).err().map(|error| (*family, error));
        let failed: Vec<_> = families.iter().filter_map(failed).collect();
        if failed.is_empty() { Ok(()) } else { Err(Error::NotRemoved { failed }) }
    }

    fn remove_family(&mut self, family: Family) -> Result<(), Error> {
        // To the plan the other family is one where nothing stands.
        let mut kernel = Kernel::default();
        let mut left = |driver: &mut dyn Firewall| {
            *kernel.family_mut(family) = driver.read_family(family)?;
            let plan = reconcile(&Wanted::default(), &kernel, SystemTime::now());
            Ok((plan, kernel.family(family).references.first().cloned()))
        };
        let (plan, in_use) = left(self.driver.as_mut())?;
        if plan.is_empty() {
            return Ok(());
        }
        if let Some(rule) = in_use {
            return Err(Error::InUse { rule });
        }
        self.driver.apply(&plan)?;
        match left(self.driver.as_mut())?.0 {
            plan if plan.is_empty() => Ok(()),
            plan => {
                Err(Error::Unsettled { driver: self.driver.name(), attempts: 1, differs: plan.to_string() })
            }
        }
    }
}

/// Whether there is more to do in a family than was expected. Not for elements of sets, which go by themselves.
fn is_disturbed(kernel: &Kernel, expected: &Plan, plan: &Plan) -> bool {
    kernel.v4.elements.is_none()
        && Family::BOTH.into_iter().any(|family| {
            let (expected, plan) = (expected.family(family), plan.family(family));
            !plan.is_empty() && !plan.is_like(expected)
        })
}

fn check(wanted: &Wanted, kernel: &Kernel) -> Result<(), Error> {
    let Some(protection) = &wanted.protection else { return Ok(()) };
    if Endpoint::new(Protocol::Udp, protection.spa_port).is_none() {
        return Err(Error::NoPort);
    }
    if kernel.v4.elements.is_some() {
        return Ok(()); // sets take any time
    }
    match wanted.grants.iter().find(|(_, lifetime)| Span::of(lifetime).start >= LAST_SECOND) {
        Some((key, _)) => Err(Error::TooLate { key: Box::new(key.clone()) }),
        None => Ok(()),
    }
}

fn unreachable(wanted: &Wanted, kernel: &Kernel) -> Vec<GrantKey> {
    if wanted.protection.is_none() || !(kernel.v4.missing || kernel.v6.missing) {
        return Vec::new();
    }
    wanted.grants.keys().filter(|key| kernel.family(key.family()).missing).cloned().collect()
}
