//! The table at the end.

use std::time::{Duration, Instant};

use super::phases::Phase;

/// What was done and what was found.
pub struct Report {
    pub seed: u64,
    pub kills: Vec<(Phase, usize)>,
    /// Rounds in which the daemon had ended by itself before the signal came: not counted as kills.
    pub missed: usize,
    /// Kills after which nobody waited for the programs that the daemon had started.
    pub orphaned: usize,
    /// Kills while something else failed as well.
    pub faulty: usize,
    pub knocks: usize,
    pub looks: usize,
    pub restarts: usize,
    pub slowest_restart: Duration,
    pub stranger_tries: u64,
    pub client_tries: u64,
    pub held_up: u64,
    pub overflowed: u64,
    pub most_behind: u64,
    pub began: Instant,
    pub violations: Vec<String>,
}

impl Report {
    pub fn total(&self) -> usize {
        self.kills.iter().map(|(_, kills)| kills).sum()
    }

    pub fn print(&self) {
        println!("{:<10} {:>6}", "phase", "kills");
        for (phase, kills) in &self.kills {
            println!("{:<10} {kills:>6}", phase.name());
        }
        println!("{:<10} {:>6}  in {:.0} s", "all", self.total(), self.began.elapsed().as_secs_f64());
        println!(
            "{} without waiting for what it had started; {} while something else failed; {} ended before the signal \
             came, and are not counted",
            self.orphaned, self.faulty, self.missed
        );
        println!(
            "{} knocks, {} readings of the kernel, {} restarts (slowest {} ms)",
            self.knocks,
            self.looks,
            self.restarts,
            self.slowest_restart.as_millis()
        );
        println!("{} tries by strangers, {} by clients", self.stranger_tries, self.client_tries);
        println!(
            "the kernel's clock was behind by {} ms at the most; {} connections came in past an end because of it",
            self.most_behind, self.held_up
        );
        println!(
            "{} connections passed the firewall and found the echo service's queue full",
            self.overflowed
        );
        println!("violations: {}", self.violations.len());
        for violation in &self.violations {
            println!("  {violation}");
        }
        println!("seed: {}", self.seed);
    }
}
