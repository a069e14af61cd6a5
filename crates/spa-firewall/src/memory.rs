//! A firewall in memory: for tests and `--dry-run`. It holds to the model as a real one does, and can be made to fail.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::driver::Firewall;
use crate::error::Error;
use crate::kernel::{Elements, FamilyState, Kernel};
use crate::model::Family;
use crate::plan::Plan;

/// What the next `apply` does instead of succeeding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It changes nothing and says so.
    Refuse,
    /// It changes nothing and claims success.
    Lie,
    /// It changes everything and claims failure.
    Stutter,
    /// It changes nothing, and did not end in time.
    Hang,
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
            Some(Fault::Hang) => {
                return Err(Error::TimedOut { command: "memory".into(), after: Duration::from_secs(10) });
            }
            Some(Fault::Stutter) | None => {}
        }
        for family in Family::BOTH {
            let changed = self.kernel.family(family).after(plan.family(family)).map_err(refused)?;
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
