//! `import --update`: takes new keys, or a new cloak key, for a server that is known already.

use std::path::{Path, PathBuf};

use spa_proto::{ClientKeyFile, Invite};

use super::args::ImportArgs;
use super::failure::{Failure, USAGE};
use super::keygen::read_pending;
use crate::config::{Config, Host};
use crate::secret_file::read_key_file;

/// The entry that the invite is for: by its name, else the only one with the invite's server key.
pub(super) fn target(
    config: &Config,
    path: &Path,
    args: &ImportArgs,
    invite: &Invite,
) -> Result<Host, Failure> {
    let file = path.display();
    let of_server: Vec<&Host> =
        config.hosts().iter().filter(|host| host.server_key == invite.server).collect();
    let names = of_server.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
    match (args.name.as_deref(), of_server.as_slice()) {
        (Some(name), hosts) => match hosts.iter().find(|host| host.name == name) {
            Some(host) => Ok((*host).clone()),
            None if config.host(Some(name)).is_ok() => {
                let what = format!("the invite is for another server than the entry \"{name}\" in {file}");
                Err(Failure::new(USAGE, what).hint(if names.is_empty() {
                    "import it under another --name, without --update".to_owned()
                } else {
                    format!("the entry for it: {names}")
                }))
            }
            None => config.host(Some(name)).cloned().map_err(Failure::from),
        },
        (None, [host]) => Ok((*host).clone()),
        (None, []) => {
            Err(Failure::new(USAGE, format!("no entry in {file} is for the server of this invite"))
                .hint("import it with --name NAME, without --update"))
        }
        (None, _) => {
            Err(Failure::new(USAGE, format!("several entries in {file} are for this server: {names}"))
                .hint("say which with --name"))
        }
    }
}

/// The new key file's content: what the invite lacks is the key that waits for it, else stays as it is. And what the user
/// should look at, where that may be wrong: an invite does not say which key pair it is for.
pub(super) fn keys(
    invite: &Invite,
    host: &Host,
    pending: &Path,
) -> Result<(ClientKeyFile, Option<String>), Failure> {
    let known = || read_key_file(&host.key_file);
    let same_psk = || known().is_ok_and(|known| known.psk == invite.psk);
    let (secret, doubt) = match &invite.secret {
        Some(secret) => (secret.clone(), None),
        None if same_psk() => (known()?.secret, None),
        None if pending.exists() => (read_pending(pending)?, None),
        None => {
            let secret = known()?.secret;
            let doubt = format!(
                "the invite is for a key pair that its client made, with a new pre-shared key: it is right only if the \
                 server has this one, {}; if not, put {}.old back",
                secret.public_key(),
                key_path(host).display()
            );
            (secret, Some(doubt))
        }
    };
    let keys = ClientKeyFile { secret, psk: invite.psk.clone(), cloaks: invite.cloaks.clone() };
    Ok((keys, doubt))
}

/// The real file, so that a link stays one.
pub(super) fn key_path(host: &Host) -> PathBuf {
    host.key_file.canonicalize().unwrap_or_else(|_| host.key_file.clone())
}
