//! `import`: turns an invite into a host entry and a key file. Nothing is lost where it fails.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use spa_proto::{ClientKeyFile, Invite, MAX_INVITE_LENGTH};
use zeroize::Zeroizing;

use super::args::ImportArgs;
use super::edit::with_host;
use super::failure::{DATA, Failure, NO_INPUT, USAGE, io_failure};
use super::keygen::{pending_path, read_pending};
use super::say::{Say, warn};
use super::staged::Staged;
use crate::address::Source;
use crate::config::{Config, Host};
use crate::counter::create_private;
use crate::error::Error;
use crate::secret_file::read_key_file;

pub(super) fn run(args: &ImportArgs, config: &Path, say: Say) -> Result<(), Failure> {
    let file = args.file.as_deref().filter(|file| *file != Path::new("-"));
    let invite = parse(&read_invite(file)?)?;
    let pending = pending_path(config, &args.name);
    let keys = keys(&invite, &pending)?;
    let own_key = invite.secret.is_none();
    let key_path = config.with_file_name(format!("{}.key", args.name));
    let text = read_config(config)?;
    refuse_overwriting(&text, config, &key_path, args)?;
    let name = format!("{}.key", args.name);
    let text = with_host(&text, config, &host(invite, args, &key_path), &name)?;

    if let Some(directory) = config.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let error = |source| Error::File { action: "make", path: directory.to_owned(), source };
        create_private(directory).map_err(error)?;
    }
    // Both are complete on the disk before either is in its place; what can still fail after that is a rename.
    let key = Staged::new(&key_path, &keys.to_text(), false)?;
    read_key_file(key.path())?; // refuses a directory that others can write, before it matters
    // A configuration that is a link stays one.
    let target = config.canonicalize().unwrap_or_else(|_| config.to_owned());
    let text = Staged::new(&target, &text, true)?;
    replace(key, &key_path, text)?;

    if own_key {
        let _ = std::fs::remove_file(&pending); // its key is in the key file now
    }
    say.progress(&format!(
        "wrote {} and the entry \"{}\" in {}",
        key_path.display(),
        args.name,
        config.display()
    ));
    if let Some(file) = file {
        warn(&format!("the invite holds secrets: delete {} now", file.display()));
    }
    say.progress(&format!("try: spa-client check --host {}", args.name));
    Ok(())
}

/// The invite's text: one line from a terminal, everything from a file or a pipe.
fn read_invite(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    // One more than it may have, so that what is too long is seen to be.
    let limit = MAX_INVITE_LENGTH + 1;
    let mut text = Zeroizing::new(String::with_capacity(limit));
    let stdin = io::stdin();
    let read = match file {
        Some(path) => {
            let error = |source| Error::File { action: "read", path: path.to_owned(), source };
            let file = std::fs::File::open(path).map_err(error)?;
            file.take(limit as u64).read_to_string(&mut text)
        }
        None if stdin.is_terminal() => {
            warn("paste the invite, and press Enter:");
            stdin.read_line(&mut text)
        }
        None => stdin.lock().take(limit as u64).read_to_string(&mut text),
    };
    read.map_err(io_failure("cannot read the invite"))?;
    if text.trim().is_empty() {
        return Err(Failure::new(NO_INPUT, "there is no invite on standard input")
            .hint("spa-server client add prints it; it is one line"));
    }
    Ok(text)
}

fn parse(text: &str) -> Result<Invite, Failure> {
    let invite = Invite::parse(text).map_err(|error| Failure::new(DATA, error.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Error::Clock)?;
    if invite.expires.is_some_and(|expires| expires <= now.as_secs()) {
        return Err(
            Failure::new(DATA, "the invite has expired").hint("ask the server's administrator for a new one")
        );
    }
    Ok(invite)
}

/// The key file's content: the invite brings the private key, or `keygen` made it before.
fn keys(invite: &Invite, pending: &Path) -> Result<ClientKeyFile, Failure> {
    let secret = match &invite.secret {
        Some(secret) => secret.clone(),
        None if pending.exists() => read_pending(pending)?,
        None => {
            return Err(Failure::new(
                NO_INPUT,
                format!("the invite is for a key of yours, and {} is missing", pending.display()),
            )
            .hint("give the --name that spa-client keygen was given"));
        }
    };
    Ok(ClientKeyFile { secret, psk: invite.psk.clone(), cloaks: invite.cloaks.clone() })
}

fn read_config(path: &Path) -> Result<String, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(Error::File { action: "read", path: path.to_owned(), source }),
    }
}

fn refuse_overwriting(text: &str, config: &Path, key: &Path, args: &ImportArgs) -> Result<(), Failure> {
    let known = Config::parse(text, config)?.hosts().iter().any(|host| host.name == args.name);
    let what = if known {
        format!("{} has a host \"{}\" already", config.display(), args.name)
    } else if key.exists() {
        format!("{} exists already", key.display())
    } else {
        return Ok(());
    };
    if args.force {
        Ok(())
    } else {
        Err(Failure::new(USAGE, what).hint("choose another --name, or replace it with --force"))
    }
}

fn host(invite: Invite, args: &ImportArgs, key_file: &Path) -> Host {
    Host {
        name: args.name.clone(),
        address: args.address.clone().unwrap_or(invite.address),
        port: invite.port,
        server_key: invite.server,
        key_file: key_file.to_owned(),
        source: Source::Auto,
        resolver: None,
        services: BTreeMap::from_iter(invite.services),
    }
}

/// Puts both files in their places; a key file that was there before is kept as `.old`, and put back on failure.
fn replace(key: Staged, key_path: &Path, config: Staged) -> Result<(), Error> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { action: "write", path, source }
    };
    let old = PathBuf::from(format!("{}.old", key_path.display()));
    let had_key = key_path.exists();
    if had_key {
        std::fs::rename(key_path, &old).map_err(error(&old))?;
    }
    let result = key.commit().and_then(|()| config.commit());
    if result.is_err() {
        if had_key {
            let _ = std::fs::rename(&old, key_path);
        } else {
            let _ = std::fs::remove_file(key_path);
        }
    }
    result
}
