//! At most so many times in a minute.

use std::collections::VecDeque;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Remembers when something was done, the last `N` times.
#[derive(Debug, Default)]
pub struct PerMinute<const N: usize>(VecDeque<Duration>);

impl<const N: usize> PerMinute<N> {
    /// Whether it may be done once more at this moment of the boot-time clock.
    pub fn has_room(&mut self, now: Duration) -> bool {
        while self.0.front().is_some_and(|first| now.saturating_sub(*first) >= MINUTE) {
            self.0.pop_front();
        }
        self.0.len() < N
    }

    /// Whether it may be done now; then it counts as done.
    pub fn take(&mut self, now: Duration) -> bool {
        let room = self.has_room(now);
        if room {
            self.note(now);
        }
        room
    }

    /// It was done.
    pub fn note(&mut self, now: Duration) {
        if self.0.len() == N {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_later_there_is_room_again() {
        let at = Duration::from_secs;
        let mut bound = PerMinute::<2>::default();
        assert!(bound.has_room(at(0)));
        bound.note(at(0));
        bound.note(at(10));
        assert!(!bound.has_room(at(59)));
        assert!(bound.has_room(at(60)));
        bound.note(at(60));
        assert!(!bound.has_room(at(69)) && bound.has_room(at(70)));
    }
}
