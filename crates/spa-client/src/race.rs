//! Many connects, and the first to answer wins.
//!
//! A SYN that comes before the grant is dropped, and the kernel repeats it only after a second. So a new socket is
//! started every few, then every few tens of milliseconds, and the earlier ones stay, since their answer may be on
//! its way. The losers are closed at once, before their own answers come, which the kernel then meets with a reset:
//! so the server's program sees one connection, and counts no others against us (sshd's MaxStartups and
//! PerSourcePenalties would).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Most connects under way at once over all addresses: some systems give a process 256 files.
const MAX_PENDING: usize = 128;
/// Most connects under way to one address. With the gaps below the oldest is more than a second old when its place
/// is needed, so any answer but one from the far side of a satellite was in time.
const MAX_PENDING_EACH: usize = 32;
/// Least and greatest time between two connects to an address.
const GAP: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// The gap is this part of the time gone by: a late grant is met at most a fifth later, and with few connects.
const GAP_PART: u32 = 5;

/// The time of the next connect after one at `elapsed`, both since the start.
fn next(elapsed: Duration) -> Duration {
    elapsed + (elapsed / GAP_PART).clamp(GAP.0, GAP.1)
}

/// Connects to one port at several addresses until one answers.
pub(crate) struct Race {
    addresses: Vec<SocketAddr>,
    refused: bool,
}

impl Race {
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, refused: false }
    }

    /// Whether an address has refused: nobody listens there, or a firewall says so.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused
    }

    /// Runs until a connect is answered. Also dropping it closes all connects.
    pub(crate) async fn run(&mut self) -> (TcpStream, SocketAddr) {
        let each = (MAX_PENDING / self.addresses.len().max(1)).min(MAX_PENDING_EACH);
        let start = Instant::now();
        let mut due = Duration::ZERO;
        let mut attempts = JoinSet::new();
        let mut pending: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            tokio::select! {
                Some(done) = attempts.join_next() => match done {
                    Ok((Ok(stream), address)) => {
                        attempts.shutdown().await;
                        return (stream, address);
                    }
                    Ok((Err(error), _)) => self.note(&error),
                    Err(_) => {} // the oldest, aborted below
                },
                () = sleep_until(start + due) => {
                    pending.retain(|attempt| !attempt.is_finished());
                    while pending.len() + self.addresses.len() > each * self.addresses.len() {
                        let Some(oldest) = pending.pop_front() else { break };
                        oldest.abort();
                    }
                    for address in self.addresses.iter().copied() {
                        pending.push_back(attempts.spawn(async move { (TcpStream::connect(address).await, address) }));
                    }
                    due = next(start.elapsed());
                }
            }
        }
    }

    fn note(&mut self, error: &io::Error) {
        self.refused |= error.kind() == io::ErrorKind::ConnectionRefused;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_connect_is_never_far() {
        let mut times = vec![Duration::ZERO];
        while *times.last().unwrap() < Duration::from_secs(5) {
            times.push(next(*times.last().unwrap()));
        }
        for pair in times.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(gap >= GAP.0 && gap <= GAP.1);
            // The grant may come just after a connect: the next is within 20 ms for any grant in the first 100 ms.
            assert!(pair[1] > Duration::from_millis(100) || gap <= Duration::from_millis(20));
        }
        // A connect is given up only after a second.
        for window in times.windows(MAX_PENDING_EACH + 1) {
            let life = window[MAX_PENDING_EACH] - window[0];
            assert!(life > Duration::from_secs(1), "{life:?}");
        }
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_port_that_opens_later_is_reached_and_refusals_are_noted() {
        block_on(async {
            let address = {
                let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                reserved.local_addr().unwrap()
            };
            let opener = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(30)).await;
                std::net::TcpListener::bind(address).unwrap()
            });
            let mut race = Race::new(vec![address]);
            let run = tokio::time::timeout(Duration::from_secs(10), race.run());
            assert_eq!(run.await.unwrap().1, address);
            assert!(race.was_refused());
            drop(opener.await.unwrap());
        });
    }
}
