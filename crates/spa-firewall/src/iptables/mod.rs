//! The iptables driver: text through `iptables-restore --noflush` and `iptables-save`, in both variants.
//!
//! One chain `SPA` a family in the filter table, and one jump to it from INPUT. Each change of a family is one commit,
//! by a program that waits for it ([`writer`]): the kernel takes all of it or nothing. The text is made from typed values alone.
//!
//! After `unprotect` the nft variant leaves the empty base chains of the filter table behind, as every use of
//! iptables-nft does. They change nothing for any packet, and cannot be told from those of another program, so they
//! stay.

mod dates;
mod failure;
mod nat;
mod parse;
mod pieces;
mod programs;
mod rehearse;
mod render;
mod run;
mod writer;

pub use self::dates::parse as seconds_of_date;
pub use self::nat::published_ports;
pub use self::programs::search_path;
pub use self::rehearse::rehearse;
pub use self::render::commit;
pub use self::writer::start_alone;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::programs::Programs;
use self::writer::Writer;
use crate::authors::Authors;
use crate::driver::Firewall;
use crate::error::Error;
use crate::kernel::FamilyState;
use crate::model::Family;
use crate::plan::{FamilyPlan, Plan};

/// Our chain, in the filter table of each family.
pub const CHAIN: &str = "SPA";
/// How long to wait for others to let go of the xtables lock, in seconds. The nft variant has no lock.
pub const LOCK_WAIT: u32 = 5;
/// How long a change may take, with all the programs that are run for it, and a look: what runs then is killed. The wait
/// for the lock is included.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Exists if and only if the running kernel has IPv6 in this network namespace.
const IPV6_WITNESS: &str = "/proc/net/if_inet6";

/// Which programs are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// `iptables`: whatever the system's alternatives say.
    #[default]
    System,
    /// `iptables-nft`.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

/// Where the rules of the programs end up, as they say of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In nf_tables.
    Nft,
    /// In the old x_tables.
    Legacy,
}

/// What a program like `iptables-legacy-save` prints.
///
/// # Errors
/// If it is not there, fails, or does not end in time.
pub fn printed(program: &str, arguments: &[&str], path: &[PathBuf]) -> Result<String, Error> {
    let program = programs::find(program, path)?;
    let output = run::run(&program, arguments, None, TIME_LIMIT)?;
    if output.success {
        return Ok(output.stdout);
    }
    let command = run::describe(&program, arguments);
    Err(Error::Refused { command, status: output.status, stderr: output.stderr })
}

/// The driver.
#[derive(Debug)]
pub struct Iptables {
    variant: Variant,
    path: Vec<PathBuf>,
    v4: Side,
    /// `None` while the kernel has no IPv6.
    v6: Option<Side>,
    backend: Backend,
    time_limit: Duration,
    /// The end of the time limit of what is being done.
    deadline: Option<Instant>,
    authors: Authors,
    /// What every process that can write holds.
    lock: Option<Arc<OwnedFd>>,
}

/// What is run for one family.
#[derive(Debug)]
struct Side {
    save: PathBuf,
    writer: Writer,
}

impl Side {
    fn new(programs: Programs, authors: &Authors, lock: Option<&Arc<OwnedFd>>) -> Self {
        let Programs { restore, save } = programs;
        Self { save, writer: Writer::new(restore, authors.clone(), lock.cloned()) }
    }
}

impl Iptables {
    /// Finds the programs of `variant` and checks that both families can be read. IPv6 may be missing only if the
    /// kernel runs without it.
    ///
    /// # Errors
    /// If a program is not there, or reading fails; see [`Error`].
    pub fn open(variant: Variant) -> Result<Self, Error> {
        Self::open_in(variant, programs::search_path(), TIME_LIMIT)
    }

    /// As [`Self::open`], with the directories to search, in order, and the time that a change may take.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in(variant: Variant, path: Vec<PathBuf>, time_limit: Duration) -> Result<Self, Error> {
        let authors = Authors::default();
        let v4 = Side::new(Programs::find(variant, Family::V4, &path)?, &authors, None);
        let backend = Backend::Legacy; // until it is known
        let deadline = Some(Instant::now() + time_limit);
        let mut driver =
            Self { variant, path, v4, v6: None, backend, time_limit, deadline, authors, lock: None };
        driver.backend = driver.save(Family::V4)?.1;
        driver
            .read_family(Family::V6)
            .map_err(|source| Error::NoFamily { family: Family::V6, source: Box::new(source) })?;
        driver.deadline = None;
        Ok(driver)
    }

    /// Has every process that may write hold a copy of `lock`: a lock of that open file is then given up only when
    /// no process is left that could still change a rule, however this one ends.
    #[must_use]
    pub fn holding(mut self, lock: OwnedFd) -> Self {
        self.lock = Some(Arc::new(lock));
        let programs = |side: Side| Programs { restore: side.writer.into_program(), save: side.save };
        self.v4 = Side::new(programs(self.v4), &self.authors, self.lock.as_ref());
        self.v6 = self.v6.map(|side| Side::new(programs(side), &self.authors, self.lock.as_ref()));
        self
    }

    /// Where the rules end up.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// `iptables-save -t nat`, or `None` where looking would first make the table, or the family is missing.
    ///
    /// # Errors
    /// As reading the filter table.
    pub fn nat(&mut self, family: Family) -> Result<Option<String>, Error> {
        let (witness, names) = match family {
            Family::V4 => ("/proc/net", "/proc/net/ip_tables_names"),
            Family::V6 => (IPV6_WITNESS, "/proc/net/ip6_tables_names"),
        };
        let made =
            || std::fs::read_to_string(names).is_ok_and(|tables| tables.lines().any(|table| table == "nat"));
        if !Path::new(witness).exists() || (self.backend == Backend::Legacy && !made()) {
            return Ok(None);
        }
        let left = self.left();
        let program = &self.side(family)?.save;
        let args = ["-t", "nat"];
        let command = run::describe(program, &args);
        let output = run::run(program, &args, None, left).map_err(|error| self.in_all(error))?;
        if !output.success {
            return Err(failure::classify(command, &output, family));
        }
        Ok(Some(output.stdout))
    }

    fn side(&mut self, family: Family) -> Result<&mut Side, Error> {
        match family {
            Family::V4 => Ok(&mut self.v4),
            Family::V6 => {
                let found = match self.v6.take() {
                    Some(found) => found,
                    None => {
                        let programs = Programs::find(self.variant, family, &self.path)?;
                        Side::new(programs, &self.authors, self.lock.as_ref())
                    }
                };
                Ok(self.v6.insert(found))
            }
        }
    }

    /// What is left of the time.
    fn left(&self) -> Duration {
        self.deadline.map_or(self.time_limit, |end| end.saturating_duration_since(Instant::now()))
    }

    /// Of a program that had only what others left of the time, the whole of it is told.
    fn in_all(&self, error: Error) -> Error {
        match error {
            Error::TimedOut { command, .. } => Error::TimedOut { command, after: self.time_limit },
            other => other,
        }
    }

    fn commit(&mut self, family: Family, plan: &FamilyPlan) -> Result<(), Error> {
        let left = self.left();
        let writer = &mut self.side(family)?.writer;
        let command = writer.describe();
        let output = writer.write(&commit(plan), left).map_err(|error| self.in_all(error))?;
        if output.success { Ok(()) } else { Err(failure::classify(command, &output, family)) }
    }

    fn save(&mut self, family: Family) -> Result<(FamilyState, Backend), Error> {
        let left = self.left();
        let program = &self.side(family)?.save;
        let args = ["-c", "-t", "filter"];
        let command = run::describe(program, &args);
        let output = run::run(program, &args, None, left).map_err(|error| self.in_all(error))?;
        if !output.success {
            return Err(failure::classify(command, &output, family));
        }
        parse::family(&output.stdout)
            .map_err(|unreadable| failure::unreadable(command, unreadable, &output, family))
    }
}

impl Firewall for Iptables {
    fn name(&self) -> String {
        match self.backend {
            Backend::Nft => "iptables (nft)".into(),
            Backend::Legacy => "iptables (legacy)".into(),
        }
    }

    fn read_family(&mut self, family: Family) -> Result<FamilyState, Error> {
        if family == Family::V6 && !Path::new(IPV6_WITNESS).exists() {
            return Ok(FamilyState { missing: true, ..FamilyState::default() });
        }
        Ok(self.save(family)?.0)
    }

    fn prepare(&mut self) {
        for side in [Some(&mut self.v4), self.v6.as_mut()].into_iter().flatten() {
            let _ = side.writer.prepare(); // the next change says what is wrong
        }
    }

    fn authors(&self) -> Authors {
        self.authors.clone()
    }

    fn begin(&mut self) {
        self.deadline = Some(Instant::now() + self.time_limit);
    }

    fn end(&mut self) {
        self.deadline = None;
    }

    fn uses_xtables_lock(&self) -> bool {
        self.backend == Backend::Legacy
    }

    fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        for family in Family::BOTH.into_iter().filter(|family| !plan.family(*family).is_empty()) {
            let plan = plan.family(family);
            match (self.commit(family, plan), pieces::in_pieces(plan)) {
                (Err(Error::Refused { stderr, .. }), Some(pieces)) if failure::is_too_long(&stderr) => {
                    pieces.iter().try_for_each(|piece| self.commit(family, piece))?;
                }
                (result, _) => result?,
            }
        }
        Ok(())
    }
}
