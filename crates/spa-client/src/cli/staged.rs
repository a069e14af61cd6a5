//! Replacing a file whole or not at all: written beside it, made durable, then renamed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A new version of a file, complete and durable, that is not in its place yet. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Staged {
    temporary: PathBuf,
    target: PathBuf,
    committed: bool,
}

impl Staged {
    /// Writes the new version, for the user alone; or with the mode that the file has, where there is one and
    /// `keep_mode`.
    pub(super) fn new(target: &Path, text: &str, keep_mode: bool) -> Result<Self, Error> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let temporary = target.with_file_name(format!(".{name}.{}.new", std::process::id()));
        let error = |source| Error::File { action: "write", path: temporary.clone(), source };
        let mut file = create_private(&temporary).map_err(error)?;
        let staged = Self { temporary: temporary.clone(), target: target.to_owned(), committed: false };
        if let (true, Ok(meta)) = (keep_mode, target.metadata()) {
            file.set_permissions(meta.permissions()).map_err(error)?;
        }
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(error)?;
        Ok(staged)
    }

    /// Where it is until then.
    pub(super) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Puts it in its place.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        let error = |source| Error::File { action: "write", path: self.target.clone(), source };
        std::fs::rename(&self.temporary, &self.target).map_err(error)?;
        self.committed = true;
        sync_directory(&self.target);
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            let _ = std::fs::remove_file(&self.temporary); // what is left behind is named after us and harmless
        }
    }
}

/// A file that was not there before, for the user alone.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the rename itself durable, where the system has a way. The new file is complete either way.
fn sync_directory(path: &Path) {
    if let Some(directory) = path.parent().and_then(|directory| File::open(directory).ok()) {
        let _ = directory.sync_all();
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("file");
        Staged::new(&target, "one", false).unwrap().commit().unwrap();
        assert_eq!((std::fs::read_to_string(&target).unwrap().as_str(), mode(&target)), ("one", 0o600));
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644)).unwrap();
        drop(Staged::new(&target, "two", true).unwrap());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "one");
        Staged::new(&target, "two", true).unwrap().commit().unwrap();
        assert_eq!((std::fs::read_to_string(&target).unwrap().as_str(), mode(&target)), ("two", 0o644));
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }
}
