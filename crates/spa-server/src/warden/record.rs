//! The replay record as the engine uses it: broken until verified again after any failure, and untouched in a dry run.

use std::path::Path;
use std::time::Duration;

use spa_proto::PublicKey;

use crate::error::{Exit, Failure, Outcome};
use crate::journal::{Journal, JournalError};

/// A broken record is tried again this often at most.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// The record.
pub struct Record {
    journal: Option<Journal>,
    broken: Option<Broken>,
}

fn failure(error: JournalError) -> Failure {
    match error {
        JournalError::Io(_, ref why) if why.kind() == std::io::ErrorKind::StorageFull => {
            Failure::new(Exit::Io, error)
                .hint("make room there (df shows the file system); meanwhile what is protected stays closed")
        }
        JournalError::Io(..) | JournalError::Replaced(_) => Failure::new(Exit::Io, error),
        JournalError::Corrupt(..) | JournalError::NotAJournal(_) => Failure::new(Exit::Data, error).hint(
            "spa-server recover: packets made until now plus max-age are refused, so that none is accepted twice",
        ),
    }
}

struct Broken {
    why: String,
    tried: Duration,
}

impl Record {
    /// Opens the record in the state directory; `start` is now, Unix nanoseconds.
    ///
    /// # Errors
    /// Where it cannot be read or is damaged.
    pub fn open(path: &Path, start: u64) -> Outcome<Self> {
        let journal = Journal::open(path, start).map_err(failure)?;
        if journal.was_torn() {
            tracing::warn!(
                "the last entry of the replay record was torn, as by a power cut, and is cut off: whatever was made \
                 before now is refused, since it may have been that packet; nothing was opened by it"
            );
        }
        Ok(Self { journal: Some(journal), broken: None })
    }

    /// Reads the record and changes nothing.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn verify(path: &Path) -> Outcome {
        Journal::verify(path).map_err(failure)
    }

    /// Remembers nothing, for a dry run.
    pub fn none() -> Self {
        Self { journal: None, broken: None }
    }

    /// The greatest counters on record, Unix nanoseconds: of these clients, and of all that were ever recorded, since
    /// floors outlive removal.
    pub fn floors(&self, clients: impl Iterator<Item = PublicKey>) -> Vec<(PublicKey, u64)> {
        let Some(journal) = &self.journal else { return Vec::new() };
        let content = journal.content();
        let recorded = content.clients().filter_map(|key| PublicKey::from_bytes(*key).ok());
        recorded.chain(clients).map(|key| (key, content.floor(key.as_bytes()))).collect()
    }

    /// What the wall clock had reached by the newest record, Unix nanoseconds; 0 where that is not known.
    pub fn clock(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.content().clock())
    }

    /// The moment, Unix nanoseconds, before which no packet may have been made, whoever made it; 0 for none.
    pub fn floor_of_all(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.content().floor_of_all())
    }

    /// The clients that a knock of their own was recorded of.
    pub fn clients(&self) -> Vec<PublicKey> {
        let keys = self.journal.iter().flat_map(|journal| journal.content().clients());
        keys.filter_map(|key| PublicKey::from_bytes(*key).ok()).collect()
    }

    /// Makes the counters durable, which were judged at this moment of the wall clock, Unix nanoseconds.
    ///
    /// # Errors
    /// Then nothing may be granted until [`Self::try_reopen`] succeeds.
    pub fn append(&mut self, records: &[(PublicKey, u64)], wall: u64) -> Result<(), JournalError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let moments = records.iter().map(|(_, counter)| spa_gate::record_moment(wall, *counter));
        let reached = moments.max().unwrap_or(0);
        let records: Vec<_> = records.iter().map(|(key, counter)| (*key.as_bytes(), *counter)).collect();
        journal.append(&records, reached).inspect_err(|error| {
            self.broken = Some(Broken { why: error.to_string(), tried: crate::clock::boot() });
        })
    }

    /// Whether a write failed and the record has not been verified since.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Opens and verifies a broken record again; true where it is good.
    pub fn try_reopen(&mut self, now: Duration) -> bool {
        let (Some(journal), Some(broken)) = (&mut self.journal, &mut self.broken) else { return true };
        if now.saturating_sub(broken.tried) < REOPEN_INTERVAL {
            return false;
        }
        broken.tried = now;
        match journal.reopen() {
            Ok(reopened) => {
                *journal = reopened;
                self.broken = None;
                tracing::warn!("replay record is good again; granting goes on");
                true
            }
            Err(error) => {
                broken.why = error.to_string();
                false
            }
        }
    }

    /// Writes the file anew where it has grown. Failure costs nothing but its size.
    pub fn tidy(&mut self) {
        if let Some(Err(error)) = self.journal.as_mut().map(Journal::compact_if_grown) {
            tracing::warn!(%error, "replay record not compacted");
        }
    }

    /// What is wrong with it, for `status`.
    pub fn trouble(&self) -> Option<String> {
        self.broken.as_ref().map(|broken| format!("nothing is granted: {}", broken.why))
    }
}
