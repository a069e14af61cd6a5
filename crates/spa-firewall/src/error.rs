//! What can go wrong, each with what to try.

use core::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{Family, GrantKey};

/// An error of the firewall.
#[derive(Debug)]
pub enum Error {
    /// A program is not there, or only in directories that are not safe to run from.
    NotInstalled {
        /// Its name.
        program: String,
        /// Where it was found but others could have put it.
        unsafe_at: Option<PathBuf>,
    },
    /// The kernel refused us.
    NotPermitted {
        /// What was run or asked.
        command: String,
        /// What is needed.
        needs: &'static str,
    },
    /// Somebody else held the xtables lock all the while.
    LockBusy {
        /// How long was waited.
        waited: Duration,
    },
    /// The `filter` table holds what iptables cannot read: it was made with `nft`.
    Incompatible {
        /// The family.
        family: Family,
    },
    /// A program did not end in time and was killed.
    TimedOut {
        /// What was run.
        command: String,
        /// How long it was given.
        after: Duration,
    },
    /// A program ended with a failure.
    Refused {
        /// What was run.
        command: String,
        /// How it ended: `exit status: 1`, `signal: 9`.
        status: String,
        /// What it said, escaped and shortened.
        stderr: String,
    },
    /// nf_tables refused a change.
    Rejected {
        /// What it was asked.
        doing: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel has no nf_tables.
    NoNftables {
        /// Why.
        source: io::Error,
    },
    /// Another process holds our nftables table as its own.
    Owned {
        /// Its netlink port, most often its process id.
        port: u32,
    },
    /// The kernel lacks a match or target and its module could not be loaded, or iptables lacks its part of it.
    MissingModule {
        /// The kernel modules, any of which may be the one.
        module: String,
        /// What the program said.
        stderr: String,
    },
    /// What a program printed cannot be read.
    Unreadable {
        /// What was run.
        command: String,
        /// The line, escaped and shortened.
        line: String,
    },
    /// A family that the kernel has cannot be filtered.
    NoFamily {
        /// The family.
        family: Family,
        /// Why.
        source: Box<Error>,
    },
    /// The firewall does not hold what was written, after several tries.
    Unsettled {
        /// The driver.
        driver: String,
        /// How often it was tried.
        attempts: u32,
        /// What still differs.
        differs: String,
    },
    /// Rules of others refer to our chain, so it cannot be removed.
    InUse {
        /// The first of them.
        rule: String,
    },
    /// These families still have rules of ours; the others have none any more.
    NotRemoved {
        /// Each with its reason: one or two.
        failed: Vec<(Family, Error)>,
    },
    /// A port of 0.
    NoPort,
    /// A grant from a time that iptables cannot write.
    TooLate {
        /// The grant.
        key: Box<GrantKey>,
    },
    /// A system call failed.
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel's netlink answer is malformed.
    Netlink {
        /// What was being done.
        doing: &'static str,
    },
    /// ctnetlink is not there, so older connections cannot be saved from the first drop.
    NoConntrack {
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled { program, unsafe_at: None } => {
                write!(f, "{program} is not installed; try \"apt install iptables\"")
            }
            Self::NotInstalled { program, unsafe_at: Some(path) } => write!(
                f,
                "{program} is only at {}, which others can write; make it and its directory writable by root alone",
                path.display()
            ),
            Self::NotPermitted { command, needs } => write!(f, "{command}: not permitted; it needs {needs}"),
            Self::LockBusy { waited } => write!(
                f,
                "another program held /run/xtables.lock for {} s; see \"lsof /run/xtables.lock\"",
                waited.as_secs()
            ),
            Self::Incompatible { family } => write!(
                f,
                "the {family} filter table was made with nft and iptables cannot read it; use backend = \
                 \"nftables\", or remove that table"
            ),
            Self::TimedOut { command, after } => {
                write!(f, "{command} did not end within {} s and was killed", after.as_secs())
            }
            Self::Refused { command, status, stderr } => write!(f, "{command} failed ({status}): {stderr}"),
            Self::Rejected { doing, source } if source.kind() == io::ErrorKind::NotFound => write!(
                f,
                "nf_tables: {doing}: {source}; try \"modprobe -a nf_tables nft_ct nf_conntrack\" if that goes on"
            ),
            Self::Rejected { doing, source } => write!(f, "nf_tables: {doing}: {source}"),
            Self::NoNftables { source } => {
                write!(f, "this kernel has no nf_tables ({source}); try \"modprobe nf_tables\"")
            }
            Self::Owned { port } => write!(
                f,
                "the table inet spa belongs to another program (netlink port {port}); does spa-server run already?"
            ),
            Self::MissingModule { module, stderr } => write!(
                f,
                "a rule needs what this kernel or iptables lacks ({stderr}); try \"modprobe {module}\", and whether \
                 iptables is installed whole"
            ),
            Self::Unreadable { command, line } => write!(f, "{command} printed what cannot be read: {line}"),
            Self::NoFamily { family, source } => write!(
                f,
                "this kernel has {family} but it cannot be filtered ({source}); protection would have a hole"
            ),
            Self::Unsettled { driver, attempts, differs } => write!(
                f,
                "{driver}: after {attempts} tries the firewall still differs from what was written ({differs}); \
                 is another program changing it?"
            ),
            Self::InUse { rule } => {
                write!(f, "our chain cannot be removed: another rule uses it ({rule}); remove that first")
            }
            Self::NotRemoved { failed } => {
                f.write_str("rules of ours are left: ")?;
                for (nth, (family, error)) in failed.iter().enumerate() {
                    write!(f, "{}{family}: {error}", if nth == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::NoPort => f.write_str("port 0 is no port"),
            Self::TooLate { key } => {
                write!(
                    f,
                    "iptables cannot write dates after 2038-01-19 (grant {key}); use backend = \"nftables\""
                )
            }
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
            Self::Netlink { doing } => write!(f, "{doing}: malformed answer from the kernel"),
            Self::NoConntrack { source } => write!(
                f,
                "connections from before cannot be kept, because conntrack's netlink is missing ({source}); try \
                 \"modprobe nf_conntrack_netlink\""
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. }
            | Self::NoConntrack { source }
            | Self::Rejected { source, .. }
            | Self::NoNftables { source } => Some(source),
            Self::NoFamily { source, .. } => Some(source),
            _ => None,
        }
    }
}
