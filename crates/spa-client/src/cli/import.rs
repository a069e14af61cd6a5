//! `import`: turns an invite into a host entry and a key file. Nothing is lost where it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use spa_proto::{ClientKeyFile, Endpoint, Invite, InviteError, MAX_INVITE_LENGTH, ServiceName};
use zeroize::Zeroizing;

use super::args::ImportArgs;
use super::edit::{with_host, with_renewed};
use super::failure::{DATA, Failure, NO_INPUT, USAGE, io_failure};
use super::keygen::{pending_path, read_pending};
use super::say::{Say, warn};
use super::staged::Staged;
use super::{passphrase, update};
use crate::address::Source;
use crate::config::{Config, Host};
use crate::counter::create_private;
use crate::error::Error;
use crate::secret_file::read_key_file;

pub(super) fn run(args: &ImportArgs, config: &Path, say: Say) -> Result<(), Failure> {
    let file = args.file.as_deref().filter(|file| *file != Path::new("-"));
    let invite = parse(&read_invite(file)?, args)?;
    let text = read_config(config)?;
    let change = if args.update {
        renewal(&text, invite, args, config)?
    } else {
        enrolment(&text, invite, args, config)?
    };

    if let Some(directory) = config.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let error = |source| Error::File { action: "make", path: directory.to_owned(), source };
        create_private(directory).map_err(error)?;
    }
    // Both are complete on the disk before either is in its place; what can still fail after that is a rename.
    let key = Staged::new(&change.key_path, &change.keys.to_text(), false)?;
    read_key_file(key.path())?; // refuses a directory that others can write, before it matters
    // A configuration that is a link stays one.
    let target = config.canonicalize().unwrap_or_else(|_| config.to_owned());
    let text = Staged::new(&target, &change.text, true)?;
    replace(key, &change.key_path, text)?;

    if let Some(pending) = &change.pending {
        let _ = std::fs::remove_file(pending); // its key is in the key file now
    }
    let Host { name, .. } = &change.host;
    say.progress(&format!(
        "wrote {} and the entry \"{name}\" in {}",
        change.key_path.display(),
        config.display()
    ));
    if let Some(file) = file {
        warn(&format!("the invite holds secrets: delete {} now", file.display()));
    }
    for note in change.notes {
        warn(&note);
    }
    if !args.update {
        offer_ssh(&change.host, say);
    }
    say.progress(&format!("try: spa-client check --host {name}"));
    Ok(())
}

/// What is to be written.
struct Change {
    host: Host,
    keys: ClientKeyFile,
    key_path: PathBuf,
    /// The configuration's text.
    text: String,
    /// The file of a key that waited for this invite.
    pending: Option<PathBuf>,
    /// What a person should hear.
    notes: Vec<String>,
}

/// A new entry.
fn enrolment(text: &str, invite: Invite, args: &ImportArgs, config: &Path) -> Result<Change, Failure> {
    let name = args.name.as_deref().unwrap_or_default(); // the parser wants it where there is no --update
    let pending = pending_path(config, name);
    let keys = keys(&invite, &pending)?;
    let pending = invite.secret.is_none().then_some(pending);
    let key_name = format!("{name}.key");
    let key_path = config.with_file_name(&key_name);
    refuse_overwriting(text, config, &key_path, name, args.force)?;
    let host = host(invite, name, args.address.as_deref(), &key_path);
    let twins = twins(text, config, &host)?;
    let mut notes = Vec::new();
    if !twins.is_empty() {
        // Two accounts on one server are a reason to have two entries; ssh's %h then means neither.
        notes.push(format!(
            "the address {} is now that of {} as well: with \"connect\", and in ssh's ProxyCommand, name the entry \
             (%n), not the address (%h)",
            host.address,
            twins.join(", ")
        ));
    }
    let text = with_host(text, config, &host, &key_name)?;
    Ok(Change { host, keys, key_path, text, pending, notes })
}

/// New keys for an entry that is there.
fn renewal(text: &str, invite: Invite, args: &ImportArgs, config: &Path) -> Result<Change, Failure> {
    let known = update::target(&Config::parse(text, config)?, config, args, &invite)?;
    let pending = pending_path(config, &known.name);
    let (keys, doubt) = update::keys(&invite, &known, &pending)?;
    let used = read_pending(&pending).is_ok_and(|waiting| waiting.public_key() == keys.secret.public_key());
    let pending = used.then_some(pending);
    let key_path = update::key_path(&known);
    let mut notes = Vec::from_iter(doubt);
    if args.address.is_none() && invite.address != known.address {
        notes.push(format!(
            "the invite names the address {}; the entry \"{}\" keeps {} (--address changes it)",
            invite.address, known.name, known.address
        ));
    }
    let address = args.address.clone().unwrap_or_else(|| known.address.clone());
    let host = Host { address, port: invite.port, services: BTreeMap::from_iter(invite.services), ..known };
    let text = with_renewed(text, config, &host)?;
    Ok(Change { host, keys, key_path, text, pending, notes })
}

/// Where to get what makes ssh knock by itself, if there is an ssh service.
fn offer_ssh(host: &Host, say: Say) {
    let is_ssh = |name: &ServiceName, list: &[Endpoint]| {
        let ssh_port = |endpoint: &Endpoint| endpoint.to_string() == "tcp/22";
        name.as_str() == "ssh" || list.iter().any(ssh_port)
    };
    if host.services.iter().any(|(name, list)| is_ssh(name, list)) {
        say.progress(&format!(
            "to have \"ssh {0}\" knock by itself: spa-client ssh-config {0} >> ~/.ssh/config",
            host.name
        ));
    }
}

/// The other entries that an address could mean as well as this one, where both open the same port.
fn twins(text: &str, config: &Path, entry: &Host) -> Result<Vec<String>, Error> {
    let endpoints = |host: &Host| host.services.values().flatten().copied().collect::<BTreeSet<_>>();
    let own = endpoints(entry);
    let is_twin = |host: &&Host| {
        host.name != entry.name
            && host.address.eq_ignore_ascii_case(&entry.address)
            && (endpoints(host).is_empty() || own.is_empty() || !endpoints(host).is_disjoint(&own))
    };
    Ok(Config::parse(text, config)?.hosts().iter().filter(is_twin).map(|host| host.name.clone()).collect())
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

fn parse(text: &str, args: &ImportArgs) -> Result<Invite, Failure> {
    let invite = match Invite::parse(text) {
        Err(InviteError::Encrypted) => passphrase::open(text, args.passphrase_file.as_deref())?,
        Ok(_) if args.passphrase_file.is_some() => {
            return Err(
                Failure::new(USAGE, "the invite is not encrypted").hint("leave --passphrase-file out")
            );
        }
        other => other.map_err(passphrase::malformed)?,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Error::Clock)?.as_secs();
    match invite.expires.filter(|expires| *expires <= now) {
        None => Ok(invite),
        Some(expires) => Err(Failure::new(DATA, format!("the invite expired {} ago", length(now - expires)))
            .hint(format!(
                "ask the server's administrator for another: spa-server client rotate {}",
                invite.client
            ))),
    }
}

/// Seconds in the largest unit that they fill.
fn length(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let unit = units.into_iter().find(|(size, _)| seconds >= *size);
    unit.map_or_else(|| format!("{seconds} s"), |(size, name)| format!("{} {name}", seconds / size))
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
            .hint(
                "give the --name that spa-client keygen was given; or --update, where an entry for this server has \
                 the key",
            ));
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

fn refuse_overwriting(text: &str, config: &Path, key: &Path, name: &str, force: bool) -> Result<(), Failure> {
    let known = Config::parse(text, config)?.hosts().iter().any(|host| host.name == name);
    let what = if known {
        format!("{} has a host \"{name}\" already", config.display())
    } else if key.exists() {
        format!("{} exists already", key.display())
    } else {
        return Ok(());
    };
    if force {
        Ok(())
    } else {
        Err(Failure::new(USAGE, what).hint(
            "renew its keys with --update, choose another --name, or replace it altogether with --force",
        ))
    }
}

fn host(invite: Invite, name: &str, address: Option<&str>, key_file: &Path) -> Host {
    Host {
        name: name.to_owned(),
        address: address.map_or(invite.address, str::to_owned),
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
