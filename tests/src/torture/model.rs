//! What may stand and what must: a grant may be open until the latest end that any knock for it could have, and what
//! was once seen in the kernel must stay to its end unless somebody took it back.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::kernel::{Key, Snapshot};

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is past 1970").as_secs_f64()
}

/// What the kernel's own time matches go by, seconds since 1970. It moves with the timer's tick: on a machine that was
/// held up (a guest whose host is busy), [`now`] may be far ahead of it.
pub fn kernel_now() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The kernel closes at a whole second, and a knock takes its time from the client's end to the rule.
const LATEST: f64 = 2.0;
/// How long an ended grant's rule, which matches nothing, may still be listed while the daemon runs.
const TIDIED_WITHIN: f64 = 2.0;
/// Around a limit nothing is said.
const MARGIN: f64 = 0.05;

/// See the module. Times are seconds since 1970.
#[derive(Default)]
pub struct Model {
    /// The latest end that a rule may have.
    may: BTreeMap<Key, f64>,
    /// The last second, not included, of what was seen in the kernel.
    seen: BTreeMap<Key, u64>,
}

impl Model {
    /// A knock for this key is about to be sent: any end is possible until [`Self::knocked`].
    pub fn knocking(&mut self, key: &Key) {
        let may = self.may.entry(key.clone()).or_default();
        *may = may.max(now() + 3_600.0);
    }

    /// It was sent no later than now, for so many seconds; `before` is what [`Self::may`] said before. A grant counts
    /// from when the knock is judged: behind a firewall that hangs it waits for that, `waits` seconds at the most.
    pub fn knocked(&mut self, key: &Key, before: f64, seconds: u64, waits: f64) {
        self.may.insert(key.clone(), before.max((now() + seconds as f64 + waits).floor() + LATEST));
    }

    /// No knock is on its way: what was just seen is all that may stand, to the ends that it had, until there is
    /// another knock.
    pub fn settled(&mut self) {
        self.may = self.seen.iter().map(|(key, until)| (key.clone(), *until as f64)).collect();
    }

    /// The latest end of a key.
    pub fn may(&self, key: &Key) -> f64 {
        self.may.get(key).copied().unwrap_or(0.0)
    }

    /// It may go from now on.
    pub fn let_go(&mut self, which: impl Fn(&Key) -> bool) {
        self.seen.retain(|key, _| !which(key));
    }

    /// It has gone, and may not come back.
    pub fn gone(&mut self, which: impl Fn(&Key) -> bool) {
        self.let_go(&which);
        self.may.retain(|key, _| !which(key));
    }

    /// What was seen and has at least this many seconds left.
    pub fn live(&self, left: f64) -> Vec<(Key, u64)> {
        let limit = now() + left;
        self.seen
            .iter()
            .filter(|(_, until)| **until as f64 - 1.0 > limit)
            .map(|(k, u)| (k.clone(), *u))
            .collect()
    }

    /// Until when something may come in from this source to this endpoint, and until when it must, at the least.
    pub fn bounds(&self, source: std::net::IpAddr, endpoint: &str) -> (f64, f64) {
        let fits = |key: &Key| key.source == source && key.endpoint == endpoint;
        let may = self.may.iter().filter(|(key, _)| fits(key)).map(|(_, until)| *until);
        let must = self.seen.iter().filter(|(key, _)| fits(key)).map(|(_, until)| *until as f64 - 1.0);
        (may.fold(0.0, f64::max), must.fold(0.0, f64::max) - MARGIN)
    }

    /// Compares, learns what is seen, and returns what is wrong.
    pub fn compare(&mut self, snapshot: &Snapshot, daemon_runs: bool) -> Vec<String> {
        let mut faults = snapshot.faults.clone();
        let mut found = BTreeMap::new();
        for grant in &snapshot.grants {
            if found.insert(grant.key.clone(), grant.until).is_some() {
                faults.push(format!("two rules for {}", grant.key));
            }
            let may = self.may(&grant.key);
            // Set by a knock whose client has ended, the bound holds; the rule says a whole second.
            if grant.until as f64 > may {
                faults.push(format!(
                    "{} outlives its time: until {}, at most {may:.3}",
                    grant.key, grant.until
                ));
                self.may.insert(grant.key.clone(), grant.until as f64); // it is said once
            }
            if daemon_runs && (grant.until as f64) + TIDIED_WITHIN < snapshot.began {
                faults.push(format!("{} is still listed, ended at {}", grant.key, grant.until));
            }
        }
        for (key, until) in &self.seen {
            // The daemon ends it within its last second.
            let must = *until as f64 - 1.0 - MARGIN > snapshot.ended;
            match found.get(key) {
                None if must => {
                    faults.push(format!("{key} was lost early: until {until}, now {:.3}", snapshot.ended))
                }
                Some(now) if must && now < until => {
                    faults.push(format!("{key} was shortened from {until} to {now}"));
                }
                _ => {}
            }
        }
        self.seen = found;
        faults
    }
}
