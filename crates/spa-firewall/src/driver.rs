//! What a driver does.

use crate::error::Error;
use crate::kernel::{FamilyState, Kernel};
use crate::model::Family;
use crate::plan::Plan;

/// Reads and writes one kind of firewall. Drivers decide nothing: they read into [`Kernel`] and carry out a [`Plan`].
///
/// A driver that keeps grants as set elements with their own time-outs reads them as [`crate::Rule::Grant`] between
/// the rules of its chain, and one that hooks its own base chain reads that hook as a jump at position 1.
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

    /// Reads both families.
    ///
    /// # Errors
    /// As [`Self::read_family`].
    fn read(&mut self) -> Result<Kernel, Error> {
        Ok(Kernel { v4: self.read_family(Family::V4)?, v6: self.read_family(Family::V6)? })
    }
}
