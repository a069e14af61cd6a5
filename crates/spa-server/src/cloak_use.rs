//! Which cloak key each client last used, so that an administrator knows when an old one can go. A file of lines
//! `CLIENT-PUBLIC-KEY CLOAK-ID` in the state directory; the last line of a client counts. A line is added only when a
//! client comes under another key than before, so hardly ever.
//!
//! It informs people and decides nothing: what cannot be read or written is not an error of the daemon.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use spa_proto::PublicKey;

use crate::files::{self, Existing};

/// The file, in the state directory.
pub const FILE: &str = "cloaks";
/// The file is written anew when it has this many lines more than clients: somebody goes back and forth.
const SPARE_LINES: usize = 1_024;

/// What is known, by client.
pub type LastUsed = HashMap<PublicKey, Arc<str>>;

/// What is known and on disk.
pub struct CloakUse {
    path: PathBuf,
    last: LastUsed,
    /// Clients whose line is to be written.
    unwritten: Vec<PublicKey>,
    lines: usize,
    failed: bool,
}

/// Reads the file; what is no such line, such as a torn last one, is passed over.
pub fn read(path: &Path) -> LastUsed {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let entry = |line: &str| {
        let (key, id) = line.split_once(' ')?;
        Some((key.parse().ok()?, Arc::from(id)))
    };
    text.lines().filter_map(entry).collect()
}

impl CloakUse {
    /// Reads what is known; `None` for a dry run, which writes nothing.
    pub fn open(path: Option<PathBuf>) -> Self {
        let last = path.as_deref().map(read).unwrap_or_default();
        let failed = path.is_none();
        // As if it had grown: so it is written anew, whole, with the first change.
        Self { path: path.unwrap_or_default(), last, unwritten: Vec::new(), lines: usize::MAX, failed }
    }

    /// Notes what a client used. Costs a look-up; [`Self::write`] comes later, off the path of the knock.
    pub fn note(&mut self, client: &PublicKey, cloak: &Arc<str>) {
        if self.last.get(client) != Some(cloak) {
            self.last.insert(*client, Arc::clone(cloak));
            self.unwritten.push(*client);
        }
    }

    /// Writes what was noted.
    pub fn write(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let changed = std::mem::take(&mut self.unwritten);
        if self.failed {
            return;
        }
        let written = if self.lines >= self.last.len() + SPARE_LINES {
            self.write_anew()
        } else {
            self.append(&changed)
        };
        if let Err(error) = written {
            self.failed = true;
            tracing::warn!(path = %self.path.display(), %error, "which cloak keys are in use is not kept");
        }
    }

    /// How many of these clients last used each of the keys.
    pub fn counts<'a>(&self, clients: impl Iterator<Item = &'a PublicKey>) -> HashMap<Arc<str>, usize> {
        let mut counts = HashMap::new();
        for id in clients.filter_map(|client| self.last.get(client)) {
            *counts.entry(Arc::clone(id)).or_default() += 1;
        }
        counts
    }

    fn append(&mut self, changed: &[PublicKey]) -> Result<(), String> {
        let lines: String = changed.iter().map(|client| self.line(client)).collect();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&self.path, flags, Mode::from_raw_mode(0o600));
        let written = file.map_err(Into::into).and_then(|file| File::from(file).write_all(lines.as_bytes()));
        self.lines += changed.len();
        written.map_err(|error| error.to_string())
    }

    fn write_anew(&mut self) -> Result<(), String> {
        let lines: String = self.last.keys().map(|client| self.line(client)).collect();
        self.lines = self.last.len();
        files::write_atomically(&self.path, lines.as_bytes(), 0o600, Existing::Replace)
            .map_err(|failure| failure.to_string())
    }

    fn line(&self, client: &PublicKey) -> String {
        self.last.get(client).map_or_else(String::new, |id| format!("{client} {id}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> PublicKey {
        spa_proto::SecretKey::from_bytes([number; 32]).public_key()
    }

    #[test]
    fn the_last_one_counts_and_survives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let (old, new): (Arc<str>, Arc<str>) = ("0123abcd".into(), "89abcdef".into());
        let mut using = CloakUse::open(Some(path.clone()));
        for id in [&old, &old, &new] {
            using.note(&client(1), id);
            using.note(&client(2), &old);
            using.write();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3, "a line a change");
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "torn li").unwrap();
        let using = CloakUse::open(Some(path));
        assert_eq!(
            using.last,
            LastUsed::from([(client(1), Arc::clone(&new)), (client(2), Arc::clone(&old))])
        );
        let counts = using.counts([client(1), client(2), client(3)].iter());
        assert_eq!(counts, HashMap::from([(new, 1), (old, 1)]));
    }

    #[test]
    fn the_file_stays_small() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut using = CloakUse::open(Some(path.clone()));
        for turn in 0..3 * SPARE_LINES {
            using.note(&client(1), &Arc::from(if turn % 2 == 0 { "0123abcd" } else { "89abcdef" }));
            using.write();
        }
        assert!(std::fs::read_to_string(&path).unwrap().lines().count() <= SPARE_LINES + 1);
    }
}
