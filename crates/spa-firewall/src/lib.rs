//! The firewall of single-packet authorization.
//!
//! [`Wanted`] says what should stand, [`Kernel`] what stands, [`reconcile`] is the pure function between the two, a
//! [`Firewall`] driver reads and writes, and the [`Enforcer`] is the only one who calls it: read, reconcile, apply,
//! read back, compare. Everything here is synchronous and may block for the length of a child process; every wait
//! has a bound.
#![forbid(unsafe_code)]

mod after;
mod ahead;
mod authors;
mod choose;
pub mod conntrack;
mod cut;
mod driver;
mod elements;
mod enforcer;
mod error;
pub mod hooks;
pub mod iptables;
mod kernel;
pub mod memory;
mod model;
mod names;
mod netlink;
pub mod network;
mod nft;
pub mod nftables;
mod plan;
mod sockets;
pub mod survey;
mod words;

pub use authors::{Authors, Notice, Whose};
pub use choose::{Choice, Driver, choose};
pub use cut::{Cut, Flow, Refused, cut};
pub use driver::Firewall;
pub use elements::ElementPlan;
pub use enforcer::{ATTEMPTS, Enforcer, GrantStatus, Report};
pub use error::Error;
pub use kernel::{Counted, Counters, Elements, FamilyState, Kernel, LAST_SECOND, Open, Rule, Span};
pub use model::{Family, GrantKey, Lifetime, Opening, Protection, Wanted};
pub use names::{Except, InterfaceName, NameError};
pub use plan::{ChainPlan, FamilyPlan, JumpPlan, MAX_REMOVALS, Plan, reconcile, reconcile_grants};
pub use sockets::{Connection, Listener, State as ConnectionState, listeners};
