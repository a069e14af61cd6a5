//! The only writer of the firewall: read, reconcile, apply, read back, compare.

use std::collections::BTreeMap;
use std::time::SystemTime;

use spa_proto::{Endpoint, Protocol};

use crate::driver::Firewall;
use crate::error::Error;
use crate::kernel::{Counters, Kernel, LAST_SECOND, Span};
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
    may_move_jump: bool,
}

impl Enforcer {
    /// Nothing is read yet.
    pub fn new(driver: Box<dyn Firewall>) -> Self {
        Self { driver, known: None, laid: None, may_move_jump: true }
    }

    /// The driver's name.
    pub fn name(&self) -> String {
        self.driver.name()
    }

    /// Somebody else changed the firewall: the next call reads it first.
    pub fn forget(&mut self) {
        self.known = None;
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
        let kernel = self.driver.read()?;
        check(wanted, &kernel)?;
        Ok(reconcile(wanted, &kernel, SystemTime::now()))
    }

    /// Makes `wanted` stand and reads it back. If nothing changed since the last call, and nobody called
    /// [`Self::forget`], nothing is run.
    ///
    /// # Errors
    /// If it cannot be written or read, or still differs after [`ATTEMPTS`]. What stands then is unknown; the next
    /// call reads first.
    pub fn enforce(&mut self, wanted: &Wanted) -> Result<Report, Error> {
        self.settle(wanted, None)
    }

    /// As [`Self::enforce`], where of the grants only these were added, changed or removed in `wanted` since the last
    /// success. With a driver that keeps grants in sets, only they are compared, written and read back, so the cost
    /// does not grow with the others. In all other cases everything is compared: grants kept as rules, another
    /// protection, a failure or another reading of the firewall since then.
    ///
    /// # Errors
    /// As [`Self::enforce`].
    pub fn enforce_grants(&mut self, wanted: &Wanted, changed: &[GrantKey]) -> Result<Report, Error> {
        self.settle(wanted, Some(changed))
    }

    fn settle(&mut self, wanted: &Wanted, mut changed: Option<&[GrantKey]>) -> Result<Report, Error> {
        let (mut kernel, mut fresh) = match self.known.take() {
            Some(kernel) => (kernel, false),
            None => (self.driver.read()?, true),
        };
        if fresh || self.laid != wanted.protection {
            changed = None; // the others may not stand
        }
        check(wanted, &kernel)?;
        let mut report = Report::default();
        let mut refusal = None;
        loop {
            let (plan, jump_behind) = self.plan_from(wanted, &kernel, changed);
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
        let kernel = self.driver.read()?;
        let mut adopted = BTreeMap::<GrantKey, Lifetime>::new();
        for (key, lifetime, _) in kernel.grants() {
            let kept = adopted.entry(key.clone()).or_insert(lifetime);
            if lifetime.until > kept.until {
                *kept = lifetime;
            }
        }
        (self.known, self.laid) = (Some(kernel), None);
        Ok(adopted.into_iter().collect())
    }

    /// The grants that stand now, with their counters.
    ///
    /// # Errors
    /// If the firewall cannot be read.
    pub fn grants(&mut self) -> Result<Vec<GrantStatus>, Error> {
        let kernel = self.driver.read()?;
        let status = |(key, lifetime, counters): (&GrantKey, Lifetime, Counters)| GrantStatus {
            key: key.clone(),
            lifetime,
            counters,
        };
        let grants = kernel.grants().map(status).collect();
        (self.known, self.laid) = (Some(kernel), None);
        Ok(grants)
    }

    /// Removes every trace of us.
    ///
    /// # Errors
    /// As [`Self::enforce`].
    pub fn remove_all(&mut self) -> Result<Report, Error> {
        self.forget();
        self.enforce(&Wanted::default())
    }
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
