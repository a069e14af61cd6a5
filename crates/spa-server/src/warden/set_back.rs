//! How far the wall clock was set back while no daemon ran.
//!
//! The dates of iptables' rules are of the wall clock. The daemon rewrites them when that is set; with no daemon, a clock
//! set back into the dates of a grant that has ended would make it live again, for whoever starts next and takes over what
//! stands. So the distance of the wall clock from the boot-time clock is kept beside the rules: nothing but a step
//! changes it, as both follow the same corrections of speed.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spa_firewall::{GrantKey, Lifetime};
use spa_gate::Now;

use crate::clock;
use crate::error::Outcome;
use crate::files::{self, Existing};

/// In the state directory: the boot's id and the distance in nanoseconds, when the rules were written.
const FILE: &str = "clock";
/// Another after each boot (random(4)); the rules of one do not outlive it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Between reading the one clock and the other. A shorter step moves no rule: their dates are whole seconds.
const JITTER: Duration = Duration::from_millis(500);

/// Notes where the clocks stand, after rules were written. If that fails an older note stays: then grants may end sooner
/// than they should, never later.
///
/// # Errors
/// Where the file cannot be written.
pub fn note(state_dir: &Path) -> Outcome {
    let Some(boot) = boot_id() else { return Ok(()) };
    let text = format!("{boot} {}\n", distance(clock::now()));
    files::write_atomically(&state_dir.join(FILE), text.as_bytes(), 0o600, Existing::Replace)
}

/// Moves the times of the grants found by what the clock was set back since [`note`], so that those of iptables end when
/// they would have. A clock set forward ends them by their dates, sooner. What nftables counts down is right already; its
/// comment alone, which tells when the grant was made, is by the clock of then.
pub fn undo(state_dir: &Path, driver: &str, found: &mut [(GrantKey, Lifetime)]) {
    let counts_down = driver == spa_firewall::Driver::Nftables.name();
    let Some(boot) = boot_id() else { return };
    let text = std::fs::read_to_string(state_dir.join(FILE)).unwrap_or_default(); // there is none before the first start
    let Some(back) = set_back(&text, &boot, distance(clock::now())) else { return };
    let moved = |time: SystemTime| time.checked_sub(back).unwrap_or(UNIX_EPOCH);
    for (_, lifetime) in found {
        lifetime.from = moved(lifetime.from);
        if !counts_down {
            lifetime.until = moved(lifetime.until);
        }
    }
}

fn set_back(noted: &str, boot: &str, distance: i128) -> Option<Duration> {
    let (noted_boot, before) = noted.trim_end().split_once(' ')?;
    let back = before.parse::<i128>().ok()?.checked_sub(distance)?;
    let back = Duration::from_nanos(u64::try_from(back).ok()?); // ahead, if negative
    (noted_boot == boot && back >= JITTER).then_some(back)
}

fn distance(now: Now) -> i128 {
    i128::from(now.wall) - now.boot.as_nanos().cast_signed()
}

fn boot_id() -> Option<String> {
    std::fs::read_to_string(BOOT_ID).ok().map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_step_back_of_the_same_boot_counts() {
        let second = 1_000_000_000;
        assert_eq!(set_back("id 3600000000000\n", "id", 3_590 * second), Some(Duration::from_secs(10)));
        assert_eq!(set_back("id 3600000000000\n", "other", 0), None);
        assert_eq!(set_back("id 3600000000000\n", "id", 3_700 * second), None, "set forward");
        assert_eq!(
            set_back("id 3600000000000\n", "id", 3_600 * second - 1_000),
            None,
            "read one after the other"
        );
        for text in ["", "id", "id ", "id x", "\n"] {
            assert_eq!(set_back(text, "id", 0), None, "{text:?}");
        }
    }
}
