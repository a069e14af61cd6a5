//! The firewall of single-packet authorization.
//!
//! [`Wanted`] says what should stand, [`Kernel`] what stands, [`reconcile`] is the pure function between the two, a
//! [`Firewall`] driver reads and writes, and the [`Enforcer`] is the only one who calls it: read, reconcile, apply,
//! read back, compare. Everything here is synchronous and may block for the length of a child process; every wait
//! has a bound.
#![forbid(unsafe_code)]

mod ahead;
pub mod conntrack;
mod driver;
mod enforcer;
mod error;
pub mod iptables;
mod kernel;
pub mod memory;
mod model;
mod names;
mod netlink;
mod nft;
mod plan;
mod sockets;
pub mod survey;
mod words;

pub use driver::Firewall;
pub use enforcer::{ATTEMPTS, Enforcer, GrantStatus, Report};
pub use error::Error;
pub use kernel::{Counted, Counters, FamilyState, Kernel, LAST_SECOND, Rule, Span};
pub use model::{Family, GrantKey, Lifetime, Protection, Wanted};
pub use names::{Except, InterfaceName, NameError};
pub use plan::{ChainPlan, FamilyPlan, JumpPlan, MAX_REMOVALS, Plan, reconcile};
pub use sockets::{Connection, State as ConnectionState};
