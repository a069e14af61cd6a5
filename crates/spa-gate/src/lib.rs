//! The decisions of single-packet authorization, in the two halves of the server's two processes. Pure: times come
//! in as arguments, nothing here reads a clock, does I/O, or logs.
//!
//! | half | in | out | steps |
//! |---|---|---|---|
//! | [`Verifier`] | a datagram | a [`Candidate`] | *length*, *tag* (its [`Sieve`], on as many threads as one likes), *fresh*, *name*, *pay* |
//! | [`Openers`] | a candidate | a [`Knock`](spa_proto::Knock), and the [`Outcome`] that the verifier is told | *open* |
//! | [`Judge`] | a knock | an [`Accepted`], then leases | *judge*; the caller makes the record durable; *grant*, *expire* |
//!
//! Every refusal has one [`Reason`]. Everything that a stranger can fill has a fixed bound and a written overflow
//! policy, at the constant that bounds it.
#![forbid(unsafe_code)]

mod address;
mod budget;
mod candidate;
mod clients;
mod fresh;
mod judge;
mod leases;
mod memo;
mod opening;
mod policy;
mod reason;
mod replay;
mod sieve;
mod time;
mod verify;

pub use address::is_martian;
pub use budget::{CLIENT_BURST, CLIENT_RATE, GLOBAL_BURST, GLOBAL_RATE};
pub use candidate::{Candidate, Ciphertext, MAX_CIPHERTEXT, Outcome};
pub use fresh::{MAX_MAX_AGE, MIN_MAX_AGE};
pub use judge::{Accepted, Judge, record_moment};
pub use leases::{Change, End, Ended, Lease, LeaseKey, Selector};
pub use memo::{MEMO_ENTRIES, MEMO_ENTRIES_PER_CLIENT, MEMO_SOURCES};
pub use opening::Openers;
pub use policy::{ClientPolicy, DEFAULT_MAX_GRANTS, DEFAULT_MAX_GRANTS_PER_CLIENT, JudgeSettings};
pub use reason::{Counters, Reason, Refusal};
pub use replay::{FLOOR_LAG, SPENT_ABOVE_FLOOR};
pub use sieve::{MAX_CLOAKS, Sieve, Tagged};
pub use time::Now;
pub use verify::{Verifier, VerifierSettings};
