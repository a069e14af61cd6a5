//! The nftables driver: one table, `inet spa`, over netlink. Nothing is executed and no text is parsed.
//!
//! ```text
//! table inet spa {                                    flags owner,persist where the kernel takes both
//!   set openings4 { ipv4_addr . inet_proto . inet_service; timeout; counter }        what the rules look up
//!   set owners4   { the same . the client's name; timeout }                          whose they are
//!   chain input { type filter hook input priority mangle; policy accept;
//!     meta nfproto ipv4 jump ipv4
//!     meta nfproto ipv6 jump ipv6 }
//!   chain ipv4 {
//!     iifname lo return
//!     the exceptions: return
//!     ct state established, original direction, to a service: accept
//!     ip saddr . meta l4proto . th dport @openings4 accept
//!     to a service: drop
//!     to the SPA port: drop }
//!   and the same for IPv6
//! }
//! ```
//!
//! **Priority.** A drop in any base chain is final, and an accept only ends its own chain. So ours may stand anywhere
//! behind conntrack (-200) to close, and nowhere can it open what another chain drops. It stands at -150, ahead of the
//! filters of others (0), so that none of them answers with a reject what ours drops in silence.
//!
//! **Time.** Each element has its own time-out, which the kernel counts in milliseconds: it closes at the moment, not
//! at the next second, with or without a daemon, and setting the wall clock does not move it. It counts from when the
//! request reaches it, so a busy machine may add what that takes. It does not count while the machine is suspended. The comment of an element says which wall-clock time is meant, to the nanosecond; a
//! grant is not written again because the two drift apart a little. Provisional drops compare the wall clock.
//!
//! **Others' filters.** An accept here opens nothing that another chain drops. With a [`Mark`], what is accepted here
//! (and nothing else) carries it from then on, so that a rule of the administrator's can accept it there too.
//!
//! **Prefixes.** A grant is for one address, so there are no sets of prefixes; the networks in `except` are rules.
//!
//! **Ownership.** A table with the flag *owner* is changed by nobody but the socket that made it or took it over, so
//! the driver keeps its socket; with *persist* it outlives the process, and the next one takes it over (Linux 6.9).
//! Alone, *owner* would end protection with the process; so it is both or neither.

mod abi;
mod comment;
mod elements;
mod expressions;
mod mark;
mod read;
mod rules;
mod write;

pub use self::mark::{Mark, MarkError};

use std::collections::BTreeSet;
use std::io;
use std::time::SystemTime;

use rustix::net::netlink;

use self::abi::table;
use crate::authors::Authors;
use crate::driver::Firewall;
use crate::error::Error;
use crate::kernel::FamilyState;
use crate::model::Family;
use crate::netlink::Socket;
use crate::plan::{ChainPlan, FamilyPlan, Plan};

/// Our table, of family `inet`.
pub const TABLE: &str = "spa";
/// Our chain at the input hook.
pub const BASE_CHAIN: &str = "input";
/// `NF_IP_PRI_MANGLE`, `linux/netfilter_ipv4.h`; the same for IPv6.
pub const PRIORITY: i32 = -150;
/// What one transaction may take, in bytes, if the kernel lets us raise it so far: some thousand rules.
const SEND_BUFFER: usize = 1 << 20;
const NEEDS: &str = "CAP_NET_ADMIN";

/// What belongs to one family.
struct Names {
    chain: &'static str,
    openings: &'static str,
    owners: &'static str,
}

impl Names {
    const fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self { chain: "ipv4", openings: "openings4", owners: "owners4" },
            Family::V6 => Self { chain: "ipv6", openings: "openings6", owners: "owners6" },
        }
    }
}

/// The driver.
#[derive(Debug)]
pub struct Nftables {
    socket: Socket,
    authors: Authors,
    /// The flags of the table as we make it.
    makes: u32,
    /// The flags that make the table ours as it was found.
    takes: u32,
    /// The table was found without an owner that it may have.
    orphaned: bool,
    /// Set on what is let in.
    mark: Option<Mark>,
    /// Whether this kernel counts for each element of a set.
    counts: bool,
    /// Whether table, sets, base chain and jumps stood as we make them when they were last read.
    intact: bool,
    /// Families whose sets held elements that are no grants.
    astray: BTreeSet<Family>,
}

impl Nftables {
    /// Asks the kernel what it can do. Nothing is changed.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] without CAP_NET_ADMIN, [`Error::NoNftables`] where the kernel lacks it,
    /// [`Error::Owned`] while another process holds the table, and as [`Firewall::read_family`].
    pub fn open() -> Result<Self, Error> {
        Self::open_marking(None)
    }

    /// As [`Self::open`], and sets a mark on what is let in.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_marking(mark: Option<Mark>) -> Result<Self, Error> {
        Self::open_with(table::FLAG_OWNER | table::FLAG_PERSIST, mark)
    }

    /// As [`Self::open`], but a table that it makes can be changed by others, as with older kernels.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_shared() -> Result<Self, Error> {
        Self::open_with(0, None)
    }

    fn open_with(owner: u32, mark: Option<Mark>) -> Result<Self, Error> {
        let socket = Socket::open(netlink::NETFILTER).map_err(|source| Error::NoNftables { source })?;
        socket.widen(SEND_BUFFER);
        let authors = Authors::default();
        authors.add_port(socket.port().map_err(|source| Error::NoNftables { source })?);
        let mut driver = Self {
            socket,
            authors,
            makes: 0,
            takes: 0,
            orphaned: false,
            mark,
            counts: true,
            intact: false,
            astray: BTreeSet::new(),
        };
        let mut tried =
            |flags, counts| driver.socket.batch(abi::SUBSYSTEM, write::probe(flags, counts), false);
        let accepted = [(owner, true), (0, true), (0, false)].into_iter().find_map(|(flags, counts)| {
            match tried(flags, counts) {
                Ok(()) => Some(Ok((flags, counts))),
                Err((_, error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Some(Err(not_permitted()))
                }
                Err((_, source)) if (flags, counts) == (0, false) => Some(Err(Error::NoNftables { source })),
                Err(_) => None,
            }
        });
        if let Some(accepted) = accepted {
            (driver.makes, driver.counts) = accepted?;
        }
        driver.read()?;
        Ok(driver)
    }

    /// Whether the table is ours alone, and stays when this process ends.
    pub fn owns_its_table(&self) -> bool {
        self.takes & table::FLAG_OWNER != 0
    }

    /// One transaction. What it was about is told by the driver, because the kernel says only a number.
    fn commit(&mut self, steps: Vec<write::Step>) -> Result<(), Error> {
        let (names, requests): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
        self.socket.batch(abi::SUBSYSTEM, requests, true).map_err(|(step, source)| {
            if source.kind() == io::ErrorKind::PermissionDenied {
                return self.owner_elsewhere().unwrap_or_else(not_permitted);
            }
            let doing = step.and_then(|step| names.get(step)).map_or("committing", String::as_str);
            Error::Rejected { doing: doing.to_owned(), source }
        })
    }

    fn owner_elsewhere(&mut self) -> Option<Error> {
        self.table().err().filter(|error| matches!(error, Error::Owned { .. }))
    }
}

fn not_permitted() -> Error {
    Error::NotPermitted { command: "changing nf_tables".into(), needs: NEEDS }
}

impl Firewall for Nftables {
    fn name(&self) -> String {
        "nftables".into()
    }

    fn read_family(&mut self, family: Family) -> Result<FamilyState, Error> {
        self.state(family)
    }

    fn reread(&mut self, family: Family, plan: &FamilyPlan, state: &mut FamilyState) -> Result<(), Error> {
        if plan.chain == ChainPlan::Keep && plan.jump == Default::default() {
            self.reread_elements(family, &plan.elements, state)
        } else {
            *state = self.state(family)?;
            Ok(())
        }
    }

    fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        if Family::BOTH.into_iter().any(|family| plan.family(family).chain == ChainPlan::Remove) {
            return self.commit(write::removal(self.takes));
        }
        let standing = if self.intact { Some(&self.astray) } else { None };
        let flags = if self.intact { self.takes } else { self.makes };
        // Hundreds of grants take several transactions, and so long that each counts its time-outs from its own time.
        let mut first = Some(write::chains(plan, (self.takes, self.makes), self.counts, self.mark, standing));
        for (family, piece) in write::pieces(plan) {
            let mut steps = first.take().unwrap_or_else(|| vec![write::take_over(flags)]);
            steps.extend(write::change(family, &piece, self.counts, SystemTime::now()));
            self.commit(steps)?;
        }
        first.map_or(Ok(()), |steps| self.commit(steps))
    }

    fn authors(&self) -> Authors {
        self.authors.clone()
    }

    fn hold(&mut self) -> Result<(), Error> {
        if self.orphaned {
            self.commit(vec![write::take_over(self.takes)])?;
            self.orphaned = false;
        }
        Ok(())
    }
}
