//! Why a packet was refused: one list for both halves, counted by the same names that logs and metrics print.

use core::fmt;

use spa_proto::PayloadError;

macro_rules! reasons {
    ($($variant:ident, $name:literal, $explain:literal;)*) => {
        /// The reasons for a refusal, in the order of the checks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = concat!("`", $name, "`: ", $explain)] $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the checks.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The stable name, lower case, for logs, metrics and `--json`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// One plain sentence for people.
            pub const fn explain(self) -> &'static str {
                match self { $(Self::$variant => $explain),* }
            }
        }
    };
}

reasons! {
    Length, "length", "The datagram is not 256 to 544 bytes long.";
    Tag, "tag", "The datagram was made with none of this server's cloak keys.";
    Stale, "stale", "The packet's time is too far from this server's clock.";
    Replay, "replay", "This very packet was here before.";
    Name, "name", "The packet names no enrolled client.";
    Gate, "gate", "The packet names a client whose pre-shared key did not make it.";
    BudgetClient, "budget-client", "The client sent more packets than its share.";
    BudgetGlobal, "budget-global", "All clients together sent more packets than this server works on.";
    LowOrder, "low-order", "The packet's ephemeral key is a low-order point.";
    UnknownClient, "unknown-client", "The client is no longer enrolled.";
    NotAuthentic, "not-authentic", "The packet was not made with the client's private key.";
    Payload, "payload", "The packet is authentic but malformed.";
    TimeMismatch, "time-mismatch", "The packet's counter and its time do not agree.";
    Clock, "clock", "This server's clock is behind the newest recorded knock: nothing is opened until it is right.";
    Counter, "counter", "The client's counter was used before, or is older than the newest ones remembered.";
    BoundSource, "bound-source", "The packet is bound to another address than it came from.";
    ExpiredClient, "expired-client", "The client's enrolment has ended, or its invite was not used in time.";
    BoundRequired, "bound-required", "The client's policy wants packets that are bound to their address.";
    Explicit, "explicit", "The client's policy does not let it open for an address that it names.";
    Martian, "martian", "The address to open for can be no client's.";
    OwnAddress, "own-address", "The address to open for is this server's own.";
    Source, "source", "The client's policy does not let it open for this address.";
    Service, "service", "The packet asks for a service that this server does not have.";
    NotAllowed, "not-allowed", "The client's policy does not allow what the packet asks for.";
    TooManyGrants, "too-many-grants", "The client has as many open grants as its policy allows.";
    Full, "full", "This server has as many open grants as its configuration allows.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A refusal: its reason, and for two of them what helps to find the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    reason: Reason,
    detail: Detail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    None,
    Skew(i64),
    Payload(PayloadError),
}

impl Refusal {
    pub(crate) const fn stale(skew: i64) -> Self {
        Self { reason: Reason::Stale, detail: Detail::Skew(skew) }
    }

    pub(crate) const fn payload(error: PayloadError) -> Self {
        Self { reason: Reason::Payload, detail: Detail::Payload(error) }
    }

    /// The reason.
    pub const fn reason(self) -> Reason {
        self.reason
    }

    /// For `stale`: seconds by which the packet's time is ahead of ours (negative: behind).
    pub const fn skew(self) -> Option<i64> {
        match self.detail {
            Detail::Skew(seconds) => Some(seconds),
            _ => None,
        }
    }

    /// For `payload`: what is malformed.
    pub const fn payload_error(self) -> Option<PayloadError> {
        match self.detail {
            Detail::Payload(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: Detail::None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.explain())?;
        match self.detail {
            Detail::None => Ok(()),
            Detail::Skew(seconds) if seconds < 0 => write!(f, " It is {} s behind.", seconds.unsigned_abs()),
            Detail::Skew(seconds) => write!(f, " It is {seconds} s ahead."),
            Detail::Payload(error) => write!(f, " Namely, {error}."),
        }
    }
}

impl core::error::Error for Refusal {}

/// How many packets were refused for each reason, and how many passed. Saturating, fixed size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    refused: [u64; Reason::ALL.len()],
    passed: u64,
}

impl Counters {
    /// Counts one packet by what became of it.
    pub fn count<T>(&mut self, result: &Result<T, Refusal>) {
        let counter = match result {
            Ok(_) => &mut self.passed,
            Err(refusal) => &mut self.refused[refusal.reason as usize],
        };
        *counter = counter.saturating_add(1);
    }

    /// Packets refused for a reason.
    pub const fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize]
    }

    /// Packets that passed.
    pub const fn passed(&self) -> u64 {
        self.passed
    }

    /// Reasons with their counts, in the order of the checks.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.refused)
    }
}
