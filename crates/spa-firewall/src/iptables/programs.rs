//! Finds the programs once, by absolute path, where nobody but root could have put them.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::Variant;
use crate::error::Error;
use crate::model::Family;

/// Searched after PATH, which a service manager may leave without the `sbin` directories.
const ALWAYS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// Write permission for group and others.
const OTHERS_WRITE: u32 = 0o022;
const ANY_EXECUTE: u32 = 0o111;
/// What root's files belong to when seen from a user namespace that root is not mapped in.
const OVERFLOW_UID: u32 = 65_534;

/// The two programs of one family.
#[derive(Debug)]
pub struct Programs {
    /// `iptables-restore` or its like.
    pub restore: PathBuf,
    /// `iptables-save` or its like.
    pub save: PathBuf,
}

impl Programs {
    /// Both programs of a variant and family, from the first directory of `path` that has each.
    pub fn find(variant: Variant, family: Family, path: &[PathBuf]) -> Result<Self, Error> {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let variant = match variant {
            Variant::System => "",
            Variant::Nft => "-nft",
            Variant::Legacy => "-legacy",
        };
        let one = |verb: &str| find(&format!("{base}{variant}-{verb}"), path);
        Ok(Self { restore: one("restore")?, save: one("save")? })
    }
}

/// The directories of PATH, then the usual ones.
pub fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(ALWAYS.map(PathBuf::from)).collect()
}

/// One program, from the first directory of `path` that has it and that nobody else can write to.
///
/// The multi-call binary goes by the name it is run with, so links are checked but not resolved.
pub fn find(program: &str, path: &[PathBuf]) -> Result<PathBuf, Error> {
    let mut unsafe_at = None;
    for directory in path.iter().filter(|directory| directory.is_absolute()) {
        let file = directory.join(program);
        let Ok(meta) = std::fs::metadata(&file) else { continue };
        if !meta.is_file() || meta.mode() & ANY_EXECUTE == 0 {
            continue;
        }
        if only_root_writes(&meta) && std::fs::metadata(directory).is_ok_and(|meta| only_root_writes(&meta)) {
            return Ok(file);
        }
        unsafe_at.get_or_insert(file);
    }
    Err(Error::NotInstalled { program: program.to_owned(), unsafe_at })
}

fn only_root_writes(meta: &std::fs::Metadata) -> bool {
    let own = rustix::process::geteuid().as_raw();
    meta.mode() & OTHERS_WRITE == 0 && [0, own, OVERFLOW_UID].contains(&meta.uid())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn program(directory: &Path, mode: u32) -> PathBuf {
        let file = directory.join("iptables-save");
        std::fs::write(&file, "#!/bin/sh\n").expect("the file is written");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("the mode is set");
        file
    }

    #[test]
    fn the_first_safe_one_is_taken() {
        let (open, safe) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
        program(open.path(), 0o755);
        std::fs::set_permissions(open.path(), PermissionsExt::from_mode(0o777)).expect("the mode is set");
        let good = program(safe.path(), 0o755);
        let path = ["relative", "/nowhere"].map(PathBuf::from).into_iter();
        let path: Vec<_> = path.chain([open.path().into(), safe.path().into()]).collect();
        assert_eq!(find("iptables-save", &path).expect("it is found"), good);
        assert!(matches!(
            find("iptables-save", &path[..3]),
            Err(Error::NotInstalled { unsafe_at: Some(at), .. }) if at.starts_with(open.path())
        ));
        assert!(matches!(
            find("iptables-save", &path[..2]),
            Err(Error::NotInstalled { unsafe_at: None, .. })
        ));
    }

    #[test]
    fn files_that_others_write_or_nobody_runs_are_passed_over() {
        let directory = tempfile::tempdir().expect("a");
        let path = [directory.path().to_path_buf()];
        for mode in [0o775, 0o757, 0o644] {
            program(directory.path(), mode);
            assert!(find("iptables-save", &path).is_err(), "{mode:o}");
        }
    }
}
