//! The replay record on disk: for each client the greatest counter accepted, durable before any port opens.
//!
//! An append-only file. A 16-byte header, then frames: u32 length of the body, u32 CRC-32 (IEEE) of length and body,
//! the body, which is one or more records of 40 bytes: client public key (32), counter (u64). Big-endian. A record of
//! the all-zero key, which is no public key, is a floor for every client (`spa-server recover`); one of the all-ones key,
//! which is none either, is what the wall clock had reached (`spa_gate::record_moment`). One frame is one `fdatasync`. When the file has grown well beyond its content it is written anew beside itself and renamed.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::files;

const HEADER: &[u8; 16] = b"spa-replay-v1\n\0\0";
const FRAME_HEADER: usize = 8;
const RECORD: usize = 40;
/// Most records in one frame: what one group of knocks or one step of a compaction holds.
const MAX_RECORDS: usize = 1024;
/// Below this size, in bytes, the file is never compacted.
const COMPACT_ABOVE: u64 = 64 * 1024;
/// Compact when the file is this many times its content.
const COMPACT_RATIO: u64 = 4;
/// Stands for every client.
const EVERYONE: [u8; 32] = [0; 32];
/// Stands for this host: its "counter" is a moment that its wall clock had reached.
const CLOCK: [u8; 32] = [0xff; 32];

/// Why the record cannot be used.
#[derive(Debug)]
pub enum JournalError {
    /// Reading, writing or syncing failed; nothing is granted until it works.
    Io(PathBuf, io::Error),
    /// A frame in the middle is damaged, at this offset in bytes.
    Corrupt(PathBuf, u64),
    /// It does not begin with the header.
    NotAJournal(PathBuf),
    /// Somebody removed the file, or put another in its place, while the daemon was using it.
    Replaced(PathBuf),
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "replay record {}: {error}", path.display()),
            Self::Corrupt(path, at) => {
                write!(f, "replay record {}: damaged at byte {at}, before good records", path.display())
            }
            Self::NotAJournal(path) => {
                write!(f, "replay record {}: this is not a replay record", path.display())
            }
            Self::Replaced(path) => {
                write!(f, "replay record {}: somebody removed or replaced the file", path.display())
            }
        }
    }
}

impl std::error::Error for JournalError {}

/// What the record says: the greatest counter of each client, and the floor of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    newest: HashMap<[u8; 32], u64>,
}

impl Content {
    fn note(&mut self, key: [u8; 32], counter: u64) {
        let newest = self.newest.entry(key).or_insert(counter);
        *newest = counter.max(*newest);
    }

    /// The greatest counter known of this client, or the floor of all where that is greater; 0 for none.
    pub fn floor(&self, key: &[u8; 32]) -> u64 {
        let of = |key| self.newest.get(key).copied().unwrap_or(0);
        of(key).max(of(&EVERYONE))
    }

    /// The floor of all, Unix nanoseconds: no packet made before it is accepted, whoever made it. 0 for none.
    pub fn floor_of_all(&self) -> u64 {
        self.newest.get(&EVERYONE).copied().unwrap_or(0)
    }

    /// The greatest counter recorded of this very client, Unix nanoseconds.
    pub fn newest(&self, key: &[u8; 32]) -> Option<u64> {
        self.newest.get(key).copied()
    }

    /// Clients with a record of their own.
    pub fn clients(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.newest.keys().filter(|key| ![EVERYONE, CLOCK].contains(key))
    }

    /// What the wall clock had reached by the newest frame, Unix nanoseconds; 0 for an empty record. Where none says,
    /// what is certain: whatever the max-age, no counter was further ahead than the longest.
    pub fn clock(&self) -> u64 {
        let longest = spa_gate::MAX_MAX_AGE.as_nanos() as u64; // 10 minutes
        let certain = || self.newest.values().max().map_or(0, |newest| newest.saturating_sub(longest));
        self.newest.get(&CLOCK).copied().unwrap_or_else(certain)
    }
}

/// The record, open for appending.
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Where the next frame goes: everything before it is good and synced.
    end: u64,
    content: Content,
    /// Its last frame was torn when it was opened, and cut off.
    torn: bool,
}

impl Journal {
    /// Opens the record and reads it; a torn last frame is cut off. Where one was, or where there is no record yet,
    /// `start` (now, Unix nanoseconds) becomes the floor of all: should a record have been lost, what was captured
    /// before stays dead. (After a power cut nothing was: a frame that was not synced granted nothing.)
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path, start: u64) -> Result<Self, JournalError> {
        let opened = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
        match opened {
            Ok(file) => Self::load(path, File::from(file), start),
            Err(rustix::io::Errno::NOENT) => Self::create(path, start),
            Err(error) => Err(JournalError::Io(path.to_owned(), error.into())),
        }
    }

    /// After a failure: reads what is there and writes all of it anew, since a page that could not be synced once is
    /// not known to be on the disk whatever a later read shows.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn reopen(&self) -> Result<Self, JournalError> {
        let mut content = Self::open(&self.path, 0)?.content;
        for (key, counter) in &self.content.newest {
            content.note(*key, *counter);
        }
        Self::write_anew(&self.path, content)
    }

    /// Replaces the record, whatever state it is in, keeping the floors that can be read of it; `floor` becomes the
    /// floor of all. Whoever asks for this says that the clock is right: `now`, Unix nanoseconds, is what it has reached.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn recover(path: &Path, floor: u64, now: u64) -> Result<Self, JournalError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(JournalError::Io(path.to_owned(), error)),
        };
        let mut content = Content::default();
        let mut at = 0;
        while at < bytes.len() {
            at += match frame(&bytes[at..]) {
                Some(body) => {
                    read_records(body, &mut content);
                    FRAME_HEADER + body.len()
                }
                None => 1,
            };
        }
        content.note(EVERYONE, floor);
        content.newest.insert(CLOCK, now);
        Self::write_anew(path, content)
    }

    fn create(path: &Path, start: u64) -> Result<Self, JournalError> {
        let mut content = Content::default();
        content.note(EVERYONE, start);
        Self::write_anew(path, content)
    }

    /// Reads the record and changes nothing; a torn last frame is no error.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn verify(path: &Path) -> Result<(), JournalError> {
        let bytes = std::fs::read(path).map_err(|error| JournalError::Io(path.to_owned(), error))?;
        read(path, &bytes).map(|_| ())
    }

    /// Reads what the record says, also while a daemon writes to it; empty where there is none yet.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn peek(path: &Path) -> Result<Content, JournalError> {
        match std::fs::read(path) {
            Ok(bytes) => read(path, &bytes).map(|(content, _)| content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::default()),
            Err(error) => Err(JournalError::Io(path.to_owned(), error)),
        }
    }

    fn load(path: &Path, mut file: File, start: u64) -> Result<Self, JournalError> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| JournalError::Io(path.to_owned(), error))?;
        let (mut content, end) = read(path, &bytes)?;
        if end < bytes.len() {
            content.note(EVERYONE, start);
            return Self::write_anew(path, content).map(|journal| Self { torn: true, ..journal });
        }
        Ok(Self { path: path.to_owned(), file, end: end as u64, content, torn: false })
    }

    fn write_anew(path: &Path, content: Content) -> Result<Self, JournalError> {
        let failed = |error| JournalError::Io(path.to_owned(), error);
        let records: Vec<_> = content.newest.iter().map(|(key, counter)| (*key, *counter)).collect();
        let mut bytes = HEADER.to_vec();
        for group in records.chunks(MAX_RECORDS) {
            bytes.extend(encode(group));
        }
        let temporary = path.with_extension("new");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&temporary, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| failed(error.into()))?;
        let mut file = File::from(file);
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&temporary, path))
            .and_then(|()| files::sync_directory(files::directory_of(path)))
            .map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, end: bytes.len() as u64, content, torn: false })
    }

    /// Appends the counters of one group of knocks, and what the wall clock had reached (Unix nanoseconds), and returns when they are on the disk.
    ///
    /// # Errors
    /// [`JournalError::Io`]: then nothing of the group may be granted, and the journal is to be opened anew.
    /// [`JournalError::Replaced`]: the same.
    pub fn append(&mut self, records: &[([u8; 32], u64)], reached: u64) -> Result<(), JournalError> {
        let records = [records, &[(CLOCK, reached)]].concat();
        let mut bytes = Vec::new();
        for group in records.chunks(MAX_RECORDS) {
            bytes.extend(encode(group));
        }
        self.file
            .write_all_at(&bytes, self.end)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| JournalError::Io(self.path.clone(), error))?;
        self.check_in_place()?;
        self.end += bytes.len() as u64;
        for (key, counter) in records {
            self.content.note(key, counter);
        }
        Ok(())
    }

    /// What is written into a file that has lost its name is lost with it, however well it is synced. The daemon holds
    /// the directory's lock, so whoever removed or replaced the file was none of ours.
    fn check_in_place(&self) -> Result<(), JournalError> {
        let ours = rustix::fs::fstat(&self.file);
        let named = rustix::fs::lstat(&self.path);
        match (ours, named) {
            (Ok(ours), Ok(named)) if (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino) => Ok(()),
            (Ok(_), Ok(_) | Err(rustix::io::Errno::NOENT)) => Err(JournalError::Replaced(self.path.clone())),
            (Err(error), _) | (_, Err(error)) => Err(JournalError::Io(self.path.clone(), error.into())),
        }
    }

    /// Writes the file anew where it has grown well beyond its content. Off the path of a knock.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the old file is still good.
    pub fn compact_if_grown(&mut self) -> Result<(), JournalError> {
        let needed = (self.content.newest.len() * RECORD) as u64;
        if self.end > COMPACT_ABOVE.max(needed * COMPACT_RATIO) {
            *self = Self::write_anew(&self.path, self.content.clone())?;
        }
        Ok(())
    }

    /// Whether the last frame was torn when this was opened: then the floor of all has been raised.
    pub fn was_torn(&self) -> bool {
        self.torn
    }

    /// What the record says.
    pub fn content(&self) -> &Content {
        &self.content
    }
}

/// What good frames say, and where they end.
fn read(path: &Path, bytes: &[u8]) -> Result<(Content, usize), JournalError> {
    if bytes.len() < HEADER.len() || bytes[..HEADER.len()] != HEADER[..] {
        return Err(JournalError::NotAJournal(path.to_owned()));
    }
    let mut content = Content::default();
    let mut end = HEADER.len();
    while let Some(body) = frame(&bytes[end..]) {
        read_records(body, &mut content);
        end += FRAME_HEADER + body.len();
    }
    // One frame at most is written but not synced, and it is the last. Damage before a good frame is another thing.
    if (end + 1..bytes.len()).any(|at| frame(&bytes[at..]).is_some()) {
        return Err(JournalError::Corrupt(path.to_owned(), end as u64));
    }
    Ok((content, end))
}

fn encode(records: &[([u8; 32], u64)]) -> Vec<u8> {
    let length = (records.len() * RECORD) as u32; // at most MAX_RECORDS * RECORD
    let mut bytes = Vec::with_capacity(FRAME_HEADER + records.len() * RECORD);
    bytes.extend(length.to_be_bytes());
    bytes.extend([0; 4]);
    for (key, counter) in records {
        bytes.extend(key);
        bytes.extend(counter.to_be_bytes());
    }
    let sum = checksum(&bytes[..4], &bytes[FRAME_HEADER..]);
    bytes[4..FRAME_HEADER].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn checksum(length: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(body);
    hasher.finalize()
}

/// The body of the frame that `bytes` begin with, if it is whole and undamaged.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let size = u32::from_be_bytes(*length) as usize;
    if size == 0 || !size.is_multiple_of(RECORD) || size > MAX_RECORDS * RECORD {
        return None;
    }
    let body = rest.get(..size)?;
    (checksum(length, body) == u32::from_be_bytes(*sum)).then_some(body)
}

fn read_records(body: &[u8], content: &mut Content) {
    for record in body.as_chunks::<RECORD>().0 {
        let (key, counter) = record.split_at(32);
        let mut owned = [0; 32];
        owned.copy_from_slice(key);
        content.note(owned, u64::from_be_bytes(counter.try_into().unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000;
    const WALL: u64 = 1_234;
    const A: [u8; 32] = [1; 32];
    const B: [u8; 32] = [2; 32];

    struct Fixture {
        _directory: tempfile::TempDir,
        path: PathBuf,
    }

    fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("replay");
        Fixture { path, _directory: directory }
    }

    #[test]
    fn counters_survive_and_a_new_record_has_a_floor() {
        let Fixture { path, .. } = &fixture();
        let mut journal = Journal::open(path, START).unwrap();
        assert_eq!(journal.content().floor(&A), START);
        journal.append(&[(A, 5_000), (B, 6_000)], WALL).unwrap();
        journal.append(&[(A, 4_000)], WALL).unwrap();
        let journal = Journal::open(path, 99_999).unwrap();
        assert_eq!((journal.content().floor(&A), journal.content().floor(&B)), (5_000, 6_000));
        assert_eq!(journal.content().floor(&[3; 32]), START);
        assert_eq!((journal.content().clock(), journal.content().clients().count()), (WALL, 2));
    }

    /// Into a file without its name nothing is recorded; the next one has all that was known.
    #[test]
    fn a_file_that_is_taken_away_is_noticed() {
        let Fixture { path, .. } = &fixture();
        let other = path.with_extension("other");
        let mut journal = Journal::open(path, START).unwrap();
        journal.append(&[(A, 5_000)], WALL).unwrap();
        let old = std::fs::read(path).unwrap();
        for (counter, take_away) in [
            (6_000, &(|| std::fs::remove_file(path).unwrap()) as &dyn Fn()),
            (7_000, &|| {
                std::fs::write(&other, &old).unwrap(); // a backup put back
                std::fs::rename(&other, path).unwrap();
            }),
        ] {
            take_away();
            assert!(matches!(journal.append(&[(B, counter)], WALL), Err(JournalError::Replaced(_))));
            assert_eq!(journal.content().floor(&B), if counter == 6_000 { START } else { 6_001 });
            journal = journal.reopen().unwrap();
            journal.append(&[(B, counter + 1)], WALL).unwrap();
            let read = Journal::open(path, 0).unwrap();
            assert_eq!((read.content().floor(&A), read.content().floor(&B)), (5_000, counter + 1));
        }
    }

    #[test]
    fn a_torn_last_frame_is_cut_off_wherever_it_is_torn_and_all_before_now_is_dead() {
        const NOW: u64 = 6_000;
        let Fixture { path, .. } = &fixture();
        let mut journal = Journal::open(path, START).unwrap();
        journal.append(&[(A, 5_000)], WALL).unwrap();
        let good = std::fs::read(path).unwrap().len();
        journal.append(&[(A, 7_000), (B, 7_000)], WALL).unwrap();
        let whole = std::fs::read(path).unwrap();
        let check = |torn: &[u8]| {
            std::fs::write(path, torn).unwrap();
            let mended = Journal::open(path, NOW).unwrap();
            assert!(mended.was_torn() && mended.content().floor(&A) == NOW);
            assert_eq!(mended.content().floor_of_all(), NOW);
            let again = Journal::open(path, 0).unwrap();
            assert!(!again.was_torn(), "it is told once");
            assert_eq!((again.content().floor(&A), again.content().floor(&B)), (NOW, NOW), "it is mended");
        };
        for length in good + 1..whole.len() {
            check(&whole[..length]);
        }
        for (at, fill) in [(good, 0), (good + 20, 0), (good, 0xff)] {
            let mut torn = whole.clone(); // the length was on the disk before the data
            torn[at..].fill(fill);
            check(&torn);
        }
    }

    #[test]
    fn damage_before_good_frames_is_an_error_and_recover_mends_it() {
        let Fixture { path, .. } = &fixture();
        let mut journal = Journal::open(path, START).unwrap();
        journal.append(&[(A, 5_000)], WALL).unwrap();
        let damaged_at = std::fs::read(path).unwrap().len() - 1;
        journal.append(&[(B, 6_000)], WALL).unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        bytes[damaged_at] ^= 1;
        std::fs::write(path, &bytes).unwrap();
        assert!(matches!(Journal::open(path, 0), Err(JournalError::Corrupt(..))));
        assert_eq!(std::fs::read(path).unwrap(), bytes, "nothing is changed");
        Journal::recover(path, 9_000, 8_000).unwrap();
        let journal = Journal::open(path, 0).unwrap();
        assert_eq!((journal.content().floor(&A), journal.content().floor(&B)), (9_000, 9_000));
        assert_eq!(journal.content().clock(), 8_000);
    }

    #[test]
    fn other_files_are_not_touched() {
        let Fixture { path, .. } = &fixture();
        for content in ["", "spa", "#!/bin/sh\nsomething else entirely"] {
            std::fs::write(path, content).unwrap();
            assert!(matches!(Journal::open(path, 0), Err(JournalError::NotAJournal(_))));
            assert_eq!(std::fs::read_to_string(path).unwrap(), content);
        }
    }

    #[test]
    fn it_stays_small() {
        let Fixture { path, .. } = &fixture();
        let mut journal = Journal::open(path, START).unwrap();
        for counter in 0..3_000 {
            journal.append(&[(A, START + counter)], WALL).unwrap();
            journal.compact_if_grown().unwrap();
        }
        assert!(std::fs::metadata(path).unwrap().len() <= COMPACT_ABOVE + 100);
        assert_eq!(Journal::open(path, 0).unwrap().content().floor(&A), START + 2_999);
    }

    #[test]
    fn a_full_disk_is_an_error_and_loses_nothing() {
        // /dev/full accepts no byte, as a full disk.
        let Fixture { path, .. } = &fixture();
        let mut journal = Journal::open(path, START).unwrap();
        journal.append(&[(A, 5_000)], WALL).unwrap();
        journal.file = File::options().write(true).open("/dev/full").unwrap();
        assert!(matches!(journal.append(&[(A, 6_000)], WALL), Err(JournalError::Io(..))));
        assert_eq!(journal.content().floor(&A), 5_000);
        assert_eq!(Journal::open(path, 0).unwrap().content().floor(&A), 5_000);
    }
}
