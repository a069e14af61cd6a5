//! Reading a file of secrets, and refusing one that others can read or replace.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use spa_proto::{ClientKeyFile, MAX_KEY_FILE};
use zeroize::Zeroizing;

use crate::error::Error;

/// How a secret file is open to others.
#[derive(Debug)]
pub struct Exposure {
    path: PathBuf,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(unix), expect(dead_code, reason = "only Unix has these owners and modes"))]
enum Fault {
    NotAFile,
    Owner,
    Mode(u32),
    Directory(u32),
    DirectoryOwner,
}

impl Exposure {
    /// The command that puts it right.
    pub fn hint(&self) -> String {
        let path = self.path.display();
        match self.fault {
            Fault::NotAFile => "name the key file itself".to_owned(),
            Fault::Owner => format!("chown \"$(id -un)\" {path}"),
            Fault::Mode(_) => format!("chmod 600 {path}; if others may have read it, ask for a new invite"),
            Fault::Directory(_) => {
                format!("chmod go-w {path}, or move the key file to a directory of your own")
            }
            Fault::DirectoryOwner => "move the key file to a directory of your own".to_owned(),
        }
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.fault {
            Fault::NotAFile => write!(f, "{path} is not a regular file"),
            Fault::Owner => write!(f, "{path} belongs to another user"),
            Fault::Mode(mode) => write!(f, "{path} can be read by others (mode {mode:03o})"),
            Fault::Directory(mode) => {
                write!(f, "the directory {path} can be written by others (mode {mode:03o})")
            }
            Fault::DirectoryOwner => write!(f, "the directory {path} belongs to another user"),
        }
    }
}

/// Reads a client's key file.
///
/// # Errors
/// [`Error::File`], [`Error::Exposed`], [`Error::KeyFile`].
pub fn read_key_file(path: &Path) -> Result<ClientKeyFile, Error> {
    let text = read(path)?;
    ClientKeyFile::parse(&text).map_err(|source| Error::KeyFile { path: path.to_owned(), source })
}

/// The text of a secret file that nobody else can read or replace.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    let error = |source| Error::File { action: "read", path: path.to_owned(), source };
    // The real path: what counts is the directory that the file itself is in.
    let path = path.canonicalize().map_err(error)?;
    let file = File::open(&path).map_err(error)?;
    check(&file, &path)?;
    // One byte more than a key file may have, so that the parser sees that it is too long.
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE + 1));
    file.take(MAX_KEY_FILE as u64 + 1).read_to_string(&mut text).map_err(|source| {
        let source = if source.kind() == io::ErrorKind::InvalidData {
            io::Error::new(io::ErrorKind::InvalidData, "it is not text")
        } else {
            source
        };
        error(source)
    })?;
    Ok(text)
}

/// Checks the open file (not its name, which could change in between) and its directory.
#[cfg(unix)]
fn check(file: &File, path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt as _;

    let exposed = |path: &Path, fault| Err(Error::Exposed(Exposure { path: path.to_owned(), fault }));
    let error = |source| Error::File { action: "examine", path: path.to_owned(), source };
    let own = |owner: u32| owner == 0 || owner == rustix::process::geteuid().as_raw();
    let meta = file.metadata().map_err(error)?;
    if !meta.is_file() {
        return exposed(path, Fault::NotAFile);
    }
    if !own(meta.uid()) {
        return exposed(path, Fault::Owner);
    }
    if meta.mode() & 0o077 != 0 {
        return exposed(path, Fault::Mode(meta.mode() & 0o777));
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let meta = directory.metadata().map_err(error)?;
    if !own(meta.uid()) {
        return exposed(directory, Fault::DirectoryOwner);
    }
    if meta.mode() & 0o022 != 0 {
        return exposed(directory, Fault::Directory(meta.mode() & 0o7777));
    }
    Ok(())
}

/// Elsewhere the profile directory's access list is the protection.
#[cfg(not(unix))]
fn check(file: &File, path: &Path) -> Result<(), Error> {
    match file.metadata() {
        Ok(meta) if meta.is_file() => Ok(()),
        Ok(_) => Err(Error::Exposed(Exposure { path: path.to_owned(), fault: Fault::NotAFile })),
        Err(source) => Err(Error::File { action: "examine", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_can_read_or_replace_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("b.key");
        std::fs::write(&file, "secret").unwrap();
        set_mode(&file, 0o600);
        assert_eq!(read(&file).unwrap().as_str(), "secret");
        for mode in [0o640, 0o604, 0o620, 0o601] {
            set_mode(&file, mode);
            let error = read(&file).unwrap_err();
            assert!(error.to_string().contains(&format!("mode {mode:03o}")), "{error}");
            assert!(error.hint().unwrap().starts_with("chmod 600"));
        }
        set_mode(&file, 0o400);
        for mode in [0o777, 0o1777, 0o770, 0o702] {
            set_mode(directory.path(), mode);
            assert!(matches!(read(&file), Err(Error::Exposed(_))), "{mode:o}");
        }
        // A link in a fine directory does not hide the bad one.
        let fine = tempfile::tempdir().unwrap();
        symlink(&file, fine.path().join("link")).unwrap();
        assert!(matches!(read(&fine.path().join("link")), Err(Error::Exposed(_))));
        set_mode(directory.path(), 0o755);
        assert!(read(&fine.path().join("link")).is_ok());
        assert!(matches!(read(directory.path()), Err(Error::Exposed(_))));
    }

    #[test]
    fn an_error_never_repeats_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("b.key");
        std::fs::write(&file, "TOPSECRET").unwrap();
        set_mode(&file, 0o600);
        let error = read_key_file(&file).unwrap_err();
        assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("TOPSECRET"));
    }
}
