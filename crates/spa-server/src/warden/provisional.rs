//! `run --confirm`: protection that goes away by itself unless somebody shows that they can still come in.

use std::time::{Duration, SystemTime};

use spa_firewall::Protection;

use crate::clock;

/// Protection that waits for a confirmation.
pub struct Provisional {
    /// When it goes away, boot-time clock.
    pub deadline: Duration,
    /// What was there before; `None` for nothing.
    pub previous: Option<Protection>,
    wall_deadline: SystemTime,
}

impl Provisional {
    /// Begins now.
    pub fn new(within: Duration, previous: Option<Protection>) -> Self {
        Self { deadline: clock::boot() + within, previous, wall_deadline: SystemTime::now() + within }
    }

    /// Where nothing was closed before, the kernel itself lifts the drops in time, should this process be killed. Where
    /// something was, that must not open.
    pub fn kernel_deadline(&self) -> Option<SystemTime> {
        self.previous.is_none().then_some(self.wall_deadline)
    }
}
