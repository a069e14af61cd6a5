//! `client`: enrols clients, changes them, removes them, lists them.

mod edit;
mod list;
mod manage;

use std::fmt::Write as _;
use std::path::PathBuf;

use spa_proto::{
    ClientName, CloakKey, Invite, NANOS_PER_SECOND, Psk, PublicKey, SecretKey, ServerKeyFile, ServiceName,
};

use self::edit::Edit;
pub use self::list::{Known, list};
pub use self::manage::{disable, enable, invite, remove, rotate};
use super::handover::Handover;
use super::keygen::random;
use super::{reload_if_running, reload_one_that_runs};
use crate::cli::ClientAdd;
use crate::clock;
use crate::config::Config;
use crate::control::{self, Request, ShutOutView};
use crate::error::{Exit, Failure, Outcome, counted};
use crate::files::{self, Existing};
use crate::log::say;

/// Enrols a client and prints its invite.
pub fn add(config: &Config, options: &ClientAdd) -> Outcome {
    check_host(&options.host)?;
    let unknown = options.allow.iter().find(|service| !config.services.contains_key(service));
    if let Some(unknown) = unknown {
        let known = config.services.keys().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
        let what = format_args!("--allow: there is no service {unknown} in {}", config.path.display());
        return Err(Failure::new(Exit::Usage, what).hint(if known.is_empty() {
            "name one under [services], as in: ssh = \"tcp/22\"".to_owned()
        } else {
            format!("one of: {known}")
        }));
    }
    let toml = config.client_path(&options.name);
    if toml.exists() {
        let what = format_args!("client {} is enrolled already ({})", options.name, toml.display());
        return Err(Failure::new(Exit::CannotCreate, what).hint(format_args!(
            "another name; or spa-server client rotate {0} for new keys, client remove {0}",
            options.name
        )));
    }
    let now = clock::now().wall / NANOS_PER_SECOND;
    if let Some(date) = options.valid_until.filter(|date| date.0 <= now) {
        return Err(Failure::new(Exit::Usage, format_args!("--valid-until: {date} is over"))
            .hint("a day or moment to come, in UTC, as in 2037-12-31"));
    }
    let keys = config.keys()?;
    let handover = Handover::prepare(&options.invite)?;
    let fresh = Fresh::new(config, &options.name, options.public_key)?;
    let invite = fresh.invite(config, &keys, &options.name, &options.host, &options.allow, &handover);
    let line = handover.line(&invite)?;
    write_files(config, options, &fresh, &keys.cloaks[0], &handover)?;
    // Nobody would have the keys: better no such client than one that cannot be given its invite.
    handover.present(&line).map_err(|failure| match manage::remove_files(config, &options.name) {
        Ok(()) => failure.hint("the client was not enrolled: run it again where its invite can be written"),
        Err(left) => failure.hint(format_args!(
            "{left}; then spa-server client remove {}: nobody has the keys of its invite",
            options.name
        )),
    })?;
    say!("enrolled {}: {}", options.name, toml.display());
    reload_if_running(config)
}

fn check_host(host: &str) -> Outcome {
    if spa_proto::is_host(host) {
        return Ok(());
    }
    let what = format_args!("--host {host:?} is no host name or address; nothing was changed");
    Err(Failure::new(Exit::Usage, what)
        .hint("as in bastion.example.org, 192.0.2.1 or 2001:db8::1, without a port"))
}

/// The keys of a new client, or of one that gets new ones.
struct Fresh {
    psk: Psk,
    /// Where it did not make its own.
    secret: Option<SecretKey>,
    public: PublicKey,
}

impl Fresh {
    /// Draws them; of a pair that the client made there is only the public key. No other client may have it.
    fn new(config: &Config, name: &ClientName, given: Option<PublicKey>) -> Outcome<Self> {
        let psk = Psk::from_bytes(random()?);
        let (secret, public) = match given {
            Some(public) => (None, public),
            None => {
                let secret = SecretKey::from_bytes(random()?);
                let public = secret.public_key();
                (Some(secret), public)
            }
        };
        let clients = config.clients()?;
        let other = clients.iter().find(|client| client.policy.key == public && client.policy.name != *name);
        if let Some(other) = other {
            let what = format_args!("client {} has this public key", other.policy.name);
            return Err(Failure::new(Exit::Usage, what)
                .hint("every client has a key of its own: spa-client keygen --name OTHER makes another"));
        }
        Ok(Self { psk, secret, public })
    }

    fn invite(
        &self,
        config: &Config,
        keys: &ServerKeyFile,
        name: &ClientName,
        host: &str,
        allow: &[ServiceName],
        handover: &Handover,
    ) -> Invite {
        let known = |name: &&ServiceName| config.services.contains_key(*name);
        Invite {
            client: name.clone(),
            address: host.to_owned(),
            port: config.port,
            server: keys.secret.public_key(),
            // A client seals under the newest: the others are no concern of a new one.
            cloaks: keys.cloaks.iter().take(1).cloned().collect(),
            psk: self.psk.clone(),
            secret: self.secret.clone(),
            services: allow
                .iter()
                .filter(known)
                .map(|name| (name.clone(), config.services[name].clone()))
                .collect(),
            expires: handover.expires.map(|date| date.0),
        }
    }
}

fn write_files(
    config: &Config,
    options: &ClientAdd,
    fresh: &Fresh,
    cloak: &CloakKey,
    handover: &Handover,
) -> Outcome {
    files::make_private_directory(&config.clients_dir)?;
    let psk_path = psk_path(config, &options.name);
    let text = client_toml(options, &fresh.public, cloak, handover);
    // A psk without its client is harmless, and what a crash leaves is replaced here; the reverse would not load.
    files::write_atomically(
        &psk_path,
        spa_proto::psk_file_text(&fresh.psk).as_bytes(),
        0o600,
        Existing::Replace,
    )?;
    files::write_atomically(&config.client_path(&options.name), text.as_bytes(), 0o600, Existing::Keep)
}

/// The client's file. All values are validated words, so none needs escaping.
fn client_toml(options: &ClientAdd, public: &PublicKey, cloak: &CloakKey, handover: &Handover) -> String {
    let list =
        |words: Vec<String>| words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "name = \"{name}\"\npublic-key = \"{public}\"\npsk-file = \"{name}.psk\"\nallow = [{allow}]\n",
        name = options.name,
        allow = list(options.allow.iter().map(ToString::to_string).collect()),
    );
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}"); // a String takes everything
    };
    if !options.sources.is_empty() {
        line("sources", format!("[{}]", list(options.sources.iter().map(ToString::to_string).collect())));
    }
    if options.require_bound {
        line("require-bound", "true".to_owned());
    }
    if options.allow_explicit {
        line("allow-explicit", "true".to_owned());
    }
    if let Some(longest) = options.max_open_for {
        line("max-open-for", format!("\"{longest}\""));
    }
    if let Some(date) = options.valid_until {
        line("valid-until", format!("\"{date}\""));
    }
    if let Some(date) = handover.expires {
        line("first-knock-by", format!("\"{date}\""));
    }
    line("host", format!("\"{}\"", options.host));
    line("cloak", format!("\"{}\"", cloak.id()));
    text
}

fn psk_path(config: &Config, name: &ClientName) -> PathBuf {
    config.clients_dir.join(format!("{name}.psk"))
}

/// Has the daemon let a client in no more: at once, before any file is changed, and whatever is wrong with the files of
/// others, with server.toml or with the firewall. `key` is the one that the client's file has, where it can be read.
///
/// Where none runs there is nobody to tell.
fn shut_out(config: &Config, name: &ClientName, key: Option<&PublicKey>) -> ShutOut {
    if !control::is_running(&config.state_dir) {
        return ShutOut { answered: false, was_let_in: false, complete: Ok(()) };
    }
    let request = Request::ShutOut { client: name.to_string(), key: key.map(ToString::to_string) };
    let malformed = |error| Failure::new(Exit::Software, format_args!("the daemon's answer: {error}"));
    let answer = control::ask(&config.state_dir, &request)
        .and_then(|answer| serde_json::from_value::<ShutOutView>(answer).map_err(malformed));
    match answer {
        Ok(ShutOutView { clients, closed, trouble }) => {
            let was_let_in = !clients.is_empty();
            // Trouble is told in the end.
            if was_let_in && trouble.is_none() {
                say!("the daemon lets {name} in no more ({} closed)", counted(closed, "grant"));
            }
            let complete = trouble.map_or(Ok(()), |trouble| {
                Err(Failure::new(Exit::System, format_args!("{name} is let in no more, but {trouble}")))
            });
            ShutOut { answered: true, was_let_in, complete }
        }
        Err(failure) => ShutOut { answered: false, was_let_in: false, complete: Err(failure) },
    }
}

/// What became of [`shut_out`]. A failure does not keep the files from being changed, and is told in the end.
struct ShutOut {
    /// The daemon has done it: until its next reload or start the client is not let in, whatever the files say.
    answered: bool,
    /// The daemon let it in until now.
    was_let_in: bool,
    /// Unless the daemon did not answer, or something is still open.
    complete: Outcome,
}

impl ShutOut {
    /// The failure to change the files, with what the daemon goes by meanwhile, and what to do for it to stay so.
    fn unwritten(self, failure: Failure, name: &ClientName, then: impl std::fmt::Display) -> Failure {
        let failure = match self.complete {
            Ok(()) => failure,
            Err(further) => failure.also(further.parts().0),
        };
        if self.was_let_in {
            failure
                .also(format_args!("the daemon shuts {name} out until its next reload or start"))
                .then(then)
        } else {
            failure
        }
    }
}

/// After [`shut_out`]: has the daemon take the files as they are now. Where it refuses them for another reason, what was
/// asked for holds all the same if the daemon shuts the client out, so that is said, and is no failure. A reload writes the
/// whole firewall and reads it back, so after one that succeeds nothing is open that [`shut_out`] had to leave.
///
/// # Errors
/// Where the daemon did neither, so that the client is let in as before; and what [`shut_out`] left open.
fn settle(config: &Config, name: &ClientName, told: ShutOut) -> Outcome {
    match reload_one_that_runs(config) {
        Ok(true) => {
            if let (true, Err(failure)) = (told.answered, &told.complete) {
                say!("{}; the reload has put that right: nothing is open for {name}", failure.parts().0);
            }
            Ok(())
        }
        Ok(false) if told.answered => told.complete, // it ended since
        Ok(false) => match control::runs_elsewhere(&config.state_dir) {
            Some(elsewhere) => {
                Err(elsewhere.also(format_args!("until then {name} is let in with what it had")))
            }
            None => {
                say!(
                    "no daemon runs: should {name} have something open, it closes at its time, or as soon as the daemon \
                     starts"
                );
                Ok(())
            }
        },
        Err(failure) if told.answered => {
            say!(
                "spa-server: the daemon goes on with the configuration from before: {failure}\n\
                 spa-server: {name} stays shut out all the same, with its old keys and any new ones, until \
                 `spa-server reload` succeeds"
            );
            told.complete
        }
        Err(failure) => {
            let (why, _) = failure.parts();
            let mut still =
                format!("{name} is let in with what it had until `spa-server reload` succeeds: {why}");
            if let Err(failure) = &told.complete {
                let _ = write!(still, "; shutting it out: {}", failure.parts().0); // a String takes everything
            }
            let (_, hint) = failure.parts();
            let hint = hint.unwrap_or("put that right");
            Err(Failure::new(failure.exit, still).hint(format_args!("{hint}; then spa-server reload")))
        }
    }
}

#[cfg(test)]
mod tests;
