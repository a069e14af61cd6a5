//! Waiting for what was knocked for: knocks again with fresh packets, and connects until something answers.

use std::net::SocketAddr;
use std::time::Duration;

use spa_proto::{Endpoint, Requests};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::error::Error;
use crate::knocker::Knocker;
use crate::race::Race;

/// When the first knock is repeated; then at twice that time, and so on. Datagrams get lost.
const FIRST_REPEAT: Duration = Duration::from_millis(250);
/// Longest time between repeats. A server allows a client 4 packets a second, and 16 at once.
const LONGEST_REPEAT: Duration = Duration::from_secs(8);

/// When to knock next, at so long after the first knock: 0.25, 0.5, 1, 2, 4, 8, then every 8 seconds.
fn next_repeat(elapsed: Duration) -> Duration {
    let mut due = FIRST_REPEAT;
    while due <= elapsed {
        due += due.min(LONGEST_REPEAT);
    }
    due
}

/// An endpoint that answered: its port is open to this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was asked for.
    pub endpoint: Endpoint,
    /// Who answered.
    pub address: SocketAddr,
    /// How long after the wait began.
    pub after: Duration,
}

impl Knocker {
    /// Waits until every one of the TCP `endpoints` answers, knocking again now and then as the last
    /// [`open`](Self::open) did. UDP endpoints answer nobody unasked, so they are left out.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] and [`Error::Refused`] for the first endpoint that did not answer within `timeout`.
    pub async fn wait(&mut self, endpoints: &[Endpoint], timeout: Duration) -> Result<Vec<Answer>, Error> {
        let start = Instant::now();
        let mut answers = Vec::new();
        // One packet opens all of them at once, so one after the other costs no more than a round trip each.
        for endpoint in endpoints.iter().copied().filter(|endpoint| is_tcp(*endpoint)) {
            let (_, address) = self.answer(endpoint, start, timeout).await?;
            answers.push(Answer { endpoint, address, after: start.elapsed() });
        }
        Ok(answers)
    }

    /// Knocks for a TCP endpoint and connects to it: the first of the host's addresses to answer wins.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`wait`](Self::wait).
    pub async fn connect(&mut self, endpoint: Endpoint, timeout: Duration) -> Result<TcpStream, Error> {
        let start = Instant::now();
        let request = self.host().request_for(endpoint);
        let requests = Requests::new([request]).ok_or(Error::RequestCount)?;
        self.open(requests, None).await?;
        self.reach_since(endpoint, start, timeout).await
    }

    /// Connects to a TCP endpoint, knocking again now and then as the last [`open`](Self::open) did.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait).
    pub async fn reach(&mut self, endpoint: Endpoint, timeout: Duration) -> Result<TcpStream, Error> {
        self.reach_since(endpoint, Instant::now(), timeout).await
    }

    async fn reach_since(
        &mut self,
        endpoint: Endpoint,
        start: Instant,
        timeout: Duration,
    ) -> Result<TcpStream, Error> {
        let (stream, _) = self.answer(endpoint, start, timeout).await?;
        // What comes in pieces is passed on in pieces; who wrote it decided on their size.
        stream.set_nodelay(true).ok();
        Ok(stream)
    }

    async fn answer(
        &mut self,
        endpoint: Endpoint,
        start: Instant,
        timeout: Duration,
    ) -> Result<(TcpStream, SocketAddr), Error> {
        let mut race = Race::new(self.addresses(endpoint.port()));
        let raced = async {
            tokio::select! {
                won = race.run() => won,
                never = self.keep_knocking(start) => match never {},
            }
        };
        if let Ok(won) = timeout_at(start + timeout, raced).await {
            return Ok(won);
        }
        let target = format!("{endpoint} of {}", self.host().name);
        if race.was_refused() {
            return Err(Error::Refused { target, waited: timeout });
        }
        let (unprotected, observed) = (self.is_unprotected(), self.is_observed());
        Err(Error::NoAnswer { target, waited: timeout, unprotected, observed })
    }

    async fn keep_knocking(&mut self, start: Instant) -> std::convert::Infallible {
        loop {
            sleep_until(start + next_repeat(start.elapsed())).await;
            // The first one was sent, and a network that is away for a moment comes back: what fails now is tried
            // again at the next turn.
            let _ = self.send();
        }
    }
}

fn is_tcp(endpoint: Endpoint) -> bool {
    endpoint.protocol() == spa_proto::Protocol::Tcp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_become_rare() {
        let mut at = Duration::ZERO;
        let times: Vec<u128> = std::iter::repeat_with(|| {
            at = next_repeat(at);
            at.as_millis()
        })
        .take(9)
        .collect();
        assert_eq!(times, [250, 500, 1000, 2000, 4000, 8000, 16_000, 24_000, 32_000]);
    }
}
