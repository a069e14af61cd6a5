//! The capture against the real kernel: in fresh network namespaces, with a veth pair and a real packet filter.
//!
//! ```text
//!   the test's namespace              namespace "peer"
//!   srv0 02:00:00:00:00:01 ---------- cli0 02:00:00:00:00:02
//!   10.0.0.1/24, fd00::1/64           10.0.0.2/24, fd00::2/64
//! ```

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, which clippy does not see in their helpers"
)]

mod agreement;
mod delivery;
mod fanout;
mod handover;
mod interfaces;
mod net;
mod packets;
mod refusal;
mod ring;
