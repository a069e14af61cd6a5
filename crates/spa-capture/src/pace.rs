//! When to wait for the next packet, and when to let packets gather first.
//!
//! To wake a process costs the machine several times what a junk packet does. A reader that sleeps for each packet is
//! woken for each packet, so a flood that it could take with ease costs most where it is slow: the reader is always
//! done before the next one. So wake-ups by packets are rationed: a machine that is left alone is woken at once for
//! each packet; one that is flooded looks at intervals, at what came meanwhile. No timer runs while no packet comes.

use std::time::Duration;

/// Wake-ups by packets a second that are made at once.
const WAKES: u32 = 1_000;
/// Such wake-ups in a row, however quickly.
const BURST: u32 = 64;
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / WAKES as u64);
const DEPTH: Duration = Duration::from_nanos(1_000_000_000 / WAKES as u64 * BURST as u64);

/// A ration of wake-ups: a token bucket, kept as the moment at which it is full again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace(Duration);

impl Pace {
    /// How long packets gather when the wake-ups are used up: what a knock among a flood waits at most, beside the wait
    /// for a processor. At 1.5 million packets a second 900 come meanwhile, a third of a ring.
    pub const GATHER: Duration = Duration::from_micros(600);

    /// Notes that a packet woke the reader. `now` is of a clock that is never set back.
    pub fn woken(&mut self, now: Duration) {
        self.0 = self.0.max(now).saturating_add(INTERVAL).min(now.saturating_add(DEPTH));
    }

    /// How long to let packets gather before looking again; `None`: until the next one comes.
    #[must_use]
    pub fn gather(&self, now: Duration) -> Option<Duration> {
        (self.0.saturating_add(INTERVAL) > now.saturating_add(DEPTH)).then_some(Self::GATHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wake-ups and looks of a reader in a time, where a packet comes each `every`.
    fn read(pace: &mut Pace, start: Duration, length: Duration, every: Duration) -> (u32, u32) {
        let (mut now, mut woken, mut looks) = (start, 0, 0);
        while now < start + length {
            match pace.gather(now) {
                Some(time) => {
                    now += time;
                    looks += 1;
                }
                None => {
                    now += every;
                    woken += 1;
                    pace.woken(now);
                }
            }
        }
        (woken, looks)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_trickle_is_never_kept_waiting() {
        let every = Duration::from_micros(1_001);
        assert_eq!(read(&mut Pace::default(), SECOND, SECOND, every), (1_000, 0));
    }

    #[test]
    fn a_flood_wakes_no_more_often_than_its_ration() {
        for nanos in [1, 600, 10_000, 100_000] {
            let (woken, looks) = read(&mut Pace::default(), SECOND, SECOND, Duration::from_nanos(nanos));
            assert!(woken <= BURST + WAKES + 1, "{nanos}: {woken}");
            assert!(u128::from(looks) <= SECOND.as_nanos() / Pace::GATHER.as_nanos() + 1, "{nanos}: {looks}");
        }
    }

    #[test]
    fn when_the_flood_ends_the_reader_sleeps_at_once() {
        let mut pace = Pace::default();
        read(&mut pace, SECOND, SECOND, Duration::from_nanos(600));
        let end = 2 * SECOND;
        assert!(pace.gather(end + INTERVAL).is_none());
        let (woken, looks) =
            read(&mut pace, end + DEPTH, Duration::from_micros(60), Duration::from_micros(1));
        assert_eq!((woken, looks), (60, 0), "and the whole ration is there again");
    }
}
