//! The guest's two clocks: the one that is stepped, and the one that cannot be.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// An hour, in seconds: far beyond max-age.
pub const HOUR: i64 = 3_600;

/// The boot-time clock, which knows no steps.
pub fn boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).expect("below a second"))
}

/// The wall clock of the guest.
#[derive(Debug, Default)]
pub struct WallClock {
    /// Seconds by which it is ahead of what it would be without steps.
    ahead: i64,
}

impl WallClock {
    /// Sets it forward by so many seconds, or back.
    pub fn step(&mut self, by: i64) {
        let now = clock_gettime(ClockId::Realtime);
        let then = Timespec { tv_sec: now.tv_sec + by, tv_nsec: now.tv_nsec };
        clock_settime(ClockId::Realtime, then).expect("root of the guest may set its clock");
        self.ahead += by;
    }

    /// Undoes all steps.
    pub fn put_right(&mut self) {
        self.step(-self.ahead);
    }

    /// Sets it, by whole seconds, to what it was right at a moment of the boot-time clock.
    pub fn back_to(&mut self, moment: Duration) {
        self.put_right();
        self.step(-i64::try_from((boot() - moment).as_secs()).expect("the guest is young"));
    }
}
