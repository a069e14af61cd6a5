//! The two clocks, read by the caller.

use core::time::Duration;

use spa_proto::NANOS_PER_SECOND;

/// The time of one decision on both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock (CLOCK_REALTIME): Unix nanoseconds. Packets are dated by it; it may step.
    pub wall: u64,
    /// The boot-time clock (CLOCK_BOOTTIME), which never steps and runs on in suspend. Leases and budgets run on it.
    pub boot: Duration,
}

impl Now {
    /// The wall clock in whole Unix seconds, rounded down.
    pub const fn wall_seconds(self) -> u64 {
        self.wall / NANOS_PER_SECOND
    }

    /// The boot-time clock at a moment of the wall clock, as the two stand to each other now; the past gives now.
    pub(crate) fn boot_at(self, wall: u64) -> Duration {
        self.boot.saturating_add(Duration::from_nanos(wall.saturating_sub(self.wall)))
    }
}

/// Nanoseconds of a duration, at most `u64::MAX` (584 years).
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
