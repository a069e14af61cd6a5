//! `client add`, `client remove`, `client list`.

use std::fmt::Write as _;
use std::path::PathBuf;

use spa_proto::{ClientName, Invite, Psk, SecretKey, ServiceName};

use super::keygen::random;
use super::{print, print_json};
use crate::cli::ClientAdd;
use crate::config::Config;
use crate::control::{self, Request};
use crate::error::{Exit, Failure, Outcome};
use crate::files::{self, Existing};
use crate::log::say;

/// Enrols a client and prints its invite.
pub fn add(config: &Config, options: &ClientAdd) -> Outcome {
    if !spa_proto::is_host(&options.host) {
        return Err(Failure::new(
            Exit::Usage,
            format_args!("--host {:?} is no host name or address", options.host),
        ));
    }
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
    let keys = config.keys()?;
    let psk = Psk::from_bytes(random()?);
    let secret = match options.public_key {
        Some(_) => None,
        None => Some(SecretKey::from_bytes(random()?)),
    };
    let public = match (&secret, options.public_key) {
        (Some(secret), _) => secret.public_key(),
        (None, Some(public)) => public,
        (None, None) => return Err(Failure::new(Exit::Software, "no key")), // one of the two, by the lines above
    };
    if let Some(other) = config.clients()?.iter().find(|client| client.policy.key == public) {
        return Err(Failure::new(
            Exit::Usage,
            format_args!("client {} has this public key", other.policy.name),
        ));
    }
    let invite = Invite {
        client: options.name.clone(),
        address: options.host.clone(),
        port: config.port,
        server: keys.secret.public_key(),
        cloaks: keys.cloaks.clone(),
        psk: psk.clone(),
        secret,
        services: options.allow.iter().map(|name| (name.clone(), config.services[name].clone())).collect(),
        expires: None,
    };
    invite
        .check()
        .map_err(|error| Failure::new(Exit::Config, format_args!("no invite can be made: {error}")))?;
    write_files(config, options, &public.to_string(), &psk)?;
    print(&invite.encode())?;
    say!("enrolled {}: {}", options.name, toml_path(config, &options.name).display());
    reload_if_running(config)
}

fn write_files(config: &Config, options: &ClientAdd, public: &str, psk: &Psk) -> Outcome {
    files::make_private_directory(&config.clients_dir)?;
    let toml = toml_path(config, &options.name);
    if toml.exists() {
        let what = format_args!("client {} is enrolled already ({})", options.name, toml.display());
        return Err(Failure::new(Exit::CannotCreate, what)
            .hint(format_args!("spa-server client remove {}, or another name", options.name)));
    }
    let psk_path = psk_path(config, &options.name);
    // A psk without its client is harmless, and what a crash leaves is replaced here; the reverse would not load.
    files::write_atomically(&psk_path, spa_proto::psk_file_text(psk).as_bytes(), 0o600, Existing::Replace)?;
    files::write_atomically(&toml, client_toml(options, public).as_bytes(), 0o600, Existing::Keep)
}

/// The client's file. All values are validated words, so none needs escaping.
fn client_toml(options: &ClientAdd, public: &str) -> String {
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
    text
}

fn toml_path(config: &Config, name: &ClientName) -> PathBuf {
    config.clients_dir.join(format!("{name}.toml"))
}

fn psk_path(config: &Config, name: &ClientName) -> PathBuf {
    config.clients_dir.join(format!("{name}.psk"))
}

/// Removes a client.
pub fn remove(config: &Config, name: &ClientName) -> Outcome {
    let toml = toml_path(config, name);
    if !toml.exists() {
        return Err(Failure::new(
            Exit::NoInput,
            format_args!("there is no client {name} in {}", config.clients_dir.display()),
        )
        .hint("spa-server client list"));
    }
    // The enrolment goes first: a psk alone lets nobody in.
    for path in [toml, psk_path(config, name)] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::io("cannot remove", &path, &error));
            }
            _ => {}
        }
    }
    say!("removed {name}");
    reload_if_running(config).map_err(|failure| {
        // Some other file is wrong, so the daemon goes on with what it knew. At least nothing of it stays open.
        let all_of_it =
            Request::Revoke { client: Some(name.to_string()), source: None, endpoint: None, cut: false };
        let revoked =
            control::ask(&config.state_dir, &all_of_it).map_or("could not be revoked", |_| "are revoked");
        Failure::new(failure.exit, failure).hint(format_args!(
            "the grants of {name} {revoked}, but it is let in until `spa-server reload` succeeds"
        ))
    })
}

/// Lists the clients.
pub fn list(config: &Config, as_json: bool) -> Outcome {
    let clients = config.clients()?;
    if as_json {
        let list = clients.iter().map(|client| {
            serde_json::json!({
                "name": client.policy.name.as_str(),
                "public-key": client.policy.key.to_string(),
                "allow": client.policy.allow.iter().map(ServiceName::as_str).collect::<Vec<_>>(),
                "require-bound": client.policy.require_bound,
                "allow-explicit": client.policy.allow_explicit,
                "sources": client.policy.sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "valid-until": client.policy.valid_until,
            })
        });
        return print_json(&list.collect());
    }
    for client in &clients {
        let allow = client.policy.allow.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(",");
        print(&format!("{:<32} {} {allow}", client.policy.name, client.policy.key))?;
    }
    if clients.is_empty() {
        say!("no clients; spa-server client add NAME --allow SERVICE --host ADDRESS");
    }
    Ok(())
}

/// A change of the clients holds at once where the daemon runs.
fn reload_if_running(config: &Config) -> Outcome {
    if !control::is_running(&config.state_dir) {
        return Ok(());
    }
    control::ask(&config.state_dir, &Request::Reload)?;
    say!("the daemon has reloaded");
    Ok(())
}
