//! A firewall in memory: for tests and `--dry-run`. It holds to the model as a real one does, and can be made to fail.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::driver::Firewall;
use crate::error::Error;
use crate::kernel::{Counted, Elements, FamilyState, Kernel, Rule};
use crate::model::Family;
use crate::plan::{ChainPlan, FamilyPlan, Plan};

/// What the next `apply` does instead of succeeding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It changes nothing and says so.
    Refuse,
    /// It changes nothing and claims success.
    Lie,
    /// It changes everything and claims failure.
    Stutter,
}

/// The firewall in memory.
#[derive(Debug, Default)]
pub struct Memory {
    /// What stands.
    pub kernel: Kernel,
    /// One for each coming `apply`; none left: it works.
    pub faults: VecDeque<Option<Fault>>,
    /// How often `apply` was called.
    pub applied: usize,
    /// How often a family was read.
    pub reads: usize,
}

impl Memory {
    /// An empty firewall that keeps grants as rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty firewall that keeps grants in sets. Nothing ends by itself in it.
    pub fn with_sets() -> Self {
        let mut memory = Self::default();
        for family in Family::BOTH {
            memory.kernel.family_mut(family).elements = Some(Elements::default());
        }
        memory
    }
}

fn refused(stderr: &str) -> Error {
    Error::Refused { command: "memory".into(), status: "exit status: 1".into(), stderr: stderr.into() }
}

impl Firewall for Memory {
    fn name(&self) -> String {
        "memory".into()
    }

    fn read_family(&mut self, family: Family) -> Result<FamilyState, Error> {
        self.reads += 1;
        Ok(self.kernel.family(family).clone())
    }

    fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        self.applied += 1;
        let fault = self.faults.pop_front().flatten();
        match fault {
            Some(Fault::Refuse) => return Err(refused("made to fail")),
            Some(Fault::Lie) => return Ok(()),
            Some(Fault::Stutter) | None => {}
        }
        for family in Family::BOTH {
            let changed = change(self.kernel.family(family), plan.family(family))?;
            *self.kernel.family_mut(family) = changed;
        }
        if fault == Some(Fault::Stutter) { Err(refused("made to fail after the change")) } else { Ok(()) }
    }
}

/// Shared: one copy for the enforcer, one to look at it and meddle.
impl Firewall for Arc<Mutex<Memory>> {
    fn name(&self) -> String {
        "memory".into()
    }

    fn read_family(&mut self, family: Family) -> Result<FamilyState, Error> {
        self.lock().unwrap_or_else(PoisonError::into_inner).read_family(family)
    }

    fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        self.lock().unwrap_or_else(PoisonError::into_inner).apply(plan)
    }
}

/// The state after the plan, or why iptables would refuse it.
fn change(state: &FamilyState, plan: &FamilyPlan) -> Result<FamilyState, Error> {
    let mut next = state.clone();
    if plan.is_empty() {
        return Ok(next);
    }
    if state.missing {
        return Err(refused("no such family"));
    }
    match &plan.chain {
        ChainPlan::Keep | ChainPlan::Remove => {}
        ChainPlan::Grants { remove, insert, at } => {
            if !next.present {
                return Err(refused("no such chain"));
            }
            for (key, span) in remove {
                let gone = Rule::Grant(key.clone(), *span);
                let found = next.rules.iter().position(|counted| counted.rule == gone);
                next.rules.remove(found.ok_or_else(|| refused("no such rule"))?);
            }
            for (key, span, counters) in insert {
                if *at == 0 || at - 1 > next.rules.len() {
                    return Err(refused("index too big"));
                }
                let rule = Rule::Grant(key.clone(), *span);
                next.rules.insert(at - 1, Counted { rule, counters: *counters });
            }
        }
        ChainPlan::Fill(rules) => {
            next.present = true;
            next.rules.clone_from(rules);
        }
    }
    for _ in 0..plan.jump.remove {
        if next.jumps.is_empty() {
            return Err(refused("no such jump"));
        }
        next.jumps.remove(0);
        next.jumps.iter_mut().for_each(|position| *position -= 1);
    }
    if plan.jump.insert {
        next.jumps.iter_mut().for_each(|position| *position += 1);
        next.jumps.insert(0, 1);
        next.ahead.clear();
    }
    if plan.chain == ChainPlan::Remove {
        if !next.jumps.is_empty() || !next.references.is_empty() {
            return Err(refused("chain is in use"));
        }
        next.present = false;
        next.rules.clear();
        next.elements = next.elements.map(|_| Elements::default());
    }
    if !plan.elements.is_empty() {
        let held = next.elements.as_mut().filter(|_| next.present).ok_or_else(|| refused("no such set"))?;
        plan.elements.carry_out(held);
    }
    Ok(next)
}
