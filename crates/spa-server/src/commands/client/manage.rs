//! `client remove`, `disable`, `enable`, `rotate`, `invite`: what becomes of a client after it was enrolled.

use std::path::{Path, PathBuf};

use spa_proto::{ClientName, ServiceName};

use super::{Edit, Fresh, Handover, Known, ShutOut, check_host, psk_path, settle, shut_out};
use crate::cli::{ClientInvite, ClientRotate};
use crate::commands::reload_if_running;
use crate::config::{Client, Config};
use crate::error::{Exit, Failure, Outcome, with_config};
use crate::files::{self, Existing};
use crate::log::say;

/// Removes a client.
pub fn remove(config: &Config, name: &ClientName) -> Outcome {
    let toml = config.client_path(name);
    // What cannot be read is removed all the same: perhaps that is why.
    let client = config.client_named(name).ok();
    let told = shut_out(config, name, client.as_ref().map(|client| &client.policy.key));
    if !toml.exists() && !told.was_let_in {
        return Err(unknown(config, name, told));
    }
    let psk_path = client.map(|client| client.psk_path).filter(|path| is_ours(config, path));
    let removed =
        remove_files(config, name).and_then(|()| psk_path.map_or(Ok(()), |path| remove_file(&path)));
    if let Err(failure) = removed {
        return Err(told.unwritten(failure, name, format_args!("spa-server client remove {name} again")));
    }
    say!("removed {name}");
    settle(config, name, told)
}

/// A name that neither the files nor the daemon know. Where the daemon did not answer it may be one that was removed.
fn unknown(config: &Config, name: &ClientName, told: ShutOut) -> Failure {
    let what = format_args!("there is no client {name} in {}", config.clients_dir.display());
    let failure = Failure::new(Exit::NoInput, what).hint("spa-server client list");
    match told.complete {
        Err(unanswered) if !told.answered => unanswered.also(what),
        _ => failure,
    }
}

/// Removes a client's file and the psk files that are called after it. The enrolment goes first: a psk alone lets nobody
/// in.
pub(super) fn remove_files(config: &Config, name: &ClientName) -> Outcome {
    remove_file(&config.client_path(name))?;
    remove_file(&psk_path(config, name))?;
    remove_file(&spare_psk_path(config, name))
}

/// A psk file of a place of its own is the administrator's.
fn is_ours(config: &Config, path: &Path) -> bool {
    path.parent() == Some(&*config.clients_dir)
}

fn remove_file(path: &Path) -> Outcome {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io("cannot remove", path, &error))
        }
        _ => Ok(()),
    }
}

/// Lets a client in no more; what it has open ends.
pub fn disable(config: &Config, name: &ClientName) -> Outcome {
    let client = config.client_named(name);
    let told = shut_out(config, name, client.as_ref().ok().map(|client| &client.policy.key));
    if let Err(failure) = write_disabled(config, client, name) {
        let then = format_args!("spa-server client disable {name} again, or remove {name}");
        return Err(told.unwritten(failure, name, then));
    }
    settle(config, name, told)
}

fn write_disabled(config: &Config, client: Outcome<Client>, name: &ClientName) -> Outcome {
    let client = client?;
    if client.disabled {
        say!("{name} is disabled already");
        return Ok(());
    }
    let mut edit = Edit::of(&client)?;
    edit.set("disabled", true);
    edit.write()?;
    let enable = with_config(&format!("spa-server client enable {name}"), &config.path);
    say!("disabled {name}; {enable} lets it in again");
    Ok(())
}

/// Lets a client in again that was disabled, or whose invite lapsed.
pub fn enable(config: &Config, name: &ClientName) -> Outcome {
    let client = config.client_named(name)?;
    let mut edit = Edit::of(&client)?;
    let was_disabled = edit.unset("disabled") && client.disabled;
    let had_a_limit = edit.unset("first-knock-by");
    if !was_disabled && !had_a_limit {
        say!("{name} is not disabled");
    } else {
        edit.write()?;
        say!("enabled {name}");
    }
    reload_if_running(config)
}

/// Gives a client new keys and prints its new invite. The old ones open nothing from now on.
pub fn rotate(config: &Config, options: &ClientRotate) -> Outcome {
    let name = &options.name;
    let client = config.client_named(name)?;
    let host = host(&client, options.invite.host.as_deref())?;
    let keys = config.keys()?;
    let handover = Handover::prepare(&options.invite.invite)?;
    let fresh = Fresh::new(config, name, options.public_key)?;
    let invite = fresh.invite(config, &keys, name, &host, &client.policy.allow, &handover);
    let line = handover.line(&invite)?;
    // Both change in one step: the psk goes into a new file, and the client's file then names it with the new key.
    let new_psk = free_psk_path(config, &client)?;
    files::write_atomically(
        &new_psk,
        spa_proto::psk_file_text(&fresh.psk).as_bytes(),
        0o600,
        Existing::Replace,
    )?;
    let mut edit = Edit::of(&client)?;
    edit.set("public-key", fresh.public.to_string());
    edit.set("psk-file", new_psk.file_name().unwrap_or_default().to_string_lossy().into_owned());
    edit.set("host", host);
    edit.set("cloak", keys.cloaks[0].id());
    edit.set_first_knock_by(handover.expires);
    // Before the file: whoever stole the old keys is out, even should this end here.
    let told = shut_out(config, name, Some(&client.policy.key));
    if let Err(failure) = edit.write() {
        let _ = std::fs::remove_file(&new_psk); // of nobody
        return Err(told.unwritten(failure, name, format_args!("spa-server client rotate {name} again")));
    }
    let removed = if is_ours(config, &client.psk_path) { remove_file(&client.psk_path) } else { Ok(()) };
    let presented = handover.present(&line).map_err(|failure| {
        failure.hint(format_args!(
            "{name} has new keys that nobody has seen: spa-server client rotate {name} again, where its invite can be \
             written"
        ))
    });
    let settled = settle(config, name, told);
    if presented.is_ok() {
        let old = if settled.is_ok() { "; what it had opens nothing any more" } else { "" };
        say!("{name} has new keys{old}. On the client: spa-client import --update");
        say_if_disabled(config, &client);
    }
    first_of([presented, settled, removed])
}

/// The first failure, where there is one; any others are told here.
fn first_of(outcomes: [Outcome; 3]) -> Outcome {
    let mut failures = outcomes.into_iter().filter_map(Result::err);
    let first = failures.next();
    for failure in failures {
        say!("spa-server: {failure}");
    }
    first.map_or(Ok(()), Err)
}

/// Prints an invite for a client that keeps its keys: with the newest cloak key, the address and the services of now.
///
/// # Errors
/// Where the invite before it could lapse and was not used: the same keys would bring that one back to life as well.
pub fn invite(config: &Config, options: &ClientInvite) -> Outcome {
    let client = config.client_named(&options.name)?;
    if client.policy.first_knock_by.is_some() && Known::read(config)?.last_knock(&client).is_none() {
        let what = format_args!(
            "the last invite of {} was not used, and this one would let it in as well",
            options.name
        );
        return Err(
            Failure::new(Exit::Usage, what).hint(format_args!("spa-server client rotate {}", options.name))
        );
    }
    let host = host(&client, options.invite.host.as_deref())?;
    let keys = config.keys()?;
    let handover = Handover::prepare(&options.invite.invite)?;
    let same = Fresh { psk: client.psk.clone(), secret: None, public: client.policy.key };
    let allow: &[ServiceName] = &client.policy.allow;
    let invite = same.invite(config, &keys, &options.name, &host, allow, &handover);
    let line = handover.line(&invite)?;
    let mut edit = Edit::of(&client)?;
    edit.set("host", host);
    edit.set("cloak", keys.cloaks[0].id());
    edit.set_first_knock_by(handover.expires);
    edit.write()?;
    let presented = handover.present(&line).map_err(|failure| {
        failure.hint(format_args!("nothing is lost: spa-server client invite {} again", options.name))
    });
    if presented.is_ok() {
        say!("for a client that has its private key already. There: spa-client import --update");
        say_if_disabled(config, &client);
    }
    presented.and(reload_if_running(config))
}

/// An invite that opens nothing for now is easily taken for one that does.
fn say_if_disabled(config: &Config, client: &Client) {
    if client.disabled {
        let name = &client.policy.name;
        let enable = with_config(&format!("spa-server client enable {name}"), &config.path);
        say!("{name} is disabled: the invite opens nothing before {enable}");
    }
}

/// What the client reaches this server by: as the last invite had it.
fn host(client: &Client, given: Option<&str>) -> Outcome<String> {
    if let Some(given) = given {
        check_host(given)?;
    }
    given.map(str::to_owned).or_else(|| client.host.clone()).ok_or_else(|| {
        let what = format_args!(
            "{} does not say by what address the client reaches this server",
            client.path.display()
        );
        Failure::new(Exit::Usage, what).hint("--host ADDRESS; it is remembered")
    })
}

/// The other name that a psk file of ours can have. No client's own file is called so, whatever the client's name.
fn spare_psk_path(config: &Config, name: &ClientName) -> PathBuf {
    config.clients_dir.join(format!("{name}.psk-2"))
}

/// A name for the new psk beside the old one.
fn free_psk_path(config: &Config, client: &Client) -> Outcome<PathBuf> {
    let usual = psk_path(config, &client.policy.name);
    let spare = spare_psk_path(config, &client.policy.name);
    Ok(if client.psk_path == usual { spare } else { usual })
}
