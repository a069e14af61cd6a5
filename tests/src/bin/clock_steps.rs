//! `clock_steps nft|legacy|nftables`: steps the wall clock while ports are open, and looks what becomes of them.
//!
//! It sets the machine's clock, so it runs nowhere but in the guest that `tests/clock-guest.sh` boots. It prints a line
//! for each step, and panics at what should not be. docs/TORTURE.md has the list of the steps.

use std::process::ExitCode;

#[path = "../clock_steps/mod.rs"]
mod clock_steps;

use spa_tests::Variant;

/// What the guest's kernel was started with, and no other machine's.
const GUEST: &str = "spa.clock_guest";
const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let wanted = std::env::args().nth(1);
    let variants = [Variant::Nft, Variant::Legacy, Variant::Nftables];
    let variant = variants.into_iter().find(|variant| wanted.as_deref() == Some(variant.name()));
    match variant {
        Some(variant) if command_line.split_whitespace().any(|word| word == GUEST) => {
            clock_steps::steps::run(variant);
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("clock_steps is part of tests/clock-guest.sh: it sets the clock, of its guest alone");
            ExitCode::from(EX_USAGE)
        }
    }
}
