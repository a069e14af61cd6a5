//! The only way between the two halves of the daemon: a pair of connected sockets (`SOCK_SEQPACKET`, so a message
//! arrives whole or not at all) and messages of fixed size. The warden trusts no byte of what the verifier says; the
//! verifier trusts the warden.

mod codec;
mod socket;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use spa_capture::Family;
use spa_gate::{Candidate, Outcome, Reason};
use spa_proto::{CloakKey, GateKeys, PublicKey, SecretKey, Tag};

pub use socket::{Link, pair};

/// From the verifier to the warden.
#[derive(Debug)]
pub enum FromVerifier {
    /// It is confined and has its settings.
    Ready(Confinement),
    /// A packet that passed the verifier's half of the gate.
    Candidate(Box<Handover>),
    /// A right tag with a wrong clock: the commonest support case.
    Skew {
        /// Where the packet came from, unverified.
        source: SocketAddr,
        /// Seconds by which the packet's time is ahead.
        seconds: i64,
    },
    /// What it counted.
    Counts(Counts),
    /// A datagram came from an interface that was not there: resolve the names again.
    StaleInterfaces,
}

/// A candidate and where it was sent to.
#[derive(Debug)]
pub struct Handover {
    /// The packet.
    pub candidate: Candidate,
    /// The address it was sent to.
    pub destination: IpAddr,
}

/// How far the verifier could be confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// It runs as another user than the warden.
    pub other_user: bool,
    /// Landlock denies it every file and connection.
    pub landlock: bool,
    /// Seccomp denies it every system call but a few.
    pub seccomp: bool,
}

/// What the verifier counted since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    refused: [u64; Reason::ALL.len()],
    /// Packets handed over.
    pub passed: u64,
    /// Datagrams that the kernel dropped since the ring or the receive buffer was full.
    pub dropped: u64,
    /// Diffie-Hellman operations.
    pub diffie_hellman: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { refused: [0; Reason::ALL.len()], passed: 0, dropped: 0, diffie_hellman: 0 }
    }
}

impl Counts {
    /// Takes the counters of the gate.
    pub fn new(counters: &spa_gate::Counters, dropped: u64, diffie_hellman: u64) -> Self {
        let mut counts = Self { passed: counters.passed(), dropped, diffie_hellman, ..Self::default() };
        for (counter, (_, refused)) in counts.refused.iter_mut().zip(counters.iter()) {
            *counter = refused;
        }
        counts
    }

    /// Packets refused for a reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize]
    }

    /// Adds what another verifier, since gone, had counted.
    pub fn add(&mut self, other: &Self) {
        for (counter, more) in self.refused.iter_mut().zip(other.refused) {
            *counter = counter.saturating_add(more);
        }
        self.passed = self.passed.saturating_add(other.passed);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.diffie_hellman = self.diffie_hellman.saturating_add(other.diffie_hellman);
    }

    /// Every packet that was refused.
    pub fn all_refused(&self) -> u64 {
        self.refused.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// From the warden to the verifier. Never printed: it has the keys.
pub enum FromWarden {
    /// New settings begin; they hold from [`Self::Commit`] on.
    Begin {
        /// The server's private key.
        server: SecretKey,
        /// The live cloak keys, newest first: 1 to 4.
        cloaks: Vec<CloakKey>,
        /// How old a packet may be, either way.
        max_age: Duration,
    },
    /// One client of the new settings.
    Client(PublicKey, GateKeys),
    /// The new settings are complete.
    Commit,
    /// A capture socket, in place of the one that this thread had for the family.
    Capture {
        /// What it captures.
        family: Family,
        /// The port that knocks come to.
        port: u16,
        /// Who reads it: 0 is the thread that judges, others are sieves.
        thread: u8,
        /// The socket.
        fd: OwnedFd,
    },
    /// The interfaces that count; `None` for all.
    Interfaces(Option<Vec<u32>>),
    /// What became of a candidate.
    Settle(Tag, Outcome),
    /// Send [`FromVerifier::Counts`].
    Count,
}
