//! See `src/bin/clock_steps.rs`.

pub mod clocks;
pub mod open;
pub mod steps;
