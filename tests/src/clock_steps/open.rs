//! A grant as it is seen from outside: from when to when alice's machine gets through.

use std::thread::sleep;
use std::time::Duration;

use spa_tests::Scene;
use spa_tests::probe::Probe;
use spa_tests::scene::CLOSES_WITHIN;

use super::clocks::boot;

/// `[limits] open-for`
pub const OPEN_FOR: Duration = Duration::from_secs(15);
/// Between two looks at an open port.
const PAUSE: Duration = Duration::from_millis(250);

/// An opened port, by the boot-time clock.
pub struct Opened {
    /// The datagram that did it.
    pub datagram: Vec<u8>,
    /// Before the knock.
    pub asked: Duration,
    /// After the port was seen open.
    pub seen: Duration,
}

impl Opened {
    /// Knocks.
    ///
    /// # Panics
    /// If the port does not open.
    pub fn by_knock(scene: &Scene) -> Self {
        let asked = boot();
        let datagram = scene.captured_knock();
        Self { datagram, asked, seen: boot() }
    }

    /// Follows the port to its end; returns how long after the earliest moment of its end it was found closed.
    ///
    /// # Panics
    /// If it closes early, or late.
    pub fn ends_in_time(&self, scene: &Scene) -> Duration {
        let (earliest, latest) = (self.asked + OPEN_FOR, self.seen + OPEN_FOR + CLOSES_WITHIN);
        loop {
            let started = boot();
            let found = scene.look(&scene.topology.client, 22);
            if found == Probe::Open {
                assert!(started <= latest, "still open {:?} after its end", started - latest + CLOSES_WITHIN);
                sleep(PAUSE);
                continue;
            }
            assert!(boot() >= earliest, "{found} {:?} before its end", earliest - boot());
            return started.saturating_sub(earliest);
        }
    }

    /// Whether its time is not over, for certain.
    pub fn is_in_its_time(&self) -> bool {
        boot() < self.asked + OPEN_FOR
    }
}
