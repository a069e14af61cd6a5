//! Files that must be nobody else's: read only where owner and mode are right, written whole or not at all.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::error::{Exit, Failure, Outcome};

/// Largest file that is read, in bytes. 64 KiB is far above any configuration or key file.
const MAX_FILE_SIZE: u64 = 64 * 1024;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const ANYTHING_FOR_OTHERS: u32 = 0o077;

/// Reads a secret: the file gives nobody else any access, and nobody else can put another in its place.
///
/// # Errors
/// A missing or unreadable file, a wrong owner or mode (with the command that mends it), text that is not UTF-8.
pub fn read_secret(path: &Path) -> Outcome<Zeroizing<String>> {
    let directory = directory_of(path);
    let meta = rustix::fs::stat(directory)
        .map_err(|error| Failure::io("cannot look at", directory, &error.into()))?;
    check(directory, meta.st_uid, meta.st_mode, WRITABLE_BY_OTHERS, "chmod go-w")?;
    read(path, ANYTHING_FOR_OTHERS, "chmod 600").map(Zeroizing::new)
}

/// Reads a configuration file: others may read it, but not write it.
///
/// # Errors
/// As [`read_secret`], for the weaker rule.
pub fn read_config(path: &Path) -> Outcome<String> {
    read(path, WRITABLE_BY_OTHERS, "chmod go-w")
}

fn read(path: &Path, forbidden: u32, remedy: &str) -> Outcome<String> {
    let cannot_read = |error: std::io::Error| Failure::io("cannot read", path, &error);
    // NONBLOCK: a FIFO put in the file's place must not hang us. Whoever it is, the check below is on what was opened.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| cannot_read(error.into()))?;
    let meta = rustix::fs::fstat(&file).map_err(|error| cannot_read(error.into()))?;
    if rustix::fs::FileType::from_raw_mode(meta.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(Failure::new(Exit::NoInput, format_args!("{} is not a regular file", path.display())));
    }
    check(path, meta.st_uid, meta.st_mode, forbidden, remedy)?;
    let mut text = String::new();
    let length = File::from(file).take(MAX_FILE_SIZE + 1).read_to_string(&mut text).map_err(cannot_read)?;
    if length as u64 > MAX_FILE_SIZE {
        return Err(Failure::new(
            Exit::Data,
            format_args!("{} is larger than {MAX_FILE_SIZE} bytes", path.display()),
        ));
    }
    Ok(text)
}

fn check(path: &Path, owner: u32, mode: u32, forbidden: u32, remedy: &str) -> Outcome {
    let path = path.display();
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(Failure::new(
            Exit::NotPermitted,
            format_args!("{path} belongs to another user (uid {owner})"),
        )
        .hint(format_args!("chown root {path}")));
    }
    if mode & forbidden != 0 {
        let access = if forbidden == WRITABLE_BY_OTHERS {
            "can be written by others"
        } else {
            "can be read by others"
        };
        return Err(Failure::new(
            Exit::NotPermitted,
            format_args!("{path} {access} (mode {:04o})", mode & 0o7777),
        )
        .hint(format_args!("{remedy} {path}")));
    }
    Ok(())
}

/// The directory that holds `path`; `.` for a bare name.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Whether a file that is there already may be replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is an error.
    Keep,
    /// It is replaced in one step.
    Replace,
}

/// Writes a file so that it is there whole, on the disk, or not at all.
///
/// # Errors
/// [`Exit::CannotCreate`] where it exists and is to be kept, or where writing fails.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32, existing: Existing) -> Outcome {
    let temporary = temporary_beside(path);
    let flags = match existing {
        Existing::Keep => RenameFlags::NOREPLACE,
        Existing::Replace => RenameFlags::empty(),
    };
    let result = write_new(&temporary, content, mode)
        .and_then(|()| rustix::fs::renameat_with(CWD, &temporary, CWD, path, flags).map_err(Into::into));
    if let Err(error) = result.and_then(|()| sync_directory(directory_of(path))) {
        let _ = std::fs::remove_file(&temporary); // it may not exist
        return Err(match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::new(
                Exit::CannotCreate,
                format_args!("{} exists already; nothing was changed", path.display()),
            ),
            _ => Failure::new(Exit::CannotCreate, format_args!("cannot write {}: {error}", path.display())),
        });
    }
    Ok(())
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    directory_of(path).join(name)
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let _ = std::fs::remove_file(path); // left by a crash of a process with our id
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(mode))?);
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?; // whatever the umask is
    file.write_all(content)?;
    file.sync_all()
}

/// Makes a rename or a new name in the directory durable.
///
/// # Errors
/// As `fsync(2)`.
pub fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes the directory, for its owner alone, where it is not there yet.
///
/// # Errors
/// Where it cannot be made, or is someone else's or writable by others.
pub fn make_private_directory(path: &Path) -> Outcome {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Failure::io("cannot make", path, &error))?;
    check_private_directory(path)
}

/// Whether nobody else can put files there.
///
/// # Errors
/// Where it is someone else's, writable by others, or no directory.
pub fn check_private_directory(path: &Path) -> Outcome {
    let meta = rustix::fs::stat(path).map_err(|error| Failure::io("cannot look at", path, &error.into()))?;
    check(path, meta.st_uid, meta.st_mode, WRITABLE_BY_OTHERS, "chmod go-w")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn private_directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        directory
    }

    #[test]
    fn a_secret_that_others_can_read_or_replace_is_refused() {
        let directory = private_directory();
        let path = directory.path().join("server.key");
        write_atomically(&path, b"secret", 0o600, Existing::Keep).unwrap();
        assert_eq!(&**read_secret(&path).unwrap(), "secret");
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let failure = read_secret(&path).unwrap_err();
            assert_eq!(failure.exit, Exit::NotPermitted);
            assert!(failure.to_string().contains("chmod 600"), "{failure}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(read_secret(&path).unwrap_err().to_string().contains("chmod go-w"));
    }

    #[test]
    fn an_existing_file_is_kept() {
        let directory = private_directory();
        let path = directory.path().join("file");
        write_atomically(&path, b"first", 0o600, Existing::Keep).unwrap();
        assert_eq!(
            write_atomically(&path, b"second", 0o600, Existing::Keep).unwrap_err().exit,
            Exit::CannotCreate
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
        write_atomically(&path, b"third", 0o600, Existing::Replace).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"third");
    }

    #[test]
    fn a_fifo_in_the_place_of_a_file_does_not_hang() {
        let directory = private_directory();
        let path = directory.path().join("fifo");
        std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(read_config(&path).unwrap_err().to_string().contains("not a regular file"));
    }
}
