//! What a driver does.

use crate::authors::Authors;
use crate::error::Error;
use crate::kernel::{FamilyState, Kernel};
use crate::model::Family;
use crate::plan::{FamilyPlan, Plan};

/// Reads and writes one kind of firewall. Drivers decide nothing: they read into [`Kernel`] and carry out a [`Plan`].
///
/// A driver that keeps grants in sets reads them into [`crate::Elements`], and its chain has [`crate::Rule::Openings`]
/// in their place; one that hooks its own base chain reads that hook as a jump at position 1.
pub trait Firewall: Send {
    /// What it is called in messages: `iptables (nft)`, `memory`.
    fn name(&self) -> String;

    /// Reads one family as it stands now.
    ///
    /// # Errors
    /// If it cannot be read. Failure never means "not there".
    fn read_family(&mut self, family: Family) -> Result<FamilyState, Error>;

    /// Carries out the plan: each family whole or not at all, IPv4 first. Only a new chain that is too long for the
    /// kernel to take at once may come in pieces, what closes before what opens.
    ///
    /// # Errors
    /// If a family was refused. Success says only that the kernel was asked: read back and compare.
    fn apply(&mut self, plan: &Plan) -> Result<(), Error>;

    /// Reads again at least what `plan` touches, into what was known before.
    ///
    /// # Errors
    /// As [`Self::read_family`].
    fn reread(&mut self, family: Family, plan: &FamilyPlan, state: &mut FamilyState) -> Result<(), Error> {
        let _ = plan; // a driver that can read no less than all
        *state = self.read_family(family)?;
        Ok(())
    }

    /// Keeps others from changing what stands, where the firewall knows such a thing and it is not so already.
    ///
    /// # Errors
    /// If that was refused.
    fn hold(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Gets ready what the next change needs, while nobody waits for it.
    fn prepare(&mut self) {}

    /// Who carries out the plans, as notices of changes name them.
    fn authors(&self) -> Authors {
        Authors::default()
    }

    /// From now until [`Self::end`] all that the driver runs has one time limit together.
    fn begin(&mut self) {}

    /// See [`Self::begin`].
    fn end(&mut self) {}

    /// Whether each change takes the lock of iptables-legacy, which is then the only sign of what others change.
    fn uses_xtables_lock(&self) -> bool {
        false
    }

    /// Reads both families.
    ///
    /// # Errors
    /// As [`Self::read_family`].
    fn read(&mut self) -> Result<Kernel, Error> {
        Ok(Kernel { v4: self.read_family(Family::V4)?, v6: self.read_family(Family::V6)? })
    }
}
