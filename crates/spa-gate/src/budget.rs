//! Token buckets on the boot-time clock, one u64 each (the generic cell rate algorithm, ITU-T I.371 annex A).

use core::time::Duration;

use crate::time::nanos;

/// Diffie-Hellman operations a second that one client can cause. Only its own psk spends them.
pub const CLIENT_RATE: u64 = 4;
/// Diffie-Hellman operations that one client can cause at once.
pub const CLIENT_BURST: u64 = 16;
/// Diffie-Hellman operations a second for all clients together: about one core's worth (51 us each).
pub const GLOBAL_RATE: u64 = 20_000;
/// Diffie-Hellman operations at once for all clients together: a tenth of a second's worth.
pub const GLOBAL_BURST: u64 = 2_000;

/// What a bucket holds and how fast it fills.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// Nanoseconds a token.
    interval: u64,
    /// Nanoseconds to fill an empty bucket.
    depth: u64,
}

impl Limit {
    const fn new(rate: u64, burst: u64) -> Self {
        let interval = 1_000_000_000 / rate;
        Self { interval, depth: interval * burst }
    }
}

pub(crate) const CLIENT: Limit = Limit::new(CLIENT_RATE, CLIENT_BURST);
pub(crate) const GLOBAL: Limit = Limit::new(GLOBAL_RATE, GLOBAL_BURST);

/// A bucket, full at first: nothing but the boot time, in nanoseconds, at which it is full again.
#[derive(Clone, Copy, Default)]
pub(crate) struct Bucket(u64);

impl Bucket {
    /// Whether a token is there.
    pub(crate) fn has_token(self, limit: Limit, boot: Duration) -> bool {
        self.after_taking(limit, boot) <= nanos(boot).saturating_add(limit.depth)
    }

    /// Takes a token that [`Self::has_token`].
    pub(crate) fn take(&mut self, limit: Limit, boot: Duration) {
        self.0 = self.after_taking(limit, boot);
    }

    fn after_taking(self, limit: Limit, boot: Duration) -> u64 {
        self.0.max(nanos(boot)).saturating_add(limit.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(bucket: &mut Bucket, boot: Duration) -> u64 {
        let mut taken = 0;
        while bucket.has_token(CLIENT, boot) {
            bucket.take(CLIENT, boot);
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::default();
        assert_eq!(take_all(&mut bucket, Duration::from_secs(5)), CLIENT_BURST);
        assert_eq!(take_all(&mut bucket, Duration::from_secs(6)), CLIENT_RATE);
        assert_eq!(take_all(&mut bucket, Duration::from_secs(600)), CLIENT_BURST);
        assert_eq!(take_all(&mut bucket, Duration::from_secs(0)), 0, "an earlier time gives nothing");
    }
}
