//! The window of time in which a packet counts, for both halves.

use core::ops::RangeInclusive;
use core::time::Duration;

use spa_proto::{HINT_EPOCH_SHIFT, NANOS_PER_SECOND};

use crate::reason::{Reason, Refusal};
use crate::time::{Now, nanos};

/// Smallest `max-age`.
pub const MIN_MAX_AGE: Duration = Duration::from_secs(5);
/// Largest `max-age`: the memo and the hint tables are sized for it.
pub const MAX_MAX_AGE: Duration = Duration::from_secs(600);

/// How far a packet's time may be from ours, either way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    max_age: Duration,
}

impl Window {
    /// Takes `max_age` into [`MIN_MAX_AGE`] to [`MAX_MAX_AGE`], and cuts it to whole seconds.
    pub(crate) fn new(max_age: Duration) -> Self {
        Self { max_age: Duration::from_secs(max_age.clamp(MIN_MAX_AGE, MAX_MAX_AGE).as_secs()) }
    }

    /// The verifier's rule: the envelope's whole seconds differ from ours, also rounded down, by at most max-age.
    /// A counter that passes [`Self::check_counter`] is never refused here, since rounding down keeps its order.
    pub(crate) fn check_time(self, now: Now, time: u32) -> Result<(), Refusal> {
        let (oldest, newest) = self.seconds(now);
        if (oldest..=newest).contains(&u64::from(time)) {
            return Ok(());
        }
        // Both are far below 2^63: nanoseconds in a u64 are under 2^35 seconds.
        Err(Refusal::stale(i64::from(time) - now.wall_seconds() as i64))
    }

    /// The first and the last second of the window, Unix seconds.
    fn seconds(self, now: Now) -> (u64, u64) {
        let seconds = now.wall_seconds();
        (seconds.saturating_sub(self.max_age.as_secs()), seconds + self.max_age.as_secs())
    }

    /// The hint epochs of the window.
    pub(crate) fn epochs(self, now: Now) -> RangeInclusive<u64> {
        let (oldest, newest) = self.seconds(now);
        (oldest >> HINT_EPOCH_SHIFT)..=(newest >> HINT_EPOCH_SHIFT)
    }

    /// The warden's rule, exact to the nanosecond, so that no recorded counter is past now + max-age.
    pub(crate) fn check_counter(self, now: Now, counter: u64) -> Result<(), Refusal> {
        if counter.abs_diff(now.wall) <= nanos(self.max_age) {
            return Ok(());
        }
        let seconds = counter / NANOS_PER_SECOND;
        Err(Refusal::stale(seconds as i64 - now.wall_seconds() as i64))
    }

    /// From when on, Unix nanoseconds, a wall clock is right by [`Self::check_clock`].
    pub(crate) fn clock_right_from(self, recorded_at: u64) -> u64 {
        recorded_at.saturating_sub(nanos(self.max_age))
    }

    /// The clock rule: a wall clock that is behind the moment of the newest record by more than max-age is wrong, and
    /// nothing is judged.
    pub(crate) fn check_clock(self, now: Now, recorded_at: u64) -> Result<(), Refusal> {
        if recorded_at > now.wall.saturating_add(nanos(self.max_age)) {
            return Err(Reason::Clock.into());
        }
        Ok(())
    }
}
