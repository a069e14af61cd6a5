//! What becomes of a packet: the rules of the whole host, evaluated without sending anything.
//!
//! The kernel runs a packet through hooks, each with base chains by priority: those of nf_tables (native ones, and those
//! that iptables-nft writes) and those of iptables-legacy, side by side. [`Ruleset::read`] reads all of them, and
//! [`Ruleset::journey`] takes a connection through: the first packet in, the answer out, the next packet in.
//!
//! ```text
//!  in:   ingress  -> prerouting (raw -300, conntrack -200, mangle -150, nat -100) -> input (mangle, filter 0, nat 100)
//!  out:  output (raw, mangle, filter)  -> postrouting (mangle, nat)
//! ```
//!
//! A rule of nf_tables is a row of expressions over registers, which `machine` carries out on a packet made of bytes;
//! a rule of iptables is text from `iptables-save`, which `text` understands. Nothing is guessed: where a rule
//! depends on what cannot be known (a limit, a random number, a match that is not understood), the journey is made
//! both ways. Only if it ends the same is there a verdict; else the rule is named.
//!
//! Not looked at: bridges' own tables, traffic control, XDP, eBPF, IPsec policies, and other network namespaces.

mod expression;
mod grant;
mod journey;
mod legacy;
mod machine;
mod model;
mod native;
mod oracle;
mod packet;
mod place;
mod read;
mod sets;
mod sources;
mod text;
mod walk;
mod xt;

pub use journey::{Journey, Verdict};
pub use model::Ruleset;
pub use packet::{Host, Interface, Visit};
pub use place::{Place, Step, Which};
