//! `keygen`: a key pair that waits for its invite, for servers that enrol a client by its public key.

use std::path::{Path, PathBuf};

use spa_proto::SecretKey;
use zeroize::Zeroizing;

use super::args::KeygenArgs;
use super::failure::{DATA, Failure, USAGE};
use super::say::{Say, print};
use super::staged::Staged;
use crate::counter::create_private;
use crate::error::Error;
use crate::random::generate_key;
use crate::secret_file;

/// The first line of a key file (see `spa_proto::ClientKeyFile`). This one ends after the private key.
const FIRST_LINE: &str = "spa-client-key-v1";
const PRIVATE: &str = "private";

/// The file of a key that waits for the invite of a host.
pub(super) fn pending_path(config: &Path, name: &str) -> PathBuf {
    config.with_file_name(format!("{name}.key.pending"))
}

pub(super) fn run(args: &KeygenArgs, config: &Path, say: Say) -> Result<(), Failure> {
    let path = pending_path(config, &args.name);
    if path.exists() && !args.force {
        return Err(Failure::new(USAGE, format!("{} waits for its invite already", path.display()))
            .hint("import the invite, choose another name, or replace the key with --force"));
    }
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let error = |source| Error::File { action: "make", path: directory.to_owned(), source };
        create_private(directory).map_err(error)?;
    }
    let secret = generate_key()?;
    let text = Zeroizing::new(format!("{FIRST_LINE}\n{PRIVATE} = {}\n", *secret.to_base64()));
    let staged = Staged::new(&path, &text, false)?;
    secret_file::read(staged.path())?; // refuses a directory that others can write, before it matters
    staged.commit()?;
    print(&secret.public_key().to_string()).map_err(|failure| {
        failure.hint(format!("the key waits in {}; --force makes another and prints it", path.display()))
    })?;
    say.progress(&format!(
        "this is the public key: give it to the server's administrator, and take the invite that comes back with\n  \
         spa-client import --name {}",
        args.name
    ));
    Ok(())
}

/// The private key that waits in a file.
pub(super) fn read_pending(path: &Path) -> Result<SecretKey, Failure> {
    let text = secret_file::read(path)?;
    let value = text
        .strip_prefix(FIRST_LINE)
        .and_then(|rest| rest.trim().strip_prefix(PRIVATE))
        .and_then(|rest| rest.trim_start().strip_prefix('='));
    value.and_then(|value| SecretKey::from_base64(value.trim()).ok()).ok_or_else(|| {
        Failure::new(DATA, format!("{} is not a key that spa-client keygen made", path.display()))
    })
}
