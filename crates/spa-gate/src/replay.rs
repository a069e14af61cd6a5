//! Replay state: per client public key a floor, and the counters above it that were used.
//!
//! Floors belong to keys: they outlive the client's removal, and are never lowered. One entry a key that was ever
//! enrolled, so a stranger cannot fill it.

use core::time::Duration;
use std::collections::HashMap;

use spa_proto::PublicKey;

use crate::time::nanos;

/// Used counters remembered above the floor. When full, the floor is raised to the least of them.
pub const SPENT_ABOVE_FLOOR: usize = 32;
/// The floor trails the newest counter by no more: a knock may be overtaken by a later one by this much.
pub const FLOOR_LAG: Duration = Duration::from_secs(10);

/// The state of one client.
#[derive(Clone, Debug, Default)]
struct Replay {
    /// This counter and all below are used up. Unix nanoseconds, as all counters.
    floor: u64,
    /// Used counters above the floor, ascending.
    spent: Vec<u64>,
}

impl Replay {
    fn is_new(&self, counter: u64) -> bool {
        counter > self.floor && self.spent.binary_search(&counter).is_err()
    }

    fn spend(&mut self, counter: u64) {
        if counter <= self.floor {
            return;
        }
        if let Err(place) = self.spent.binary_search(&counter) {
            self.spent.insert(place, counter);
        }
        if self.spent.len() > SPENT_ABOVE_FLOOR {
            self.raise(self.spent[0]);
        }
        if let Some(newest) = self.spent.last() {
            self.raise(newest.saturating_sub(nanos(FLOOR_LAG)));
        }
    }

    fn raise(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.spent.retain(|counter| *counter > self.floor);
    }
}

/// The state of every client that ever knocked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replays {
    clients: HashMap<PublicKey, Replay>,
    clock_reached: u64,
}

impl Replays {
    /// Whether this counter of this client was never used, and could not have been forgotten.
    pub(crate) fn is_new(&self, client: &PublicKey, counter: u64) -> bool {
        self.clients.get(client).is_none_or(|replay| replay.is_new(counter))
    }

    /// Uses a counter up.
    pub(crate) fn spend(&mut self, client: &PublicKey, counter: u64) {
        self.clients.entry(*client).or_default().spend(counter);
    }

    /// Uses up a counter and all below it.
    pub(crate) fn raise(&mut self, client: &PublicKey, floor: u64) {
        self.clients.entry(*client).or_default().raise(floor);
    }

    /// Notes a moment that the wall clock has reached, Unix nanoseconds.
    pub(crate) fn clock_was_at(&mut self, wall: u64) {
        self.clock_reached = self.clock_reached.max(wall);
    }

    /// The latest moment at which a record was made, as far as that is known; 0 for never.
    pub(crate) const fn clock_reached(&self) -> u64 {
        self.clock_reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn counters_out_of_order_pass_once() {
        let mut replay = Replay::default();
        for counter in [100, 98, 99] {
            assert!(replay.is_new(counter * SECOND));
            replay.spend(counter * SECOND);
        }
        for counter in [98, 99, 100] {
            assert!(!replay.is_new(counter * SECOND));
        }
    }

    #[test]
    fn the_floor_trails_by_ten_seconds() {
        let mut replay = Replay::default();
        replay.spend(100 * SECOND);
        assert!(!replay.is_new(90 * SECOND));
        assert!(replay.is_new(90 * SECOND + 1));
    }

    #[test]
    fn a_full_list_raises_the_floor() {
        let mut replay = Replay::default();
        for counter in 1..=SPENT_ABOVE_FLOOR as u64 {
            replay.spend(100 * SECOND + 2 * counter);
        }
        assert!(replay.is_new(100 * SECOND + 1));
        replay.spend(101 * SECOND);
        assert_eq!((replay.floor, replay.spent.len()), (100 * SECOND + 2, SPENT_ABOVE_FLOOR));
        assert!(!replay.is_new(100 * SECOND + 1));
        assert!(replay.is_new(100 * SECOND + 5));
    }

    #[test]
    fn a_floor_is_never_lowered() {
        let mut replay = Replay::default();
        replay.raise(50);
        replay.raise(40);
        replay.spend(45);
        assert_eq!((replay.floor, replay.spent.len()), (50, 0));
    }
}
