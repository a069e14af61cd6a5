//! Waiting until a daemon has done its work, without asking it: an answer would be counted as its work.

use std::time::{Duration, Instant};

use spa_tests::Process;

use super::flood;

/// Nothing is left to do where so long nothing was done: twice fwknopd's pause between two looks at its packets.
const QUIET: Duration = Duration::from_millis(200);
/// So much in that time is nothing: fwknopd's looks.
const NOTHING: Duration = Duration::from_millis(1);
/// From one look at its CPU time to the next.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until the processes rest, and returns when they began to: within 2 ms or so, earlier than now by [`QUIET`].
/// `None` where they are still busy after `patience`.
pub fn since(process: &Process, patience: Duration) -> Option<Instant> {
    let deadline = Instant::now() + patience;
    let (mut at, mut cpu) = (Instant::now(), flood::processes_cpu(&process.pids()));
    while at.elapsed() < QUIET {
        std::thread::sleep(LOOK);
        let now = flood::processes_cpu(&process.pids());
        // It may fall: what a child had is gone with it.
        if now.abs_diff(cpu) > NOTHING {
            (at, cpu) = (Instant::now(), now);
        }
        if Instant::now() > deadline {
            return None;
        }
    }
    Some(at)
}
