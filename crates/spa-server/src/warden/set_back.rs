//! How far the wall clock was set back while no daemon ran.
//!
//! The dates of iptables' rules are of the wall clock. The daemon rewrites them when that is set; with no daemon, a clock
//! set back into the dates of a grant that has ended would make it live again, for whoever starts next and takes over what
//! stands. So the distance of the wall clock from the boot-time clock is kept beside the rules: nothing but a step
//! changes it, as both follow the same corrections of speed.
//!
//! What is noted is never below the distance of any rule that stands: then grants may end sooner than they should, never
//! later, wherever the daemon is killed. So a greater distance is noted before rules are written by it, and a lesser one
//! when those of before are known to be gone.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spa_firewall::{GrantKey, Lifetime};
use spa_gate::Now;

use super::events;
use crate::error::Outcome;
use crate::files::{self, Existing};

/// In the state directory: the boot's id and the distance in nanoseconds.
const FILE: &str = "clock";
/// Another after each boot (random(4)); the rules of one do not outlive it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Between reading the one clock and the other. A shorter step moves no rule: their dates are whole seconds.
const JITTER: i128 = Duration::from_millis(500).as_nanos().cast_signed();

/// What is noted of the clocks' distance.
pub struct ClockNote {
    /// `None` where nothing is noted: in a dry run, or with a kernel that does not tell its boot's id.
    place: Option<(PathBuf, String)>,
    noted: Option<i128>,
    /// By what rules are wanted that are not known to stand yet, where that is less.
    lesser: Option<i128>,
}

impl ClockNote {
    /// Reads what was noted in this boot. A file that cannot be read or does not parse is as none, with a line.
    pub fn read(state_dir: &Path) -> Self {
        let Ok(boot) = std::fs::read_to_string(BOOT_ID) else { return Self::none() };
        Self::of_boot(state_dir.join(FILE), boot.trim().to_owned())
    }

    fn of_boot(path: PathBuf, boot: String) -> Self {
        let noted = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text).map_or_else(
                || {
                    events::clock_note_unknown(&path, &"not what was written");
                    None
                },
                |(noted_boot, distance)| (noted_boot == boot).then_some(distance),
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => None, // before the first start
            Err(error) => {
                events::clock_note_unknown(&path, &error);
                None
            }
        };
        Self { place: Some((path, boot)), noted, lesser: None }
    }

    /// Notes nothing.
    pub fn none() -> Self {
        Self { place: None, noted: None, lesser: None }
    }

    /// Moves the times of the grants found by what the clock was set back since, so that those of iptables end when
    /// they would have. A clock set forward ends them by their dates, sooner. What nftables counts down is right already;
    /// its comment alone, which tells when the grant was made, is by the clock of then.
    pub fn undo(&self, now: Now, driver: &str, found: &mut [(GrantKey, Lifetime)]) {
        let counts_down = driver == spa_firewall::Driver::Nftables.name();
        let Some(back) = self.set_back(distance(now)) else { return };
        let moved = |time: SystemTime| time.checked_sub(back).unwrap_or(UNIX_EPOCH);
        for (_, lifetime) in found {
            lifetime.from = moved(lifetime.from);
            if !counts_down {
                lifetime.until = moved(lifetime.until);
            }
        }
    }

    fn set_back(&self, distance: i128) -> Option<Duration> {
        let back = self.noted?.checked_sub(distance)?;
        let back = (back >= JITTER).then(|| u64::try_from(back).ok())?;
        back.map(Duration::from_nanos)
    }

    /// To be called before rules are dated by this moment. Writes only where the clock was set forward.
    ///
    /// # Errors
    /// Where it cannot be noted; then no rule may be dated so.
    pub fn before_dating(&mut self, now: Now) -> Outcome {
        let distance = distance(now);
        // Others may have been dated so while the lesser one waited.
        self.lesser = self.lesser.map(|lesser| lesser.max(distance));
        match self.noted {
            Some(noted) if distance - noted < JITTER => Ok(()),
            _ => self.write(distance),
        }
    }

    /// All rules are wanted by this moment from now on; those that stand may be of before.
    pub fn all_dated(&mut self, now: Now) {
        self.lesser = Some(distance(now));
    }

    /// All rules stand as they are wanted. Writes only where the clock was set back.
    ///
    /// # Errors
    /// Where it cannot be noted: then a greater distance stays noted.
    pub fn all_written(&mut self) -> Outcome {
        match (self.lesser.take(), self.noted) {
            (Some(lesser), Some(noted)) if noted - lesser >= JITTER => {
                self.noted = None; // a failure may come after the file was replaced
                self.write(lesser)
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, distance: i128) -> Outcome {
        let Some((path, boot)) = &self.place else { return Ok(()) };
        let text = format!("{boot} {distance}\n");
        files::write_atomically(path, text.as_bytes(), 0o600, Existing::Replace)?;
        self.noted = Some(distance);
        Ok(())
    }
}

fn parse(text: &str) -> Option<(&str, i128)> {
    let (boot, distance) = text.trim_end().split_once(' ')?;
    Some((boot, distance.parse().ok()?))
}

fn distance(now: Now) -> i128 {
    i128::from(now.wall) - now.boot.as_nanos().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    /// A moment at which the clocks are so far apart.
    fn at(seconds: u64) -> Now {
        Now { wall: (seconds + 100) * 1_000_000_000, boot: Duration::from_secs(100) }
    }

    fn note(directory: &tempfile::TempDir) -> ClockNote {
        ClockNote::of_boot(directory.path().join(FILE), "id".into())
    }

    /// Seconds, as who starts next finds them.
    fn noted(directory: &tempfile::TempDir) -> Option<i128> {
        note(directory).noted.map(|distance| distance / SECOND)
    }

    #[test]
    fn only_a_step_back_of_the_same_boot_counts() {
        let directory = tempfile::tempdir().unwrap();
        let back = |text: &str, distance| {
            std::fs::write(directory.path().join(FILE), text).unwrap();
            note(&directory).set_back(distance)
        };
        assert_eq!(back("id 3600000000000\n", 3_590 * SECOND), Some(Duration::from_secs(10)));
        assert_eq!(back("other 3600000000000\n", 0), None);
        assert_eq!(back("id 3600000000000\n", 3_700 * SECOND), None, "set forward");
        assert_eq!(back("id 3600000000000\n", 3_600 * SECOND - 1_000), None, "read one after the other");
        for text in ["", "id", "id ", "id x", "\n"] {
            assert_eq!(back(text, 0), None, "{text:?}");
        }
    }

    /// Whenever it is killed: what is on the disk is not below the distance of any rule.
    #[test]
    fn the_note_is_never_below_the_rules() {
        let directory = tempfile::tempdir().unwrap();
        let mut clock = note(&directory);
        clock.before_dating(at(1_000)).unwrap();
        assert_eq!(noted(&directory), Some(1_000));
        // Forward: before any rule is written.
        clock.before_dating(at(5_000)).unwrap();
        assert_eq!(noted(&directory), Some(5_000));
        // Back: only after all are.
        clock.before_dating(at(2_000)).unwrap();
        clock.all_written().unwrap();
        assert_eq!(noted(&directory), Some(5_000), "only some are dated anew");
        clock.all_dated(at(2_000));
        assert_eq!(noted(&directory), Some(5_000));
        // Another is dated between, by a clock that was set once more.
        clock.before_dating(at(3_000)).unwrap();
        clock.all_written().unwrap();
        assert_eq!(noted(&directory), Some(3_000));
        clock.all_written().unwrap();
        assert_eq!(noted(&directory), Some(3_000));
    }

    #[test]
    fn what_cannot_be_noted_is_an_error_before_a_rule_is_dated() {
        let directory = tempfile::tempdir().unwrap();
        let mut clock = note(&directory);
        clock.before_dating(at(1_000)).unwrap();
        clock.place = Some((directory.path().join("missing/clock"), "id".into()));
        assert!(clock.before_dating(at(1_000)).is_ok(), "nothing to note");
        assert!(clock.before_dating(at(2_000)).is_err());
        assert!(clock.before_dating(at(2_000)).is_err(), "and it goes on failing");
        assert!(ClockNote::none().before_dating(at(2_000)).is_ok());
    }
}
